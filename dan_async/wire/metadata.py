"""The metadata list of every setup: tagged values, alike in all revisions."""

from __future__ import annotations

from dan_async.errors import InvalidFieldError
from dan_async.models.setup import TAG_CLAIM, TAG_KEY_ID, TAG_PERMISSIONS, TaggedValue
from dan_async.types import Json
from dan_async.wire.json_text import quote
from dan_async.wire.members import members

__all__ = [
    "decode_metadata",
    "encode_metadata",
    "ephemeral_key_metadata",
    "keygen_metadata",
    "metadata_text",
    "signed_metadata",
]


def keygen_metadata(claim_text: str, permissions: str | None) -> tuple[TaggedValue, ...]:
    """Permissions, if there are any, then the claim."""
    claim = TaggedValue(TAG_CLAIM, claim_text)
    return (claim,) if permissions is None else (TaggedValue(TAG_PERMISSIONS, permissions), claim)


def ephemeral_key_metadata(claim_text: str, key_id: str) -> tuple[TaggedValue, ...]:
    """Key id, then the claim: this operation's order."""
    return (TaggedValue(TAG_KEY_ID, key_id), TaggedValue(TAG_CLAIM, claim_text))


def encode_metadata(metadata: tuple[TaggedValue, ...]) -> Json:
    """Give the list as JSON values."""
    return [{"tag": entry.tag, "value": entry.value} for entry in metadata]


def metadata_text(metadata: tuple[TaggedValue, ...]) -> str:
    """Write the list."""
    entries = [f'{{"tag":{entry.tag},"value":{quote(entry.value)}}}' for entry in metadata]
    return f"[{','.join(entries)}]"


def signed_metadata(metadata: tuple[TaggedValue, ...]) -> Json:
    """Give the entries that the wallet signs: all but the permissions (tag 1)."""
    return [{"tag": entry.tag, "value": entry.value} for entry in metadata if entry.tag != TAG_PERMISSIONS]


def decode_metadata(
    value: Json, *, required: tuple[int, ...], optional: tuple[int, ...] = ()
) -> tuple[TaggedValue, ...]:
    """
    Read a metadata list; values and their order are kept exactly, since the owner's signature covers them.

    Args:
        value: The decoded JSON value.
        required: Tags that must be there, once each.
        optional: Tags that may be there, once each.

    Raises:
        InvalidFieldError: It is not such a list. A repeated tag is refused, so that no two readers can take
            different entries for the one that counts.
    """
    if not isinstance(value, list) or len(value) > len(required) + len(optional):
        raise InvalidFieldError("metadata", "must be a list with one entry per tag")
    entries = tuple(
        TaggedValue(entry["tag"], entry["value"])
        for entry in (members(entry, "metadata", ("tag", "value")) for entry in value)
    )
    tags = [entry.tag for entry in entries]
    if len(set(tags)) != len(tags):
        raise InvalidFieldError("metadata", "has a repeated tag")
    for tag in required:
        if tag not in tags:
            raise InvalidFieldError("metadata", f"has no entry with tag {tag}")
    if not set(tags) <= {*required, *optional}:
        raise InvalidFieldError("metadata", "has a tag that this operation does not take")
    return entries


def claim_is_bare_key(value: Json) -> bool:
    """Tell whether the claim in a metadata list is a bare public key, as in revision 0.1. The list is not checked."""
    entries = value if isinstance(value, list) else []
    return any(
        isinstance(entry, dict)
        and entry.get("tag") == TAG_CLAIM
        and isinstance(entry.get("value"), str)
        and entry["value"].startswith("0x")
        for entry in entries
    )
