"""One node of the devnet: its services, their checks and their stores, and how it is run."""
