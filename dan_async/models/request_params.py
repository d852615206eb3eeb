"""The seed's request: what the module-level generate_session_key takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from attrs import field, frozen

from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import MAX_LIFETIME_S, check_int, check_private_key_hex, optional, required
from dan_async.types import Address

if TYPE_CHECKING:
    from dan_async.wallets.base import Wallet

#: Duration of a session in seconds when the caller does not say.
DEFAULT_DURATION_S = 3600

_MAX_CHAIN_ID = 2**53 - 1


@runtime_checkable
class SmartAccount(Protocol):
    """
    The parts of a smart account client that ``generate_session_key`` looks at.

    Attributes:
        signer: The owner's wallet.
        bundler_url: Where its user operations go; the chain id may be read from it.
        chain_id: Its chain, or None.
    """

    @property
    def signer(self) -> Wallet | None:
        """Give the owner's wallet."""
        ...

    @property
    def bundler_url(self) -> str | None:
        """Give the bundler's URL."""
        ...

    @property
    def chain_id(self) -> int | None:
        """Give the chain id, if the account knows it."""
        ...

    async def get_address(self) -> str:
        """Give the smart account's address."""
        ...


@frozen(kw_only=True)
class HardcodedValues:
    """
    The seed's *hardcodedValues*: values to use instead of made or inferred ones.

    Raises:
        InvalidFieldError: A value is wrong; it is not repeated.
    """

    eoa_address: Address | None = field(default=None, validator=optional(parse_address))
    hex_eph_sk_without_0x: str | None = field(
        default=None, repr=lambda _: "'***'", validator=optional(check_private_key_hex)
    )
    threshold: int | None = field(default=None, validator=optional(check_int, least=2, most=20))
    parties_number: int | None = field(default=None, validator=optional(check_int, least=2, most=20))
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=_MAX_CHAIN_ID))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """
        Read a mapping with our names or the seed's camelCase ones.

        Raises:
            InvalidFieldError: A name is not one of the five, or a value is wrong.
        """
        if not isinstance(values, Mapping):
            raise InvalidFieldError("hardcoded_values", f"must be a mapping, not {type(values).__name__}")
        found: dict[str, Any] = {}
        for name, value in values.items():
            ours = _HARDCODED_NAMES.get(name) if isinstance(name, str) else None
            if ours is None:
                shown = name if isinstance(name, str) and name.isidentifier() and len(name) <= 40 else "a key"
                raise InvalidFieldError(
                    f"hardcoded_values: {shown}",
                    "cannot be set",
                    hint=f"What can: {', '.join(dict.fromkeys(_HARDCODED_NAMES.values()))}",
                )
            found[ours] = value
        return cls(**found)


_HARDCODED_NAMES = {
    "eoa_address": "eoa_address",
    "hex_eph_sk_without_0x": "hex_eph_sk_without_0x",
    "threshold": "threshold",
    "parties_number": "parties_number",
    "chain_id": "chain_id",
    "eoaAddress": "eoa_address",
    "hexEphSKWithout0x": "hex_eph_sk_without_0x",
    "partiesNumber": "parties_number",
    "chainId": "chain_id",
}


def _to_hardcoded(values: Mapping[str, Any] | HardcodedValues | None) -> HardcodedValues:
    if values is None:
        return HardcodedValues()
    return values if isinstance(values, HardcodedValues) else HardcodedValues.from_mapping(values)


@frozen(kw_only=True)
class DanSessionKeyRequestParams:
    """
    The seed's ``DanSessionKeyRequestParams``.

    Args:
        smart_account_client: The account whose owner authorises the session; its ``signer`` is asked to sign.
        browser_wallet: A wallet to ask instead of the account's signer.
        hardcoded_values: Any of eoa_address, hex_eph_sk_without_0x, threshold, parties_number, chain_id.
        duration: How long the session lives: whole seconds, 1 to 31 536 000 (365 days).
        chain_id: The chain; inferred from the account or its bundler URL if None.

    Raises:
        InvalidFieldError: A field is wrong.
    """

    smart_account_client: SmartAccount
    browser_wallet: Wallet | None = None
    hardcoded_values: HardcodedValues = field(default=None, converter=_to_hardcoded)
    duration: int = field(
        default=DEFAULT_DURATION_S,
        validator=required(check_int, least=1, most=MAX_LIFETIME_S, unit=" of seconds"),
    )
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=_MAX_CHAIN_ID))
