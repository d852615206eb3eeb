"""The wallet-provider gateway in front of the devnet's nodes."""
