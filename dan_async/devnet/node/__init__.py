"""One node: what it serves to clients, what it keeps, and how it is run."""
