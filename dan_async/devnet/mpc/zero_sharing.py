"""
Shares of zero: random numbers, one at each party, that add up to 0.

The functionality of DKLs23 (ePrint 2023/765, section 3, Functionality 3.4), from a seed that each pair of parties has in
common: one of the two adds a hash of it, the other takes it away. With two honest parties in the group, each of their
shares is uniform to everybody else, in the random-oracle model. Used to make the parties' shares of the key fresh in each
signature; no interaction, so nothing to check.
"""

from __future__ import annotations

from collections.abc import Mapping

from dan_async.crypto.point import ORDER
from dan_async.devnet.mpc.hashing import hash_to_scalar


def zero_share(index: int, seeds: Mapping[int, bytes], context: bytes) -> int:
    """
    Give this party's share.

    Args:
        index: This party's index.
        seeds: The seed in common with each of the other parties of the group, and with nobody else.
        context: What names the group and the occasion; the same at all of them.
    """
    share = 0
    for other, seed in seeds.items():
        term = hash_to_scalar("dan-ecdsa/1 zero share", context, seed)
        share += term if index < other else -term
    return share % ORDER
