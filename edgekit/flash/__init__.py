"""Put a bundle on a device: over ssh (`flashing` tells the story), or into an image or a folder that goes there.

Refuses nothing itself."""
