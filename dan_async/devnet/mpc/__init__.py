"""The devnet's multi-party protocols: pure computation over bytes and numbers, no I/O, no clock, no asyncio."""
