"""What a devnet node can be made to do wrong, so that software can be tested against a network that misbehaves."""
