"""Session keys as the caller holds them: the payload of a new one, and the part of it that signing needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any, Self

from attrs import NOTHING, converters, field, fields, frozen

from dan_async._json import load
from dan_async._values import (
    MAX_SAFE_INT,
    camel_case,
    check_algorithm,
    check_int,
    check_mapping,
    check_private_key_hex,
    check_text,
    mask_secret,
    optional,
    required,
    shown_name,
)
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.types import Address, Hex, KeyAlgorithm, MpcKeyId

__all__ = ["DanModuleInfo", "DanSessionKeyPayload"]

#: Our field names and those of the TypeScript clients, in their order.
TYPESCRIPT_NAMES = {
    "session_key_eoa": "sessionKeyEOA",
    "mpc_key_id": "mpcKeyId",
    "hex_eph_sk_without_0x": "hexEphSKWithout0x",
    **{name: camel_case(name) for name in ("parties_number", "threshold", "eoa_address", "chain_id")},
}

_EXTENDED_NAMES = {name: camel_case(name) for name in ("public_key", "eph_id", "eph_alg", "expires_at")}

#: Other names under which the TypeScript clients store the same fields.
_ALIASES = {
    "jwt": "hex_eph_sk_without_0x",
    "ephSK": "hex_eph_sk_without_0x",
    "keyId": "mpc_key_id",
    "sessionPublicKey": "session_key_eoa",
}

_NAMES = {wire: ours for ours, wire in (TYPESCRIPT_NAMES | _EXTENDED_NAMES).items()} | _ALIASES


@frozen(kw_only=True)
class DanModuleInfo:
    """
    The part of a session that signing needs; every ``DanSessionKeyPayload`` is one.

    Args:
        session_key_eoa: The address of the distributed key.
        mpc_key_id: The key's id on the network.
        hex_eph_sk_without_0x: The ephemeral private key: 64 hex digits, no 0x. Secret; masked in repr.
        parties_number: n, if known.
        threshold: t, if known.
        eoa_address: The owner, if known.
        chain_id: The chain the session is meant for, if known.
        public_key: The distributed public key as SEC1 hex, if known.
        eph_id: The name of the ephemeral key on the nodes; None for the one derived from its public key.
        eph_alg: The ephemeral key's algorithm; None for the network's usual one.
        expires_at: When the ephemeral key ends, in Unix seconds, if known.
    """

    session_key_eoa: Address = field(converter=Address, validator=required(parse_address))
    mpc_key_id: MpcKeyId = field(converter=MpcKeyId, validator=required(check_text, most=256))
    hex_eph_sk_without_0x: str = field(repr=mask_secret, validator=required(check_private_key_hex))
    parties_number: int | None = field(default=None)
    threshold: int | None = field(default=None)
    eoa_address: Address | None = field(
        default=None, converter=converters.optional(Address), validator=optional(parse_address)
    )
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=MAX_SAFE_INT))
    public_key: Hex | None = field(default=None, validator=optional(check_text, most=132))
    eph_id: str | None = field(default=None, validator=optional(check_text, most=256))
    eph_alg: KeyAlgorithm | None = field(default=None, validator=optional(check_algorithm))
    expires_at: int | None = field(default=None, validator=optional(check_int, least=0, most=MAX_SAFE_INT))

    def __attrs_post_init__(self) -> None:
        if self.threshold is not None and self.parties_number is not None:
            Threshold(self.threshold, self.parties_number)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Read the camelCase form of the TypeScript clients, with or without the extended fields.

        Args:
            data: A mapping, as ``json.loads`` returns it.

        Raises:
            InvalidFieldError: A field is missing, unknown or wrong; the error has the name it has in *data*.
        """
        check_mapping("session", data, "a JSON object")
        values: dict[str, Any] = {}
        for wire, value in data.items():
            ours = _NAMES.get(wire) if isinstance(wire, str) else None
            if ours is None:
                raise InvalidFieldError(
                    shown_name(wire, otherwise="a field"),
                    "is not a field of a session",
                    hint=f"Fields: {', '.join(TYPESCRIPT_NAMES.values())}",
                )
            if ours in values:
                raise InvalidFieldError(wire, f"is given twice, also as {TYPESCRIPT_NAMES.get(ours, ours)}")
            values[ours] = value.removeprefix("0x") if wire == "ephSK" and isinstance(value, str) else value
        for attribute in fields(cls):
            if attribute.default is NOTHING and values.get(attribute.name) is None:
                raise InvalidFieldError(TYPESCRIPT_NAMES[attribute.name], "is missing")
        try:
            return cls(**values)
        except InvalidFieldError as error:
            wire = next((w for w in data if _NAMES.get(w) == error.field), error.field)
            raise InvalidFieldError(wire, error.problem, hint=error.hint) from None

    def _repr_html_(self) -> str:
        """Return the session as a table, as notebooks show it; the secret is masked."""
        shown = self.to_dict(extended=True) | {TYPESCRIPT_NAMES["hex_eph_sk_without_0x"]: "***"}
        rows = (f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in shown.items())
        return f"<table>{''.join(rows)}</table>"

    def to_json(self, *, extended: bool = True) -> str:
        """
        Return ``to_dict`` as JSON text, secret included.

        Args:
            extended: Also include publicKey, ephId, ephAlg and expiresAt, as ``keep_alive`` and expiry checks need them.
        """
        return json.dumps(self.to_dict(extended=extended))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """
        Read the text of ``to_json``, or of the TypeScript clients.

        Args:
            text: The JSON text.

        Raises:
            InvalidFieldError: It is not JSON, or a field is missing, unknown or wrong. Nothing of it is repeated.
        """
        try:
            found = load(text)
        except (ProtocolError, AttributeError):
            raise InvalidFieldError("session", "is not JSON text") from None
        return cls.from_dict(found)

    def to_dict(self, *, extended: bool = False) -> dict[str, Any]:
        """
        Return the camelCase form of the TypeScript clients, secret included, for ``json.dumps``.

        Args:
            extended: Also include publicKey, ephId, ephAlg and expiresAt. Fields that are not known are left out.
        """
        names = TYPESCRIPT_NAMES | (_EXTENDED_NAMES if extended else {})
        values = ((wire, getattr(self, ours)) for ours, wire in names.items())
        return {wire: value for wire, value in values if value is not None}


@frozen(kw_only=True)
class DanSessionKeyPayload(DanModuleInfo):
    """
    A new session key, from ``generate_session_key``: the TypeScript clients' seven fields and four more.

    Args:
        hex_eph_sk_without_0x: The ephemeral private key: 64 hex digits, no 0x. Secret; masked in repr. A ``str``
            cannot be wiped from memory: drop the payload when it is no longer needed.
        parties_number: n, how many nodes hold a share.
        threshold: t, how many of them must sign.
        eoa_address: The owner that authorised the session, EIP-55.
        chain_id: The chain the session is meant for.

    The other fields are those of ``DanModuleInfo``, all of them known.
    """

    parties_number: int = field()
    threshold: int = field()
    eoa_address: Address = field(converter=Address, validator=required(parse_address))
    chain_id: int = field(validator=required(check_int, least=1, most=MAX_SAFE_INT))


def session_of(session: object) -> DanModuleInfo:
    """Return a session that is given in any of its forms."""
    if isinstance(session, DanModuleInfo):
        return session
    return DanModuleInfo.from_dict(check_mapping("session", session, "a session payload or its dict"))
