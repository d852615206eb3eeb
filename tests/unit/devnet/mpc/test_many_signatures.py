"""
Many signatures in a row: all valid and low, no nonce twice. ``nox -s signatures`` makes ten thousand, the suite a few.

``DAN_SIGNATURES`` says how many.
"""

from __future__ import annotations

import itertools
import os
import secrets

import pytest
from coincurve import PublicKey
from eth_account import Account

from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import ORDER
from tests.unit.devnet.mpc.dkg_group import Group
from tests.unit.devnet.mpc.signing_group import Signing, all_pairs

COUNT = int(os.environ.get("DAN_SIGNATURES", "50"))


@pytest.mark.timeout(60 + COUNT)
def test_none_is_invalid_none_is_high_and_no_nonce_comes_twice():
    """By every set of signers of a 2-of-3 and a 3-of-5 key, in turns; two implementations of the verifier."""
    keys = [Group(2, 3).run(), Group(3, 5).run()]
    pairs = [all_pairs(range(1, n + 1)) for n in (3, 5)]
    # Two of three signatures are 2-of-3: they cost less.
    sets = itertools.cycle(
        [(0, s) for s in itertools.combinations(range(1, 4), 2)] * 7
        + [(1, s) for s in itertools.combinations(range(1, 6), 3)]
    )
    seen, recovery_ids, s_bits = set(), set(), set()
    for which, signers in itertools.islice(sets, COUNT):
        shares, digest = keys[which], secrets.token_bytes(32)
        signature = Signing(shares, pairs[which], signers).run(digest)
        r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
        recovered = PublicKey.from_signature_and_message(
            signature[:64] + bytes((v - 27,)), digest, hasher=None
        )
        assert recovered.format() == shares[1].public_key
        assert Account._recover_hash(digest, signature=signature) == public_key_to_address(recovered.format())
        assert 0 < s <= ORDER // 2
        assert r not in seen
        seen.add(r)
        recovery_ids.add(v)
        s_bits.add(s & 1)
    assert recovery_ids == {27, 28}
    assert s_bits == {0, 1}
