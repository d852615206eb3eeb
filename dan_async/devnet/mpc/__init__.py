"""
The devnet's multi-party protocols: pure computation over bytes and numbers, no I/O, no clock, no asyncio.

Key generation: ``dkg.DkgParty``, ``key_share.KeyShare``, ``abort.DkgAbort`` and ``abort.check_complaint``.

Signing: once for each pair of parties ``pairwise_setup.PairSetup`` and ``pair_state.PairState``; then
``threshold_ecdsa.SigningParty`` and ``presignature.Presignature``; ``signing_abort.SigningAbort`` and
``pair_abort.PairAbort`` say what went wrong.
"""
