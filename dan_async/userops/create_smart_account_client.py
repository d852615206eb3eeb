"""create_smart_account_client: the seed's createSmartAccountClient."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dan_async._tasks import Deadline
from dan_async.config import RetryPolicy, Timeouts, TransportOptions
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int, check_text
from dan_async.types import Address
from dan_async.userops.account_kinds import AccountKind, BiconomyV2, SimpleAccount
from dan_async.userops.bundler import Bundler
from dan_async.userops.chain import Chain
from dan_async.userops.entry_points import ENTRY_POINTS
from dan_async.userops.json_rpc_service import JsonRpcService
from dan_async.userops.paymasters import BiconomyPaymaster, Erc7677Paymaster, Paymaster
from dan_async.userops.signers import MessageWallet, UserOperationSigner, WalletSigner
from dan_async.userops.smart_account import SmartAccountClient

if TYPE_CHECKING:
    from dan_async.transport.base import Transport
    from dan_async.wallets.base import Wallet

__all__ = ["create_smart_account_client"]

_CHAIN_IN_URL = re.compile(r"/api/v[23]/([0-9]{1,16})(?:/|\Z)")
_LARGEST_CHAIN_ID = 2**53 - 1
_BICONOMY_PAYMASTER = "https://paymaster.biconomy.io/api/v1"


async def create_smart_account_client(
    *,
    signer: Wallet | UserOperationSigner,
    bundler_url: str | Transport,
    rpc_url: str | Transport | None = None,
    paymaster_url: str | Transport | None = None,
    paymaster_context: Mapping[str, Any] | None = None,
    biconomy_paymaster_api_key: str | None = None,
    paymaster: Paymaster | None = None,
    account: AccountKind | None = None,
    address: str | None = None,
    owner: str | None = None,
    salt: int = 0,
    entry_point: str | None = None,
    chain_id: int | None = None,
    options: TransportOptions | None = None,
    retry: RetryPolicy | None = None,
    timeouts: Timeouts | None = None,
) -> SmartAccountClient:
    """
    Make a client for a smart account.

    Args:
        signer: The owner: a wallet, or a ``SessionSigner`` for operations that the network signs. A wallet can sign
            operations if it signs personal messages, as ``LocalWallet`` does; any will do for ``generate_session_key``.
        bundler_url: The bundler: ``https``, or ``http`` to loopback. As all URLs here it may be a ``Transport``.
        rpc_url: A node of the chain, for nonces and addresses. Needed as soon as an operation is made.
        paymaster_url: A paymaster service of ERC-7677, if one is to pay for gas.
        paymaster_context: What that service wants to be told.
        biconomy_paymaster_api_key: The API key of Biconomy's paymaster, instead of paymaster_url.
        paymaster: A paymaster of your own making, instead of either; it is closed with the client.
        account: What kind of account it is; ``SimpleAccount("v0.7.0")`` if None, and ``BiconomyV2()`` with Biconomy's
            paymaster.
        address: The account's address; if None, the one that its factory gives it.
        owner: The account's owner, if that is not the signer: a session may sign for an account with another owner.
        salt: Tells several accounts of one owner apart.
        entry_point: The entry point; the well-known one of the account's version if None.
        chain_id: The chain; if None, what the bundler's URL says (…/api/v2/80002/… or v3), or else the bundler itself.
        options: How to connect.
        retry: How often failed attempts are repeated.
        timeouts: ``total_s`` bounds each call, ``attempt_s`` each attempt.

    Returns:
        The client. Close it, or use it in ``async with``.

    Raises:
        InvalidFieldError: An argument is wrong.
        InsecureTransportError: A URL has no TLS and its host is not loopback.
        BundlerError: The bundler was asked for its chain and answered with an error.
        TransportError: The bundler was asked for its chain and could not be reached.

    Example:
        >>> account = await create_smart_account_client(signer=wallet, bundler_url="https://…/api/v2/80002/key")
        >>> session = await dan.generate_session_key(smart_account_client=account)
    """
    if sum(one is not None for one in (paymaster_url, biconomy_paymaster_api_key, paymaster)) > 1:
        raise InvalidFieldError(
            "paymaster_url",
            "is one of three, with biconomy_paymaster_api_key and paymaster: one of them pays",
        )
    kind = account or (BiconomyV2() if biconomy_paymaster_api_key is not None else SimpleAccount())
    check_int("salt", salt, least=0, most=2**256 - 1)
    limits = timeouts or Timeouts()
    where = Address(parse_address("entry_point", entry_point)) if entry_point else ENTRY_POINTS[kind.version]
    who = parse_address("owner" if owner else "signer", owner or _address_of(signer))
    known = None if address is None else parse_address("address", address)

    def service(name: str, url: str | Transport) -> JsonRpcService:
        return JsonRpcService(name, url, options=options, retry=retry, attempt_s=limits.attempt_s)

    bundler = Bundler(service("bundler", bundler_url), entry_point=where)
    chain = None if rpc_url is None else Chain(service("node", rpc_url))
    try:
        chain_id = await _chain_id(chain_id, bundler_url, bundler, limits)
    except BaseException:
        await bundler.service.aclose()
        raise
    if paymaster_url is not None:
        paymaster = Erc7677Paymaster(service("paymaster", paymaster_url), context=paymaster_context)
    elif biconomy_paymaster_api_key is not None:
        key = check_text("biconomy_paymaster_api_key", biconomy_paymaster_api_key, most=256)
        paymaster = BiconomyPaymaster(service("paymaster", f"{_BICONOMY_PAYMASTER}/{chain_id}/{key}"))
    return SmartAccountClient(
        kind=kind,
        signer=_operation_signer(signer),
        wallet=None if isinstance(signer, UserOperationSigner) else signer,
        bundler_url=bundler_url if isinstance(bundler_url, str) else None,
        bundler=bundler,
        chain=chain,
        paymaster=paymaster,
        entry_point=where,
        chain_id=chain_id,
        owner=who,
        address=known,
        salt=salt,
        timeouts=limits,
    )


def _address_of(signer: object) -> str:
    address = getattr(signer, "address", None)
    if not isinstance(address, str):
        raise InvalidFieldError("signer", "must be a wallet or a SessionSigner: it has no address")
    return address


def _operation_signer(signer: Wallet | UserOperationSigner) -> UserOperationSigner | None:
    if isinstance(signer, UserOperationSigner):
        return signer
    return WalletSigner(signer) if isinstance(signer, MessageWallet) else None


async def _chain_id(chain_id: int | None, url: str | Transport, bundler: Bundler, timeouts: Timeouts) -> int:
    if chain_id is None and isinstance(url, str) and (found := _CHAIN_IN_URL.search(url)):
        chain_id = int(found[1])
    if chain_id is None:
        chain_id = await bundler.chain_id(deadline=Deadline(timeouts.total_s))
    return check_int("chain_id", chain_id, least=1, most=_LARGEST_CHAIN_ID)
