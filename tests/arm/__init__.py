"""What runs where: bundles replayed on emulated cores by the very wheels of the devices, beside what they answer here.

Refuses to pass what a core answers differently, and to leave out in silence what a target rules out."""
