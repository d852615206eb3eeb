"""TLS settings and public-key pins, with certificates made on the spot."""

from __future__ import annotations

import hashlib
import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dan_async.transport.connecting import client_ssl, spki_pin
from tests.certificates import CertificateAuthority


@pytest.fixture(scope="module")
def authority():
    """A private CA."""
    return CertificateAuthority()


def test_pin_is_the_hash_of_the_public_key_info(authority):
    """The pin survives a renewal with the same key and changes with the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    old, new = authority.issue(key=key), authority.issue(key=key, days=5)
    assert old.der != new.der
    assert spki_pin(old.der) == spki_pin(new.der) == hashlib.sha256(info).digest()
    assert spki_pin(authority.issue().der) != spki_pin(old.der)


@pytest.mark.parametrize("data", [b"", b"not a certificate", b"\x30\x03\x02\x01\x01"])
def test_pin_of_garbage_is_refused(data):
    """Only certificates have pins."""
    with pytest.raises(ValueError):
        spki_pin(data)


def test_without_settings_the_default_checks_apply():
    """True stands for aiohttp's own verifying context."""
    assert client_ssl(None, ()) is True


def test_given_context_is_used_as_it_is():
    """Without pins nothing is put around it."""
    context = ssl.create_default_context()
    assert client_ssl(context, ()) is context


def test_pinned_context_leaves_the_given_one_alone_and_trusts_nobody_by_itself():
    """The caller's context may be in use elsewhere; the wrapper is strict even if it were used directly."""
    context = ssl.create_default_context()
    pinned = client_ssl(context, (bytes(32),))
    assert isinstance(pinned, ssl.SSLContext)
    assert context.sslobject_class is ssl.SSLObject
    assert pinned.verify_mode is ssl.CERT_REQUIRED
    assert pinned.check_hostname
    assert pinned.cert_store_stats()["x509"] == 0


def test_default_context_is_made_once():
    """Loading the system's certificates for each of twenty nodes would hold the loop."""
    first, second = (client_ssl(None, (bytes([i]) * 32,)) for i in (1, 2))
    assert first is not second
    assert first._inner is second._inner
    assert first._inner.verify_mode is ssl.CERT_REQUIRED
    assert first._inner.check_hostname
