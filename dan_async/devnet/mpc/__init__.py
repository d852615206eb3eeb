"""
The devnet's multi-party protocols: pure computation over bytes and numbers, no I/O, no clock, no asyncio.

Key generation: ``dkg.DkgParty``, ``key_share.KeyShare``, ``abort.DkgAbort`` and ``abort.check_complaint``.
"""
