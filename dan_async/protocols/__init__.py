"""Messages on the wire, both sides of each: the gateway's three revisions, and dan-node/1."""
