"""
The curve operations that no client can leave out, called on coincurve directly, with a recorded operation's own values.

For one keygen over n nodes: the ephemeral public key (1 base multiplication), the owner's signature (1 signing), the check
that the owner made it (1 recovery), the check of every acknowledgement's signature (n recoveries), reading the public key
and the public shares (n + 1 decompressions), and the check that the shares make the key, by the cheaper of two ways for
these t and n: small multiples of every t + 1 neighbours, or one full multiplication a point.

For one signature of t nodes: the ephemeral key made ready (2 base multiplications in coincurve), its signatures under the
two requests (2 signings), the check of every share's signature (t recoveries), the shifted nonce (1 decompression, 1 base
multiplication, 1 addition), and the check of the result (1 recovery).
"""

from __future__ import annotations

import contextlib
import math
import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any

from coincurve import PrivateKey, PublicKey

from benchmarks.recording import Recording
from dan_async.crypto.curve import ORDER
from dan_async.protocols.node import PRESIGN, SIGN, Acknowledgement, PresignatureOffer, SignatureShares

__all__ = ["CurveOperations", "SigningOperations"]


class CurveOperations:
    """
    The operations for one recorded keygen.

    Args:
        recording: The keygen.
    """

    def __init__(self, recording: Recording) -> None:
        nodes = range(len(recording.nodes))
        acks = [Acknowledgement.read(recording.result(node, "dan_keygen")) for node in nodes]
        self._signed = [
            (ack.signature[:64] + bytes((ack.signature[64] - 27,)), ack.digest(ack.request_id))
            for ack in acks
        ]
        self._points = [acks[0].public_key, *acks[0].public_shares]
        self._windows = _windows(acks[0].threshold.t, acks[0].threshold.n)
        self._factors = [secrets.token_bytes(32) for _ in self._points]
        self._ephemeral = secrets.token_bytes(32)
        self._owner = PrivateKey(secrets.token_bytes(32))
        self._digest = secrets.token_bytes(32)
        # Both ways are run here, and the quicker one is what counts.
        points = [PublicKey(point) for point in self._points]
        self._fit = min(
            (self._fit_by_neighbours, self._fit_by_factors), key=lambda fit: _typical_s(lambda: fit(points))
        )

    def describe(self) -> dict[str, Any]:
        """Give how many there are."""
        small = sum(len(window) for window in self._windows)
        by_neighbours = self._fit == self._fit_by_neighbours
        return {
            "base_multiplications": 1,
            "signings": 1,
            "recoveries": len(self._signed) + 1,
            "decompressions": len(self._points),
            "multiplications": 0 if by_neighbours else len(self._points),
            "small_multiplications": small if by_neighbours else 0,
        }

    def run(self) -> None:
        """Do them once."""
        PublicKey.from_valid_secret(self._ephemeral).format(compressed=False)
        signature = self._owner.sign_recoverable(self._digest, hasher=None)
        PublicKey.from_signature_and_message(signature, self._digest, hasher=None).format(compressed=False)
        for signed, digest in self._signed:
            PublicKey.from_signature_and_message(signed, digest, hasher=None).format(compressed=False)
        points = [PublicKey(point) for point in self._points]
        self._fit(points)
        points[0].format(compressed=False)

    async def run_async(self) -> None:
        """Do them once, where something to await is wanted."""
        self.run()

    def _fit_by_neighbours(self, points: list[PublicKey]) -> None:
        for start, window in enumerate(self._windows):
            _combine(
                [
                    point.multiply(factor)
                    for point, factor in zip(points[start : start + len(window)], window, strict=True)
                ]
            )

    def _fit_by_factors(self, points: list[PublicKey]) -> None:
        _combine([point.multiply(factor) for point, factor in zip(points, self._factors, strict=True)])


class SigningOperations:
    """
    The operations for one recorded signature, with its presignature.

    Args:
        recording: Of the steps ``PRESIGN`` and ``SIGN``.
    """

    def __init__(self, recording: Recording) -> None:
        nodes = range(len(recording.nodes))
        shares = [SignatureShares.read(recording.result(node, SIGN)) for node in nodes]
        self._signed = [
            (made.signature[:64] + bytes((made.signature[64] - 27,)), made.digest(made.claims.request_id))
            for made in shares
        ]
        self._nonce_point = PresignatureOffer.read(recording.result(0, PRESIGN)).nonce_point
        self._secret, self._shift, self._digest = (secrets.token_bytes(32) for _ in range(3))

    def run(self) -> None:
        """Do them once."""
        key = PrivateKey(self._secret)
        key.public_key.format(compressed=False)
        for _ in (PRESIGN, SIGN):
            signature = key.sign_recoverable(self._digest, hasher=None)
        for signed, digest in [*self._signed, (signature, self._digest)]:
            PublicKey.from_signature_and_message(signed, digest, hasher=None).format(compressed=False)
        shift = PublicKey.from_valid_secret(self._shift)
        PublicKey.combine_keys([PublicKey(self._nonce_point), shift]).format(compressed=True)

    async def run_async(self) -> None:
        """Do them once, where something to await is wanted."""
        self.run()


def _combine(points: list[PublicKey]) -> None:
    with contextlib.suppress(ValueError):  # infinity, which is what shares that fit add up to
        PublicKey.combine_keys(points)


def _windows(t: int, n: int) -> list[list[bytes]]:
    """Give the weights of each t + 1 neighbours among 0 … n, as whole numbers mod q."""
    windows = []
    for start in range(n + 1 - t):
        indices = range(start, start + t + 1)
        products = [math.prod(i - j for j in indices if j != i) for i in indices]
        scale = math.lcm(*products)
        windows.append([(scale // product % ORDER).to_bytes(32, "big") for product in products])
    return windows


def _typical_s(operation: Callable[[], object]) -> float:
    """Give the median CPU time of one call, over batches of some milliseconds."""
    start = time.process_time()
    operation()
    calls = max(1, round(0.01 / max(time.process_time() - start, 1e-6)))
    times = []
    for _ in range(7):
        start = time.process_time()
        for _ in range(calls):
            operation()
        times.append((time.process_time() - start) / calls)
    return statistics.median(times)
