"""
The devnet's multi-party protocols: pure computation over bytes and numbers, no I/O, no clock, no asyncio.

Key generation: ``dkg.DkgParty`` makes a ``key_share.KeyShare``; ``evidence`` proves equivocation. Signing: once for
each pair of parties ``pairwise_setup.PairSetup``, upon ``ot``; then ``threshold_ecdsa.SigningParty`` and ``Presignature``,
upon ``vole``. ``aborts`` has every way in which they end early, ``framing`` the form of all their messages.
"""
