"""
TLS settings for a connection, and public-key pins on top of them.

A pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (as in RFC 7469 section 2.4), so that it survives a renewal
of the certificate with the same key. The server's own certificate must match one of the pins; its chain, host name and
dates are checked as without pins. The check is part of the TLS handshake: a peer with another key sees no byte of any
request, through a proxy or not.
"""

from __future__ import annotations

import hashlib
import ssl
from functools import lru_cache
from typing import Any

__all__ = ["PinMismatchError", "client_ssl", "spki_pin"]


class PinMismatchError(ssl.SSLCertVerificationError):
    """The server's public key is none of the pinned ones."""


def spki_pin(certificate: bytes) -> bytes:
    """
    Give the pin of a certificate.

    Args:
        certificate: The certificate, DER-encoded.

    Returns:
        SHA-256 of its SubjectPublicKeyInfo.

    Raises:
        ValueError: It is not a certificate, or its key is of an unknown kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    try:
        key = load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError("the certificate's key is of an unknown kind") from error
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class _PinnedObject:
    """An ``ssl.SSLObject`` whose handshake ends only when the peer's key is a pinned one."""

    def __init__(self, inner: ssl.SSLObject, pins: frozenset[bytes]) -> None:
        self._inner = inner
        self._pins = pins
        # Called for every piece of data: bound once instead of looked up through __getattr__.
        self.read = inner.read
        self.write = inner.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def do_handshake(self) -> None:
        self._inner.do_handshake()
        certificate = self._inner.getpeercert(binary_form=True)
        try:
            matches = certificate is not None and spki_pin(certificate) in self._pins
        except ValueError:
            matches = False
        if not matches:
            raise PinMismatchError("the server's public key is none of the pinned ones")


class _PinnedContext(ssl.SSLContext):
    """
    Makes the connections of another context, with pins.

    The other context is the caller's and may be in use elsewhere, so it is not changed. Used without ``wrap_bio``, this one
    has no trusted certificates and refuses every server.
    """

    _inner: ssl.SSLContext
    _pins: frozenset[bytes]

    @classmethod
    def around(cls, inner: ssl.SSLContext, pins: frozenset[bytes]) -> _PinnedContext:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context._inner = inner
        context._pins = pins
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
        return _PinnedObject(self._inner.wrap_bio(*args, **kwargs), self._pins)


@lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    # Loading the system's certificates takes milliseconds; one context serves every transport and is never changed.
    return ssl.create_default_context()


def client_ssl(context: ssl.SSLContext | None, pins: tuple[bytes, ...]) -> ssl.SSLContext | bool:
    """
    Give what aiohttp takes as *ssl*.

    Args:
        context: The caller's TLS settings, if any.
        pins: Acceptable keys, as SHA-256 of their SubjectPublicKeyInfo; none for any.

    Returns:
        A context; or True, aiohttp's own default with every check on.
    """
    if not pins:
        return True if context is None else context
    return _PinnedContext.around(context or _default_context(), frozenset(pins))
