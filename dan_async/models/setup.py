"""
What an operation is about, as it stands on the wire: the setup objects of WIRE revisions 0.1, 0.3 and 1.

Signatures cover the exact text of a setup, so these models keep every string as it was (a claim is a JSON text inside
``TaggedValue.value``), and the codecs in ``wire`` turn them into text exactly once.
"""

from __future__ import annotations

from attrs import field, frozen

from dan_async.models._fields import check_algorithm, check_int, check_text, optional, required
from dan_async.types import KeyAlgorithm

#: Metadata tags.
TAG_PERMISSIONS = 1
TAG_CLAIM = 2
TAG_KEY_ID = 3


@frozen
class TaggedValue:
    """One entry of a setup's metadata: permissions (tag 1), ephemeral claim (tag 2) or key id (tag 3)."""

    tag: int = field(validator=required(check_int, least=0, most=0xFFFF))
    value: str = field(validator=required(check_text, least=0, most=256 * 1024))


def find_tag(metadata: tuple[TaggedValue, ...], tag: int) -> str | None:
    """Give the value of the first entry with that tag."""
    return next((entry.value for entry in metadata if entry.tag == tag), None)


@frozen(kw_only=True)
class KeygenSetup:
    """
    Make a key: t of n, for this ephemeral key, under these permissions.

    ``sign_alg`` is the algorithm of the distributed key; it is on the wire in revision 1 only.
    """

    t: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    n: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    metadata: tuple[TaggedValue, ...]
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))
    sign_alg: KeyAlgorithm = field(default="secp256k1", validator=required(check_algorithm))

    @property
    def permissions(self) -> str | None:
        """The permissions text (tag 1), which the owner's wallet does not sign."""
        return find_tag(self.metadata, TAG_PERMISSIONS)

    @property
    def claim_text(self) -> str | None:
        """The ephemeral claim's exact text (tag 2); in revision 0.1 the bare public key."""
        return find_tag(self.metadata, TAG_CLAIM)


@frozen(kw_only=True)
class EphemeralKeySetup:
    """Add an ephemeral key to a key, or revoke it. Revision 0.3 also carries ``n`` and ``key_id`` in the setup."""

    metadata: tuple[TaggedValue, ...]
    n: int | None = field(default=None, validator=optional(check_int, least=1, most=2**32 - 1))
    key_id: str | None = field(default=None, validator=optional(check_text, most=256))

    @property
    def claim_text(self) -> str | None:
        """The ephemeral claim's exact text (tag 2)."""
        return find_tag(self.metadata, TAG_CLAIM)

    @property
    def tagged_key_id(self) -> str | None:
        """The key's id (tag 3)."""
        return find_tag(self.metadata, TAG_KEY_ID)


@frozen(kw_only=True)
class SigngenSetup:
    """Sign a message with a key. ``message`` is standard Base64 of the UTF-8 message, encoded exactly once."""

    t: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    key_id: str = field(validator=required(check_text, most=256))
    message: str = field(validator=required(check_text, least=0, most=1024 * 1024))
    sign_alg: KeyAlgorithm = field(default="secp256k1", validator=required(check_algorithm))
