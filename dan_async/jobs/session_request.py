"""From what a caller passes to what a network is asked: every value checked, nothing sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dan_async.auth.eoa import EoaAuth
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.address import parse_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.jobs.passkeys import LimitedAuth, find_address
from dan_async.models._fields import MAX_LIFETIME_S, check_algorithm, check_int, check_seconds, check_text
from dan_async.models.claim import EphemeralClaim
from dan_async.models.keygen import KeygenRequest
from dan_async.models.permissions import permissions_text
from dan_async.models.request_params import HardcodedValues, SmartAccount
from dan_async.types import Address, Clock, KeyAlgorithm, new_request_id
from dan_async.wallets.base import Wallet

if TYPE_CHECKING:
    from dan_async.auth.base import AuthModule
    from dan_async.networks.base import Network

__all__ = [
    "SessionRequest",
    "choose_auth",
    "choose_ephemeral_key",
    "choose_wallet",
    "infer_chain_id",
    "prepare",
]

#: Bundler URLs that name their chain: …/api/v2/80002/key, …/api/v3/80002/key.
_BUNDLER_CHAIN = re.compile(r"/api/v[23]/([0-9]{1,16})(?:/|\Z)")
_MAX_CHAIN_ID = 2**53 - 1
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
