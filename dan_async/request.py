"""
What a request of a batch may be, and its parameters.

From what a caller passes to what a network is asked: every value checked, nothing sent.

The seed's request: what the module-level generate_session_key takes.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from attrs import field, frozen

from dan_async._values import (
    MAX_LIFETIME_S,
    check_algorithm,
    check_int,
    check_private_key_hex,
    check_seconds,
    check_text,
    optional,
    required,
)
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.address import parse_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import ConfigurationError, DanError, InvalidFieldError, WalletError, WalletTimeoutError
from dan_async.network import KeygenRequest
from dan_async.permissions.rules import permissions_text
from dan_async.protocols.setups import AuthMethod, EphemeralClaim
from dan_async.types import Address, Clock, KeyAlgorithm, TypedData, new_request_id
from dan_async.wallets.base import EoaAuth, Wallet

if TYPE_CHECKING:
    from dan_async.network import AuthModule, Network

__all__ = [
    "LimitedAuth",
    "SessionRequest",
    "check_names",
    "choose_auth",
    "choose_ephemeral_key",
    "choose_wallet",
    "find_address",
    "infer_chain_id",
    "prepare",
    "read_request",
]

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


class LimitedAuth:
    """
    Gives an authorisation the client's limit for a wallet.

    Args:
        auth: The owner.
        timeout_s: Seconds it may take.
    """

    def __init__(self, auth: AuthModule, timeout_s: float) -> None:
        self._auth = auth
        self._timeout_s = timeout_s

    @property
    def method(self) -> AuthMethod:
        """The scheme's name on the wire."""
        return self._auth.method

    @property
    def id(self) -> str:
        """Who authorises."""
        return self._auth.id

    @property
    def interactive(self) -> bool:
        """Whether a person is asked."""
        return self._auth.interactive

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        """
        Have the owner sign.

        Raises:
            WalletTimeoutError: There was no answer in time.
            WalletError: What the owner's own scheme raises.
        """
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await self._auth.authorise(challenge=challenge, typed_data=typed_data)
        except TimeoutError as error:
            if isinstance(error, DanError) or not limit.expired():
                raise
            raise WalletTimeoutError(
                f"the owner did not authorise within {self._timeout_s:g} s",
                hint="Look for an open prompt, or allow more time with Timeouts(wallet_s=…)",
                phase="wallet",
            ) from error


async def find_address(
    auth: AuthModule, *, fixed: HardcodedValues, account: SmartAccount | None, timeout_s: float
) -> Address:
    """
    Find out the address under which a session is filed whose owner is not a wallet of the call's.

    A wallet is its own address. A passkey has none: it is the given one, else the smart account's.

    Raises:
        InvalidFieldError: There is none, or *auth* is not an owner.
        WalletError: The account could not tell; its own exception is the cause.
    """
    if auth.method == "eoa":
        return parse_address("auth.id", auth.id)
    if auth.method != "passkey":
        raise InvalidFieldError("auth", "must be an owner: a wallet or a passkey")
    if fixed.eoa_address is not None:
        return parse_address("hardcoded_values: eoa_address", fixed.eoa_address)
    if account is None:
        raise InvalidFieldError(
            "eoa_address",
            "is needed with a passkey, which has no address",
            hint="Give it in hardcoded_values, or a smart_account_client that has one",
        )
    try:
        async with asyncio.timeout(timeout_s):
            found = await account.get_address()
    except DanError:
        raise
    except Exception as error:
        raise WalletError(
            f"smart_account_client.get_address() failed with {type(error).__name__}",
            hint="Its own exception is the cause of this one",
            phase="wallet",
        ) from error
    return parse_address("smart_account_client: address", found)


def read_request(make: Callable[..., object], request: object) -> Mapping[str, Any]:
    """
    Give the parameters of one request.

    Args:
        make: What they are parameters of.
        request: A mapping, or a ``DanSessionKeyRequestParams``.

    Raises:
        InvalidFieldError: It is neither, or a name is unknown.
    """
    if isinstance(request, DanSessionKeyRequestParams):
        return {
            "smart_account_client": request.smart_account_client,
            "browser_wallet": request.browser_wallet,
            "hardcoded_values": request.hardcoded_values,
            "duration": request.duration,
            "chain_id": request.chain_id,
        }
    if not isinstance(request, Mapping):
        raise InvalidFieldError("request", f"must be a mapping, not {type(request).__name__}")
    check_names(make, request)
    return request


