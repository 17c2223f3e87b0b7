"""Telemetry that survives: what was measured is kept on disk in a bounded ring, and sent when a network is there.

Refuses nothing here: `ring` keeps, `recording` fills it, `sending` empties it by `remote_write` or `otlp`."""
