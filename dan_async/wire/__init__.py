"""Models to text on the wire and back, one file for each protocol revision; no I/O."""