def check_names(make: Callable[..., object], parameters: Mapping[Any, object]) -> None:
    """
    Check that all names are parameters.

    Raises:
        InvalidFieldError: One is not.
    """
    known = inspect.signature(make).parameters
    for name in parameters:
        if name not in known:
            shown = name if isinstance(name, str) and name.isidentifier() and len(name) <= 40 else "a name"
            raise InvalidFieldError(shown, "is not a parameter of generate_session_key")


#: Bundler URLs that name their chain: …/api/v2/80002/key, …/api/v3/80002/key.
_BUNDLER_CHAIN = re.compile(r"/api/v[23]/([0-9]{1,16})(?:/|\Z)")

_NOTHING_FIXED = HardcodedValues()


@frozen(kw_only=True)
class SessionRequest:
    """A session key request, ready to run."""

    keygen: KeygenRequest
    auth: AuthModule
    ephemeral_key: EphemeralKey
    owner: Address
    chain_id: int
    timeout_s: float


async def prepare(
    network: Network,
    *,
    timeouts: Timeouts,
    clock: Clock,
    wallet: Wallet | None,
    auth: AuthModule | None,
    smart_account_client: SmartAccount | None,
    browser_wallet: Wallet | None,
    hardcoded_values: Mapping[str, Any] | HardcodedValues | None,
    duration: int,
    chain_id: int | None,
    threshold: int | None,
    parties_number: int | None,
    min_parties: int | None,
    permissions: str | Mapping[str, Any] | Sequence[Any] | None,
    key_label: str | None,
    eph_alg: KeyAlgorithm | None,
    ephemeral_key: EphemeralKey | str | None,
    eph_id: str | None,
    timeout: float | None,
    allow_resign: bool,
) -> SessionRequest:
    """
    Check and complete the parameters of ``generate_session_key``; see there for what they mean.

    Raises:
        ConfigurationError: One of them is wrong or missing; the error names it.
    """
    fixed = _NOTHING_FIXED
    if isinstance(hardcoded_values, HardcodedValues):
        fixed = hardcoded_values
    elif hardcoded_values is not None:
        fixed = HardcodedValues.from_mapping(hardcoded_values)
    check_int("duration", duration, least=1, most=MAX_LIFETIME_S, unit=" of seconds")
    timeout_s = timeouts.total_s if timeout is None else check_seconds("timeout", timeout)
    account = _check_account(smart_account_client)
    auth = choose_auth(
        auth, wallet=wallet, browser_wallet=browser_wallet, account=account, limit_s=timeouts.wallet_s
    )
    owner = await find_address(auth, fixed=fixed, account=account, timeout_s=timeout_s)
    if fixed.eoa_address is not None and parse_address("eoa_address", fixed.eoa_address) != owner:
        raise InvalidFieldError(
            "hardcoded_values: eoa_address",
            f"is not the wallet's address, {owner}",
            hint="The owner is the one who signs: leave it out, or give that owner's wallet",
        )
    chain = infer_chain_id(_agreed("chain_id", chain_id, fixed.chain_id), account)
    parties = _choose_threshold(
        network,
        _agreed("threshold", threshold, fixed.threshold),
        _agreed("parties_number", parties_number, fixed.parties_number),
    )
    if min_parties is not None:
        check_int("min_parties", min_parties, least=parties.t, most=parties.n)
    text = permissions_text(permissions)
    if key_label is not None:
        check_text("key_label", key_label, most=256)
    if eph_id is not None:
        check_text("eph_id", eph_id, most=256)
    key = choose_ephemeral_key(
        _agreed("ephemeral_key", ephemeral_key, fixed.hex_eph_sk_without_0x),
        eph_alg,
        network.default_eph_alg,
    )
    request = KeygenRequest(
        request_id=new_request_id(),
        owner_id=auth.id,
        threshold=parties,
        claim=EphemeralClaim(
            eph_id=eph_id or key.default_id,
            eph_pk=key.public_key,
            expiry=math.floor(clock()) + duration,
            sign_alg=key.algorithm,
        ),
        permissions=text,
        key_label=key_label,
        min_parties=min_parties,
        allow_resign=allow_resign,
    )
    network.check_keygen(request)
    return SessionRequest(
        keygen=request,
        auth=auth,
        ephemeral_key=key,
        owner=owner,
        chain_id=chain,
        timeout_s=timeout_s,
    )


def _agreed(name: str, given: Any, hardcoded: Any) -> Any:
    """Take the value that was given one way or the other; both ways only if they agree."""
    if given is None:
        return hardcoded
    if hardcoded is not None and given != hardcoded:
        raise InvalidFieldError(
            name, "is given twice, and hardcoded_values says something else", hint="Give it once"
        )
    return given


