"""A request for a session key: the parameters once, and their check before anything is sent."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, Self, TypeAlias, TypedDict, runtime_checkable

from attrs import converters, define, field, fields, frozen

from dan_async._values import (
    MAX_SAFE_INT,
    chain_in_url,
    check_algorithm,
    check_bool,
    check_instance,
    check_int,
    check_mapping,
    check_not_milliseconds,
    check_private_key_hex,
    check_reference,
    check_seconds,
    check_text,
    duration_s,
    in_seconds,
    mask_secret,
    optional,
    shown_name,
)
from dan_async.config import MAX_PARTIES, Timeouts
from dan_async.crypto.address import parse_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import ConfigurationError, DanError, InvalidFieldError, WalletError, WalletTimeoutError
from dan_async.network import AuthModule, KeygenReport, KeygenRequest, Network, network_time
from dan_async.protocols.fields import new_request_id
from dan_async.protocols.setups import AuthMethod, EphemeralClaim
from dan_async.session import TYPESCRIPT_NAMES
from dan_async.types import Address, Clock, KeyAlgorithm, TimeSpan, TypedData
from dan_async.wallets.base import EoaAuth, Wallet

__all__ = [
    "DanSessionKeyRequestParams",
    "HardcodedValues",
    "OnReport",
    "SessionKeyParameters",
    "SessionKeyRequest",
    "SmartAccount",
]

#: Takes the report of a key generation.
OnReport: TypeAlias = Callable[[KeygenReport], None]

#: Life of an ephemeral key, in seconds, when the caller names none.
DEFAULT_DURATION_S = 3600


@runtime_checkable
class SmartAccount(Protocol):
    """The parts of a smart account client that ``generate_session_key`` looks at."""

    @property
    def signer(self) -> Wallet | None:
        """The owner's wallet."""

    @property
    def bundler_url(self) -> str | None:
        """The bundler's URL: where its user operations go. The chain id may be read from it."""

    @property
    def chain_id(self) -> int | None:
        """The chain id, if the account knows it."""

    async def get_address(self) -> str:
        """Return the smart account's address."""


@frozen(kw_only=True)
class HardcodedValues:
    """
    TypeScript's *hardcodedValues*: values to use instead of made or inferred ones.

    Args:
        eoa_address: The owner's address.
        hex_eph_sk_without_0x: The ephemeral private key, 64 hex digits.
        threshold: t, 2 to n.
        parties_number: n, up to 20.
        chain_id: The chain.

    Raises:
        InvalidFieldError: A value is wrong; it is not repeated.
    """

    eoa_address: Address | None = field(
        default=None, converter=converters.optional(Address), validator=optional(parse_address)
    )
    hex_eph_sk_without_0x: str | None = field(
        default=None, repr=mask_secret, validator=optional(check_private_key_hex)
    )
    threshold: int | None = field(default=None, validator=optional(check_int, least=2, most=MAX_PARTIES))
    parties_number: int | None = field(default=None, validator=optional(check_int, least=2, most=MAX_PARTIES))
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=MAX_SAFE_INT))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """
        Read a mapping with our names or the camelCase ones of TypeScript.

        Args:
            values: Any of the five.

        Raises:
            InvalidFieldError: A name is not one of the five, or a value is wrong.
        """
        found: dict[str, Any] = {}
        for name, value in check_mapping("hardcoded_values", values).items():
            ours = _HARDCODED_NAMES.get(name) if isinstance(name, str) else None
            if ours is None:
                raise InvalidFieldError(
                    f"hardcoded_values: {shown_name(name, otherwise='a key')}",
                    "cannot be set",
                    hint=f"What can: {', '.join(dict.fromkeys(_HARDCODED_NAMES.values()))}",
                )
            found[ours] = value
        return cls(**found)


#: Ours, and those of TypeScript -> ours.
_HARDCODED_NAMES = {
    name: ours
    for ours in (attribute.name for attribute in fields(HardcodedValues))
    for name in (ours, TYPESCRIPT_NAMES[ours])
}
_NOTHING_HARDCODED = HardcodedValues()


def _to_hardcoded(values: Mapping[str, Any] | HardcodedValues | None) -> HardcodedValues:
    if values is None:
        return _NOTHING_HARDCODED
    return values if isinstance(values, HardcodedValues) else HardcodedValues.from_mapping(values)


