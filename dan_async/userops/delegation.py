"""Delegating an EOA to an account's code (EIP-7702): its owner's authorisation, and the transaction that applies one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dan_async._values import from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import keccak256
from dan_async.crypto.set_code import (
    DELEGATION_PREFIX,
    Authorisation,
    SetCodeTransaction,
    authorisation_digest,
)
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    DanError,
    InvalidFieldError,
    ProtocolError,
    TransportError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
    WalletSignatureError,
)
from dan_async.types import Address, Hex
from dan_async.userops.service import Chain, check_cost, pause
from dan_async.wallets.base import ask_owner, refuse_other_signer

#: Delegating to this address ends a delegation.
NO_CODE = Address("0x" + "00" * 20)

#: Gas for one authorisation (EIP-7702, PER_EMPTY_ACCOUNT_COST).
_AUTHORISATION_GAS = 25_000


@runtime_checkable
class AuthorisationWallet(Protocol):
    """A wallet that signs authorisations of EIP-7702, as ``LocalWallet`` and ``EthAccountWallet`` do."""

    @property
    def address(self) -> str:
        """The owner's address."""

    async def sign_authorisation(self, *, chain_id: int, address: str, nonce: int) -> str:
        """Return 65 bytes r, s, v, as ``0x`` hex, over ``authorisation_digest`` of the arguments."""


@runtime_checkable
class TransactionWallet(AuthorisationWallet, Protocol):
    """One that signs transactions as well, as ``LocalWallet`` does."""

    def sign_digest(self, digest: bytes) -> bytes:
        """Return 65 bytes r, s, v."""


def delegation_code(implementation: Address) -> bytes:
    """Return the code of an EOA that is delegated to a contract; nothing for ``NO_CODE``."""
    return b"" if implementation == NO_CODE else DELEGATION_PREFIX + bytes.fromhex(implementation[2:])


async def sign_authorisation(
    wallet: object,
    owner: Address,
    *,
    chain_id: int,
    address: Address,
    nonce: int,
    timeout_s: float | None = None,
) -> Authorisation:
    """Have the owner's wallet authorise its EOA to run the code at an address, and check that it did."""
    if not isinstance(wallet, AuthorisationWallet):
        signer = "a session" if wallet is None else type(wallet).__name__
        raise ConfigurationError(
            f"{signer} cannot sign authorisations of EIP-7702",
            hint="The owner's LocalWallet or EthAccountWallet can; browser wallets do not sign them for pages",
        )
    authorisation_digest(chain_id=chain_id, address=address, nonce=nonce)  # the wallet sees no malformed ones
    signature = await ask_owner(
        lambda: wallet.sign_authorisation(chain_id=chain_id, address=address, nonce=nonce), timeout_s
    )
    try:
        found = Authorisation(
            chain_id=chain_id, address=address, nonce=nonce, signature=from_hex(signature, field="signature")
        )
    except InvalidFieldError as error:
        raise WalletSignatureError(
            f"the wallet's answer is not a signature of an authorisation: {error.message}",
            hint="It must return 65 bytes r, s, v as 0x hex",
            phase="wallet",
        ) from error
    refuse_other_signer(found.authority, owner)
    return found


async def prepare_set_code(
    chain: Chain,
    wallet: object,
    *,
    owner: Address,
    implementation: Address,
    data: bytes,
    chain_id: int,
    cost_limit: int,
    deadline: Deadline,
) -> SetCodeTransaction:
    """
    Return a signed transaction from an EOA to itself that delegates it, and calls the new code if there is *data*.

    The gas is estimated with the code put in place, so that nothing is signed before all else is known.
    """
    if not isinstance(wallet, TransactionWallet) or parse_address("wallet.address", wallet.address) != owner:
        raise ConfigurationError(
            "the account's signer cannot sign transactions of its owner",
            hint="The owner's LocalWallet can; or send an operation with authorise_delegation()'s result",
        )
    nonce = await chain.count_transactions(owner, deadline=deadline)
    price = await chain.gas_price(deadline=deadline)
    call = {"from": owner, "to": owner, "data": to_hex(data)}
    overrides = {owner: {"code": to_hex(delegation_code(implementation))}}
    answer = await chain.service.call("eth_estimateGas", [call, "latest", overrides], deadline=deadline)
    gas = chain.service.gas(answer, "eth_estimateGas", "result") + _AUTHORISATION_GAS
    check_cost("the delegation", gas * price.max_fee_per_gas, cost_limit)
    # The sender's nonce counts up before authorisations are looked at: this one is good in this transaction only.
    authorisation = await sign_authorisation(
        wallet, owner, chain_id=chain_id, address=implementation, nonce=nonce + 1
    )
    transaction = SetCodeTransaction(
        chain_id=chain_id,
        nonce=nonce,
        max_priority_fee_per_gas=price.max_priority_fee_per_gas,
        max_fee_per_gas=price.max_fee_per_gas,
        gas_limit=gas,
        to=owner,
        data=data,
        authorisations=(authorisation,),
    )
    return transaction.signed(wallet.sign_digest(transaction.digest()))


async def send_set_code(chain: Chain, transaction: SetCodeTransaction, *, deadline: Deadline) -> Hex:
    """Send a transaction of ``prepare_set_code``, wait for its receipt, and check the EOA's code."""
    raw = transaction.encode()
    own = to_hex(keccak256(raw))
    refusal: BundlerError | None = None
    problem: DanError | None = None
    try:
        await chain.service.call("eth_sendRawTransaction", [to_hex(raw)], deadline=deadline)
    except BundlerError as error:
        refusal = error  # an attempt before this one may have arrived: the chain decides
    except (TransportError, ProtocolError) as error:
        problem = error
    while True:
        try:
            found = await chain.service.call("eth_getTransactionReceipt", [own], deadline=deadline)
            known = found or refusal is None
            if not known:
                known = await chain.service.call("eth_getTransactionByHash", [own], deadline=deadline)
        except (BundlerError, TransportError, ProtocolError) as error:
            found, known, problem = None, True, error
        if isinstance(found, dict):
            break
        if not known and refusal is not None:
            raise refusal
        if not await pause(deadline):
            raise UserOperationTimeoutError(
                f"the transaction {own} was sent and is not known to be on the chain yet",
                hint="It may still be executed: look at is_deployed() later",
            ) from problem or refusal
    if found.get("status") != "0x1":
        raise UserOperationRevertedError(
            f"the transaction {own} is on the chain, and its call was reverted",
            hint="The delegation is valid all the same. If the account was set up before, that is all it needs",
            transaction_hash=own,
            reason="",
            receipt=found,
        )
    implementation = transaction.authorisations[0].address
    if await chain.code(transaction.to, deadline=deadline) != delegation_code(implementation):
        raise ProtocolError(
            f"the transaction {own} is on the chain, and the EOA does not run the code of {implementation}",
            hint="Check that the chain has EIP-7702 (Prague), and that nobody else delegates this EOA",
        )
    return own
