"""How nodes work together: links between them, sessions over the links, and the protocols that run in sessions."""