def _check_account(account: SmartAccount | None) -> SmartAccount | None:
    if account is None:
        return None
    if not callable(getattr(account, "get_address", None)) or not hasattr(account, "signer"):
        raise InvalidFieldError(
            "smart_account_client",
            "is not a smart account client",
            hint="It needs signer, bundler_url, chain_id and an async get_address()",
        )
    return account


def choose_auth(
    auth: AuthModule | None,
    *,
    wallet: Wallet | None,
    browser_wallet: Wallet | None = None,
    account: SmartAccount | None = None,
    limit_s: float,
) -> AuthModule:
    """
    Find out who authorises: *auth* if given, else whose wallet ``choose_wallet`` finds.

    Args:
        auth: The owner, instead of a wallet.
        wallet: The owner's wallet.
        browser_wallet: As for ``choose_wallet``.
        account: As for ``choose_wallet``.
        limit_s: Seconds that the owner may take.

    Raises:
        ConfigurationError: There is nobody, there are two, or *auth* is not an owner.
    """
    if auth is None:
        found = choose_wallet(wallet=wallet, browser_wallet=browser_wallet, account=account)
        return EoaAuth(found, timeout_s=limit_s)
    if wallet is not None or browser_wallet is not None:
        raise InvalidFieldError("wallet", "is given as well as auth", hint="Give one of them")
    if getattr(auth, "method", None) not in ("eoa", "passkey"):
        raise InvalidFieldError("auth", "must be an owner: a wallet or a passkey")
    return LimitedAuth(auth, limit_s)


def choose_wallet(
    *, wallet: Wallet | None, browser_wallet: Wallet | None, account: SmartAccount | None
) -> Wallet:
    """
    Find out who signs: *wallet* or *browser_wallet* if given, else the account's signer.

    Raises:
        ConfigurationError: There is none, there are two, or it is not a wallet.
    """
    if wallet is not None and browser_wallet is not None and wallet is not browser_wallet:
        raise InvalidFieldError("browser_wallet", "is given as well as wallet", hint="Give one of them")
    for name, candidate in (
        ("wallet", wallet),
        ("browser_wallet", browser_wallet),
        ("smart_account_client.signer", account.signer if account is not None else None),
    ):
        if candidate is None:
            continue
        if not callable(getattr(candidate, "sign_typed_data", None)):
            raise InvalidFieldError(
                name, "is not a wallet", hint="It needs address, interactive and an async sign_typed_data()"
            )
        parse_address(f"{name}.address", getattr(candidate, "address", None))
        return candidate
    raise ConfigurationError(
        "no wallet was given, so nobody can authorise the session",
        hint="Give wallet, browser_wallet, or a smart_account_client that has a signer",
    )


def infer_chain_id(chain_id: int | None, account: SmartAccount | None) -> int:
    """
    Find out the chain: the given one, else the account's, else the one its bundler URL names.

    Raises:
        ConfigurationError: It cannot be told.
    """
    if chain_id is None and account is not None:
        chain_id = getattr(account, "chain_id", None)
    if chain_id is not None:
        return check_int("chain_id", chain_id, least=1, most=_MAX_CHAIN_ID)
    url = getattr(account, "bundler_url", None)
    found = _BUNDLER_CHAIN.search(url) if isinstance(url, str) else None
    if found:
        return check_int("chain_id", int(found[1]), least=1, most=_MAX_CHAIN_ID)
    raise InvalidFieldError(
        "chain_id",
        "was not given and cannot be inferred",
        hint="Give chain_id, or a smart_account_client with a chain_id or a bundler_url of the form …/api/v2/<chain id>/…",
    )


def _choose_threshold(network: Network, t: int | None, n: int | None) -> Threshold:
    usual = network.default_threshold
    if t is None and n is None:
        return usual
    return Threshold(usual.t if t is None else t, usual.n if n is None else n)


def choose_ephemeral_key(
    given: EphemeralKey | str | None, algorithm: KeyAlgorithm | None, usual: KeyAlgorithm
) -> EphemeralKey:
    """
    Take the given ephemeral key, or make one.

    Raises:
        InvalidFieldError: The key or the algorithm is wrong, or they do not go together.
    """
    if algorithm is not None:
        check_algorithm("eph_alg", algorithm)
    if given is None:
        return EphemeralKey.generate(algorithm or usual)
    if isinstance(given, str):
        return EphemeralKey.from_hex(given, algorithm or usual)
    if not isinstance(given, EphemeralKey):
        raise InvalidFieldError(
            "ephemeral_key", f"must be an EphemeralKey or hex text, not {type(given).__name__}"
        )
    if algorithm is not None and given.algorithm != algorithm:
        raise InvalidFieldError("eph_alg", f"is {algorithm}, and ephemeral_key is a {given.algorithm} key")
    return given