@frozen(kw_only=True)
class DanSessionKeyRequestParams:
    """
    The parameters of the TypeScript ``generateSessionKey``, as one value.

    Args:
        smart_account_client: The account whose owner authorises the session; its ``signer`` is asked to sign.
        browser_wallet: A wallet to ask instead of the account's signer.
        hardcoded_values: Any of eoa_address, hex_eph_sk_without_0x, threshold, parties_number, chain_id.
        duration: How long the session lives: whole seconds, 1 to 31 536 000 (365 days), also as a ``timedelta``.
        chain_id: The chain; inferred from the account or its bundler URL if None.

    Raises:
        InvalidFieldError: A field is wrong.
    """

    smart_account_client: SmartAccount
    browser_wallet: Wallet | None = None
    hardcoded_values: HardcodedValues = field(default=None, converter=_to_hardcoded)
    duration: int = field(default=DEFAULT_DURATION_S, converter=duration_s)
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=MAX_SAFE_INT))


@frozen(kw_only=True)
class SessionKeyRequest:
    """
    A session key to be made: the parameters of ``DanClient.generate_session_key``, with the same names and meanings.

    ``DanClient.generate_session_keys`` takes them. *allow_resign*, *on_report*, *hardcoded_values*, *duration*, *timeout*
    and *smart_account_client* are checked at once; the others when the key is asked for, before anything is sent, as they
    have to agree with each other, the wallet and the network.

    Raises:
        InvalidFieldError: One of those six is wrong.
    """

    wallet: Wallet | None = field(default=None, repr=False)
    auth: AuthModule | None = field(default=None, repr=False)
    smart_account_client: SmartAccount | None = field(default=None, repr=False)
    browser_wallet: Wallet | None = field(default=None, repr=False)
    hardcoded_values: Mapping[str, Any] | HardcodedValues | None = field(default=None, repr=False)
    duration: int | timedelta = DEFAULT_DURATION_S
    chain_id: int | None = None
    threshold: int | None = None
    parties_number: int | None = None
    min_parties: int | None = None
    min_holders: int | None = None
    permissions: str | Mapping[str, Any] | Sequence[Any] | None = field(default=None, repr=False)
    key_label: str | None = None
    eph_alg: KeyAlgorithm | None = None
    ephemeral_key: EphemeralKey | str | None = field(default=None, repr=False)
    eph_id: str | None = None
    timeout: float | None = field(default=None, converter=converters.optional(in_seconds))
    allow_resign: bool = False
    on_report: OnReport | None = field(default=None, repr=False)
    reference: str | None = None
    #: *hardcoded_values* and *duration*, read.
    hardcoded: HardcodedValues = field(default=_NOTHING_HARDCODED, init=False, repr=False, eq=False)
    lifetime_s: int = field(default=DEFAULT_DURATION_S, init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        # In this order: it decides which error a caller sees first. ``prepare`` goes on with it.
        check_bool("allow_resign", self.allow_resign)
        if self.on_report is not None and (
            not callable(self.on_report) or inspect.iscoroutinefunction(self.on_report)
        ):
            raise InvalidFieldError(
                "on_report", "must be a function that takes a KeygenReport and is not async"
            )
        if self.hardcoded_values is not None:
            object.__setattr__(self, "hardcoded", _to_hardcoded(self.hardcoded_values))
        object.__setattr__(self, "lifetime_s", duration_s(self.duration))
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
        account = self.smart_account_client
        if account is not None and not (
            callable(getattr(account, "get_address", None)) and hasattr(account, "signer")
        ):
            raise InvalidFieldError(
                "smart_account_client",
                "is not a smart account client",
                hint="It needs signer, bundler_url, chain_id and an async get_address()",
            )


class SessionKeyParameters(TypedDict, total=False):
    """The parameters of ``DanClient.generate_session_key`` that say what key is made, and not by whom or how."""

    smart_account_client: SmartAccount | None
    hardcoded_values: Mapping[str, Any] | HardcodedValues | None
    duration: int | timedelta
    chain_id: int | None
    threshold: int | None
    parties_number: int | None
    min_parties: int | None
    min_holders: int | None
    permissions: str | Mapping[str, Any] | Sequence[Any] | None
    key_label: str | None
    eph_alg: KeyAlgorithm | None
    ephemeral_key: EphemeralKey | str | None
    eph_id: str | None
    timeout: TimeSpan | None
    reference: str | None


_PARAMETERS = frozenset(attribute.name for attribute in fields(SessionKeyRequest) if attribute.init)


def read_request(given: object, shared: Mapping[str, Any]) -> tuple[object, Callable[[], SessionKeyRequest]]:
    """
    Return the reference of a request in any of its forms, and the maker of the request, which checks its values.

    Its names are checked at once. Its parameters win over *shared* ones, and a ``SessionKeyRequest`` has all of them.
    """
    if isinstance(given, SessionKeyRequest):
        return given.reference, lambda: given
    if isinstance(given, DanSessionKeyRequestParams):
        given = {a.name: getattr(given, a.name) for a in fields(type(given))}
    merged = {**shared, **check_mapping("request", given)}
    for name in merged:
        if name not in _PARAMETERS:
            raise InvalidFieldError(
                shown_name(name, otherwise="a name"), "is not a parameter of generate_session_key"
            )
    return merged.get("reference"), partial(SessionKeyRequest, **merged)


# --- preparing --------------------------------------------------------------------------------------------------------


#: A claim that ends so many seconds too early or too late is made anew.
_OUTDATED_S = 10.0


@define(kw_only=True, eq=False, repr=False)
class PreparedRequest:
    """A request that was checked and completed. Its user ends with ``wipe_key()``."""

    keygen: KeygenRequest
    auth: AuthModule
    ephemeral_key: EphemeralKey
    owns_key: bool
    owner: Address
    chain_id: int
    timeout_s: float
    reference: str | None

    def wipe_key(self) -> None:
        """Wipe the ephemeral key, unless it is the caller's own object."""
        if self.owns_key:
            self.ephemeral_key.wipe()


async def prepare(
    request: SessionKeyRequest,
    network: Network,
    *,
    timeouts: Timeouts,
    clock: Clock,
    has_store: bool,
    in_batch: bool = False,
    check: Callable[[], None] | None = None,
) -> PreparedRequest:
    """
    Check the other values, in an order that callers see; then ask a passkey's account for its address.

    *check* is called before the owner is asked.
    """
    fixed, account = request.hardcoded, request.smart_account_client
    timeout_s = timeouts.total_s if request.timeout is None else request.timeout
    auth = choose_auth(
        request.auth,
        wallet=request.wallet,
        browser_wallet=request.browser_wallet,
        account=account,
        limit_s=timeouts.wallet_s,
    )
    owner = _known_owner(auth, fixed, account)
    given_chain, t, n, given_key = _agreed(request)
    chain_id = _infer_chain_id(given_chain, account)
    threshold = network.default_threshold.changed(t, n)
    if request.min_parties is not None:
        check_int("min_parties", request.min_parties, least=threshold.t, most=threshold.n)
    if request.min_holders is not None:
        check_int("min_holders", request.min_holders, least=threshold.t, most=threshold.n)
    now = math.floor(network_time(network, clock, threshold.t))
    expiry = now + request.lifetime_s
    permissions = None
    if request.permissions is not None:
        permissions = _check_permissions(request.permissions, chain_id=chain_id, now=now, ends=expiry)
    if request.key_label is not None:
        check_text("key_label", request.key_label, most=256)
    if request.eph_id is not None:
        check_text("eph_id", request.eph_id, most=256)
    key = choose_ephemeral_key(given_key, request.eph_alg, network.default_eph_alg)
    owns_key = key is not given_key
    try:
        keygen = KeygenRequest(
            request_id=new_request_id(),
            owner_id=auth.id,
            threshold=threshold,
            claim=EphemeralClaim(
                eph_id=request.eph_id or key.default_id,
                eph_pk=key.public_key,
                expiry=expiry,
                sign_alg=key.algorithm,
            ),
            permissions=permissions,
            key_label=request.key_label,
            min_parties=request.min_parties,
            min_holders=request.min_holders,
            allow_resign=request.allow_resign,
            in_batch=in_batch,
        )
        network.check_keygen(keygen)
        if request.reference is not None:
            check_reference("reference", request.reference)
            if not has_store:
                raise InvalidFieldError("reference", "needs a store", hint="DanClient(..., store=...)")
        if owner is None:
            assert account is not None
            owner = await _ask_for_address(account, timeout_s)
    except BaseException:
        if owns_key:
            key.wipe()
        raise
    return PreparedRequest(
        keygen=keygen,
        auth=auth if check is None else WatchedAuth(auth, check=check),
        ephemeral_key=key,
        owns_key=owns_key,
        owner=owner,
        chain_id=chain_id,
        timeout_s=timeout_s,
        reference=request.reference,
    )


def _agreed(request: SessionKeyRequest) -> list[Any]:
    """Return chain id, t, n and ephemeral key, each given one way or the other; both ways only if they agree."""
    fixed, found = request.hardcoded, []
    for name, given, hardcoded in (
        ("chain_id", request.chain_id, fixed.chain_id),
        ("threshold", request.threshold, fixed.threshold),
        ("parties_number", request.parties_number, fixed.parties_number),
        ("ephemeral_key", request.ephemeral_key, fixed.hex_eph_sk_without_0x),
    ):
        if given is not None and hardcoded is not None and given != hardcoded:
            raise InvalidFieldError(name, "differs from the value in hardcoded_values", hint="Give it once")
        found.append(hardcoded if given is None else given)
    return found


def choose_auth(
    auth: AuthModule | None,
    *,
    wallet: Wallet | None,
    browser_wallet: Wallet | None = None,
    account: SmartAccount | None = None,
    limit_s: float,
) -> AuthModule:
    """Return *auth* if given, else the owner of *wallet* or *browser_wallet*, else of the account's signer."""
    if auth is None:
        found = _choose_wallet(wallet=wallet, browser_wallet=browser_wallet, account=account)
        return EoaAuth(found, timeout_s=limit_s)
    if wallet is not None or browser_wallet is not None:
        raise InvalidFieldError("wallet", "is given as well as auth", hint="Give one of them")
    if not (
        getattr(auth, "method", None) in ("eoa", "passkey")
        and isinstance(getattr(auth, "id", None), str)
        and isinstance(getattr(auth, "interactive", None), bool)
        and callable(getattr(auth, "authorise", None))
    ):
        raise InvalidFieldError("auth", "must be an owner: a wallet or a passkey")
    return WatchedAuth(auth, timeout_s=limit_s)


def _choose_wallet(
    *, wallet: Wallet | None, browser_wallet: Wallet | None, account: SmartAccount | None
) -> Wallet:
    if wallet is not None and browser_wallet is not None and wallet is not browser_wallet:
        raise InvalidFieldError("browser_wallet", "is given as well as wallet", hint="Give one of them")
    for name, candidate in (
        ("wallet", wallet),
        ("browser_wallet", browser_wallet),
        ("smart_account_client.signer", account.signer if account is not None else None),
    ):
        if candidate is None:
            continue
        if isinstance(candidate, type) or not callable(getattr(candidate, "sign_typed_data", None)):
            raise InvalidFieldError(
                name, "is not a wallet", hint="It needs address, interactive and an async sign_typed_data()"
            )
        parse_address(f"{name}.address", getattr(candidate, "address", None))
        if not isinstance(getattr(candidate, "interactive", None), bool):
            raise InvalidFieldError(
                f"{name}.interactive",
                "must say whether a person is asked: True or False",
                hint="An account of eth-account becomes a wallet with EthAccountWallet(account)",
            )
        return candidate
    raise ConfigurationError(
        "no wallet was given, so nobody can authorise the session",
        hint="Give wallet, browser_wallet, or a smart_account_client that has a signer",
    )


def _known_owner(auth: AuthModule, fixed: HardcodedValues, account: SmartAccount | None) -> Address | None:
    """
    Return the address under which the session is filed: the wallet's, or the given one of a passkey, which has none.

    None for the address of a passkey's smart account: that has to be asked for.
    """
    given = fixed.eoa_address
    if auth.method == "eoa":
        owner = auth.id if isinstance(auth, EoaAuth) else parse_address("auth.id", auth.id)
        if given is not None and parse_address("eoa_address", given) != owner:
            raise InvalidFieldError(
                "hardcoded_values: eoa_address",
                f"is not the wallet's address, {owner}",
                hint="The owner is the one who signs: leave it out, or give that owner's wallet",
            )
        return owner
    if given is not None:
        return parse_address("hardcoded_values: eoa_address", given)
    if account is None:
        raise InvalidFieldError(
            "eoa_address",
            "is needed with a passkey, which has no address",
            hint="Give it in hardcoded_values, or a smart_account_client that has one",
        )
    return None


async def _ask_for_address(account: SmartAccount, timeout_s: float) -> Address:
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


def _infer_chain_id(chain_id: int | None, account: SmartAccount | None) -> int:
    """Return the given chain, else the account's, else the one that its bundler URL names."""
    if chain_id is None:
        chain_id = getattr(account, "chain_id", None)
    if chain_id is None:
        chain_id = chain_in_url(getattr(account, "bundler_url", None))
    if chain_id is None:
        raise InvalidFieldError(
            "chain_id",
            "was not given and cannot be inferred",
            hint="Give chain_id, or a smart_account_client with a chain_id or a bundler_url of the form "
            "…/api/v2/<chain id>/…",
        )
    return check_int("chain_id", chain_id, least=1, most=MAX_SAFE_INT)


def _check_permissions(
    given: str | Mapping[str, Any] | Sequence[Any], *, chain_id: int, now: int, ends: int
) -> str:
    """Return the text of permissions under which something can be signed: the nodes would refuse everything else."""
    from dan_async.permissions.rules import parse_permissions, permissions_text

    text = given if isinstance(given, str) else permissions_text(given)
    assert text is not None  # as nothing given is
    permissions = parse_permissions(text)
    conditions = permissions.conditions
    times = {f"permissions[{i}].validUntil": rule.conditions for i, rule in enumerate(permissions.rules)}
    for name, each in {"permissions.validUntil": conditions, **times}.items():
        check_not_milliseconds(name, each.valid_until, now=now, ends=ends)
    if conditions.chain_ids is not None and chain_id not in conditions.chain_ids:
        raise InvalidFieldError("permissions.chainId", f"does not have the session's chain, {chain_id}")
    if conditions.valid_until is not None and conditions.valid_until < now:
        raise InvalidFieldError("permissions.validUntil", "has passed, so nothing could be signed")
    if conditions.valid_after is not None and conditions.valid_after > ends:
        raise InvalidFieldError(
            "permissions.validAfter", "is after the session's end, so nothing could be signed"
        )
    return text


def choose_ephemeral_key(
    given: EphemeralKey | str | None, algorithm: KeyAlgorithm | None, usual: KeyAlgorithm
) -> EphemeralKey:
    """Return the given ephemeral key, or make one of *algorithm*, else of the usual one."""
    if algorithm is not None:
        check_algorithm("eph_alg", algorithm)
    if given is None:
        return EphemeralKey.generate(algorithm or usual)
    if isinstance(given, str):
        return EphemeralKey.from_hex(given, algorithm or usual)
    check_instance("ephemeral_key", given, EphemeralKey, "an EphemeralKey or hex text")
    if algorithm is not None and given.algorithm != algorithm:
        raise InvalidFieldError("eph_alg", f"is {algorithm}, and ephemeral_key is a {given.algorithm} key")
    return given


class ClaimOutdatedError(DanError):
    """The nodes disagree with the clock by which a claim was made: it is to be made anew. Never leaves a job."""


def clock_check(network: Network) -> Callable[[], None] | None:
    """Return a check whether the nodes still say what they say now of the clock; None if they have told the time."""
    is_known = getattr(network, "is_time_known", None)
    if is_known is None or is_known():
        return None
    before = network_time(network, float, None)

    def check() -> None:
        if abs(network_time(network, float, None) - before) > _OUTDATED_S:
            raise ClaimOutdatedError("the nodes have said that this machine's clock is wrong")

    return check


class WatchedAuth:
    """Another owner, with a check before it is asked, a limit on its time, and a note of whether it has authorised."""

    def __init__(
        self, auth: AuthModule, *, check: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> None:
        self._auth = auth
        self._check = check
        self._timeout_s = timeout_s
        self.has_authorised = False

    @property
    def method(self) -> AuthMethod:
        return self._auth.method

    @property
    def id(self) -> str:
        return self._auth.id

    @property
    def interactive(self) -> bool:
        return self._auth.interactive

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        if self._check is not None:
            self._check()
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                signature = await self._auth.authorise(challenge=challenge, typed_data=typed_data)
        except TimeoutError as error:
            if isinstance(error, DanError) or not limit.expired():
                raise
            raise WalletTimeoutError(
                f"the owner did not authorise within {self._timeout_s:g} s",
                hint="Look for an open prompt, or allow more time with Timeouts(wallet_s=…)",
                phase="wallet",
            ) from error
        self.has_authorised = True
        return signature
