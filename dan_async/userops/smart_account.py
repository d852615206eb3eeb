"""Smart accounts: make user operations out of calls, have them paid for and signed, send them, wait for them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from attrs import define, evolve, field, setters

from dan_async._values import (
    MAX_SAFE_INT,
    chain_in_url,
    check_instance,
    check_int,
    check_list,
    check_seconds,
    check_text,
    from_hex,
    setting,
    to_hex,
)
from dan_async.config import Timeouts, TransportOptions, check_transport, check_url
from dan_async.crypto.abi import encode_arguments
from dan_async.crypto.address import parse_address
from dan_async.crypto.set_code import Authorisation
from dan_async.deadline import Deadline, OneLoop
from dan_async.errors import (
    ConfigurationError,
    DanError,
    DuplicateUserOperationError,
    InvalidFieldError,
    ProtocolError,
    UserOperationError,
    UserOperationInDoubtError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
)
from dan_async.permissions.checking import gas_cost
from dan_async.retry import RetryPolicy
from dan_async.types import Address, EntryPointVersion, Hex, TimeSpan
from dan_async.user_operation import (
    ENTRY_POINTS,
    Call,
    UserOperationReceipt,
    UserOperationV06,
    UserOperationV07,
    check_entry_point,
)
from dan_async.userops.account_kinds import AccountKind, BiconomyV2, FactoryCall, Nexus, SimpleAccount
from dan_async.userops.bundler import Bundler, in_doubt
from dan_async.userops.delegation import (
    NO_CODE,
    delegation_code,
    prepare_set_code,
    send_set_code,
    sign_authorisation,
)
from dan_async.userops.paymasters import BiconomyPaymaster, Erc7677Paymaster, Operation, Paymaster
from dan_async.userops.sending import NonceLanes, OperationSender
from dan_async.userops.service import Chain, GasPrice, JsonRpcService, check_cost
from dan_async.userops.sign_user_operation import MessageWallet, UserOperationSigner, WalletSigner

if TYPE_CHECKING:
    from dan_async.transport.rpc import Transport
    from dan_async.wallets.base import Wallet


#: Most wei for the gas of one operation, unless the caller says otherwise.
DEFAULT_COST_LIMIT = 10**17

#: A bundler's price may be this much higher than the chain's own, or else be small: bundlers have minima where gas is cheap.
_PRICE_FACTOR, _SMALL_PRICE = 4, 10**9

#: Up to this much gas is added to the limit for the check, which costs nothing if unused: operations that two programs
#: make out of the same calls then differ, and the chain shows whose was executed.
_SPREAD = 4096


#: The end of a signature of an account that is not deployed (ERC-6492).
_ERC6492 = bytes.fromhex("6492" * 16)


@define(kw_only=True, eq=False, repr=False, on_setattr=setters.frozen)
class SmartAccountClient:
    """
    One smart account. ``create_smart_account_client`` makes it; close it with ``aclose()`` or use it in ``async with``.

    It can be given to ``generate_session_key`` as *smart_account_client*. Whatever asks the chain may raise
    ``ConfigurationError`` (no rpc_url was given), ``BundlerError`` (the node answered with an error) and ``TransportError``.

    Attributes:
        kind: The kind of account.
        owner: The account's owner.
        chain_id: The chain's id.
        bundler_url: The bundler's URL; None if a ``Transport`` was given.
        lanes: The account's nonce lanes.
    """

    kind: AccountKind
    _signer: UserOperationSigner | None
    _wallet: Wallet | None
    bundler_url: str | None
    _bundler: Bundler
    _chain_or_none: Chain | None = field(alias="chain")
    _paymaster: Paymaster | None
    chain_id: int
    owner: Address
    _address: Address | None = field(on_setattr=setters.NO_OP)
    _salt: int
    _cost_limit: int
    _timeouts: Timeouts
    _is_shared: bool = False
    _is_checked: bool = field(init=False, default=False, on_setattr=setters.NO_OP)
    _is_deployed: bool = field(init=False, default=False, on_setattr=setters.NO_OP)
    _deploying: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _loop: OneLoop = field(init=False, factory=partial(OneLoop, "account"))
    lanes: NonceLanes = field(init=False)
    _sender: OperationSender = field(init=False)

    @lanes.default
    def _make_lanes(self) -> NonceLanes:
        seed = self._signer.lane_seed if self._signer else self.owner.encode()
        return NonceLanes(seed, self._fetch_nonce, place=self.kind.nonce_key)

    @_sender.default
    def _make_sender(self) -> OperationSender:
        return OperationSender(
            kind=self.kind,
            signer=self._signer,
            bundler=self._bundler,
            lanes=self.lanes,
            chain_id=self.chain_id,
            users_of_nonce=self._users_of_nonce,
        )

    def signed_by(
        self, signer: UserOperationSigner, *, kind: AccountKind | None = None
    ) -> SmartAccountClient:
        """
        Return a client of the same account whose operations another signer signs, in nonce lanes of that signer.

        It uses the connections of this one, and ends with it.

        Args:
            signer: Who signs the operations.
            kind: The form of its operations, if another module of the account checks them, as ``Nexus.for_sessions()``.
        """
        return evolve(self, kind=kind or self.kind, signer=signer, wallet=None, is_shared=True)

    def __repr__(self) -> str:
        return f"SmartAccountClient({self._address or 'address not asked for yet'}, {self.kind!r}, chain {self.chain_id})"

    # --- for generate_session_key -------------------------------------------------------------------------------------

    @property
    def signer(self) -> Wallet | None:
        """The owner's wallet; None if a session signs."""
        return self._wallet

    async def get_address(self) -> Address:
        """
        Return the account's address, deployed or not.

        For the kinds with a well-known factory it is worked out here; with an rpc_url, the factory must say the same.

        Raises:
            ProtocolError: The factory is not on this chain, or the node names another address than it makes.
            ConfigurationError: The address is not known, and no rpc_url was given to find it out.
        """
        return await self._find_address(self._deadline(None))

    # --- operations ---------------------------------------------------------------------------------------------------

    @property
    def entry_point(self) -> Address:
        """The entry point's address."""
        return self._bundler.entry_point

    @property
    def version(self) -> EntryPointVersion:
        """The entry point's version."""
        return self.kind.version

    async def send_user_operation(
        self,
        calls: Call | Iterable[Call],
        *,
        lane: str = "",
        timeout: TimeSpan | None = None,
        kind: AccountKind | None = None,
        authorisation: Authorisation | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> Hex:
        """
        Make calls: build the operation, estimate its gas, have it paid and signed, send it.

        The first operation of an account that is not deployed yet deploys it; it is waited for, and so are operations of
        other lanes meanwhile.

        Args:
            calls: One call, or several that happen together or not at all.
            lane: The nonce lane. Operations of one lane are executed in order, each after the one before is on the chain;
                those of different lanes do not wait for each other.
            timeout: Seconds for the whole, instead of the client's ``Timeouts.total_s``.
            kind: The form of this operation alone, if another module of the account is to check it.
            authorisation: The delegation of the account, an EOA, that is to be applied right before (EIP-7702): of
                ``authorise_delegation``.
            check: Awaited each time that a nonce is known and before an operation is made for it; its error ends the call.
                As one operation alone can use the nonce, a state of the chain that is found here, and that only this lane
                changes, still holds when the operation is executed.

        Returns:
            The operation's hash, for ``wait_for_receipt``.

        Raises:
            ConfigurationError: An argument is wrong; the account has no signer or no rpc_url; chains do not agree.
            BundlerError: Bundler, paymaster or node refused, with the reason in plain words.
            UserOperationCostError: It could cost more than the client's *cost_limit*; nothing was signed.
            DuplicateUserOperationError: Another program sent this very operation; or one that an earlier call had sent was
                executed although that call failed, and made the same calls.
            UserOperationInDoubtError: It was sent and may have been executed: ``user_operation_hash`` is there to be waited
                for. The same calls were not signed a second time.
            UserOperationTimeoutError: The lane's last operation is still not on the chain.
            DeadlineExceededError: The time ran out before it was sent.
            DanError: The signer did not sign, or a service could not be reached.
        """
        deadline = self._deadline(timeout)
        form, left = kind or self.kind, list[Hex]()
        call_data = form.encode_calls(read_calls(calls))
        bundler = self._bundler
        if authorisation is not None:
            check_instance("authorisation", authorisation, Authorisation)
            bundler = bundler.carrying(authorisation, self.chain_id)

        async def send(*, deploy: bool) -> Hex:
            async def prepare(nonce: int) -> Operation:
                if check is not None:
                    await check()
                return await self._prepare(
                    call_data, nonce, deadline, deploy=deploy, kind=form, bundler=bundler
                )

            sender = evolve(self._sender, kind=form, bundler=bundler)
            sent = await sender.send_in_lane(prepare, lane, deadline, call_data=call_data, left=left)
            if deploy:
                try:
                    await self._receipt(sent, deadline, allow_revert=True)
                except UserOperationTimeoutError:
                    self.lanes.settle(lane, sent)
                    raise
            self.lanes.settle(lane, sent)  # not before: a caller who goes away has not heard of it
            return sent

        try:
            async with deadline.enforced("sending a user operation"):
                await self._check_chain(deadline)
                if authorisation is not None:
                    await self._check_authorisation(authorisation, deadline)
                    return await send(deploy=False)
                if await self._look_deployed(deadline):
                    return await send(deploy=False)
                async with self._deploying:
                    return await send(deploy=not await self._look_deployed(deadline))
        except (DuplicateUserOperationError, UserOperationInDoubtError) as error:
            self.lanes.settle(lane, error.user_operation_hash)
            raise
        except DanError as error:
            if not left or (isinstance(error, UserOperationError) and error.user_operation_hash):
                raise
            self.lanes.settle(lane, left[-1])
            raise in_doubt(left[-1], error.message) from error

    async def wait_for_receipt(
        self, user_operation_hash: Hex, *, allow_revert: bool = False, timeout: TimeSpan | None = None
    ) -> UserOperationReceipt:
        """
        Return an operation's receipt, once it is on the chain.

        Args:
            user_operation_hash: The hash that ``send_user_operation`` returned.
            allow_revert: Whether to return the receipt of a reverted operation instead of raising.
            timeout: Seconds to wait, instead of the client's ``Timeouts.total_s``.

        Raises:
            UserOperationRevertedError: Its calls were reverted.
            UserOperationTimeoutError: It is not on the chain yet.
            UserOperationInDoubtError: The bundler does not say, or not in a way that can be read; its error is the cause.
            InvalidFieldError: That is no hash; nobody was asked.
        """
        own = to_hex(from_hex(user_operation_hash, field="user_operation_hash", length=32, prefix=True))
        return await self._receipt(own, self._deadline(timeout), allow_revert=allow_revert)

    async def _receipt(self, own: Hex, deadline: Deadline, *, allow_revert: bool) -> UserOperationReceipt:
        try:
            return await self._bundler.wait_for_receipt(own, deadline=deadline, allow_revert=allow_revert)
        except (UserOperationRevertedError, UserOperationTimeoutError):
            raise
        except DanError as error:  # says nothing about the operation, which was sent
            raise in_doubt(own, error.message) from error

    async def prepare_user_operation(
        self, calls: Call | Iterable[Call], *, nonce: int, timeout: TimeSpan | None = None
    ) -> Operation:
        """
        Return an operation that is complete except for its signature, to sign and send it yourself.

        Args:
            calls: One call or several.
            nonce: The nonce, key included; ``get_nonce`` returns the next one of a lane.
            timeout: Seconds for the whole, instead of the client's ``Timeouts.total_s``.

        Raises:
            DanError: As for ``send_user_operation``.
        """
        deadline = self._deadline(timeout)
        async with deadline.enforced("preparing a user operation"):
            await self._check_chain(deadline)
            deploy = not await self._look_deployed(deadline)
            call_data = self.kind.encode_calls(read_calls(calls))
            return await self._prepare(
                call_data, nonce, deadline, deploy=deploy, kind=self.kind, bundler=self._bundler
            )

    async def send_signed(self, operation: Operation, *, timeout: TimeSpan | None = None) -> Hex:
        """
        Send an operation that is signed already.

        Args:
            operation: The operation, signed.
            timeout: Seconds for the whole, instead of the client's ``Timeouts.total_s``.

        Returns:
            Its hash.

        Raises:
            DuplicateUserOperationError: It was sent before.
            BundlerError: The bundler refused it.
        """
        deadline = self._deadline(timeout)
        async with deadline.enforced("sending a user operation"):
            await self._check_chain(deadline)
            return await self._sender.send(operation, deadline)

    async def get_nonce(self, lane: str = "") -> int:
        """
        Return the next nonce of a lane, key included.

        Args:
            lane: The lane's name; empty for the usual one.
        """
        return await self._fetch_nonce(self.lanes.key(lane), self._deadline(None))

    async def sign_message(self, message: str | bytes) -> Hex:
        """
        Have the owner sign a personal message for the account, for contracts and services that ask the account (ERC-1271).

        If the account is not deployed yet, its deployment goes with the signature (ERC-6492). Without an rpc_url that is
        taken for granted.

        Args:
            message: Text, or bytes. Show the owner no bytes that somebody else has made: 32 of them can be an operation's
                hash.

        Returns:
            The account's signature, as 0x hex.

        Raises:
            ConfigurationError: The kind of account checks no messages here, or the owner's wallet signs none.
            WalletError: The owner did not sign.
        """
        if not isinstance(self.kind, BiconomyV2) or not isinstance(self._wallet, MessageWallet):
            raise ConfigurationError(
                "messages are signed for BiconomyV2 accounts, by wallets that have sign_message()"
            )
        data = message.encode() if isinstance(message, str) else check_instance("message", message, bytes)
        signature = from_hex(await self._wallet.sign_message(data), field="signature", length=65)
        wrapped = self.kind.wrap_signature(signature)
        if self._chain_or_none is None or not await self.is_deployed():
            found = self._deployment()
            wrapped = (
                encode_arguments("(address,bytes,bytes)", (found.factory, found.data, wrapped)) + _ERC6492
            )
        return to_hex(wrapped)

    async def read_contract(
        self, contract: str, signature: str, arguments: Sequence[Any], returns: str
    ) -> tuple[Any, ...]:
        """
        Return the decoded result of a contract's function on the account's chain; nothing is changed.

        Args:
            contract: The contract's address.
            signature: The function, as ``isModuleEnabled(address)``.
            arguments: Its arguments.
            returns: The types that it returns, as ``(bool)``.

        Raises:
            ProtocolError: The answer has other types: there is another contract, or none.
        """
        deadline = self._deadline(None)
        return await self._chain.read(contract, signature, tuple(arguments), returns, deadline=deadline)

    async def is_deployed(self) -> bool:
        """Return whether the account is on the chain; a delegated EOA, whether it runs its kind's implementation."""
        return await self._look_deployed(self._deadline(None))

    # --- EIP-7702 -----------------------------------------------------------------------------------------------------

    async def authorise_delegation(
        self, *, chain_id: int | None = None, timeout: TimeSpan | None = None
    ) -> Authorisation:
        """
        Have the owner sign that the account, which is the owner's EOA, runs its kind's implementation (EIP-7702).

        Nothing is sent: give the result to ``send_user_operation``, with the first operation or with any later one if
        another wallet has delegated the EOA elsewhere meanwhile. It holds until the EOA's nonce moves.

        Args:
            chain_id: 0 for an authorisation that holds on every chain; the account's own chain if None.
            timeout: Seconds for what the chain is asked, instead of the client's ``Timeouts.total_s``. The wallet has
                ``Timeouts.wallet_s``.

        Returns:
            The authorisation, which is the owner's, for the EOA's present nonce.

        Raises:
            ConfigurationError: The account's kind is not a delegated one, or the owner's wallet signs no authorisations.
            InvalidFieldError: The chain is another one; nothing was signed.
            WalletError: The owner did not sign, or somebody else did.
        """
        if chain_id not in (None, 0, self.chain_id):
            raise InvalidFieldError(
                "chain_id",
                f"must be {self.chain_id}, the account's, or 0 for every chain",
                hint="Nothing was signed",
            )
        deadline = self._deadline(timeout)
        implementation = self._delegated().implementation
        async with deadline.enforced("authorising a delegation"):
            await self._check_chain(deadline)
            nonce = await self._chain.count_transactions(self.owner, deadline=deadline)
        return await sign_authorisation(
            self._wallet,
            self.owner,
            chain_id=self.chain_id if chain_id is None else chain_id,
            address=implementation,
            nonce=nonce,
            timeout_s=self._timeouts.wallet_s,
        )

    async def delegate(self, *, set_up: bool = True, timeout: TimeSpan | None = None) -> Hex:
        """
        Have the owner's EOA run its kind's implementation by a transaction of its own (EIP-7702), without a bundler.

        The transaction is of type 4 and goes from the EOA to itself, so that nobody can come between delegation and setup.
        The EOA pays for its gas.

        Args:
            set_up: Whether it sets the account up, with the EOA as its owner; not if it was set up before.
            timeout: Seconds for the whole, instead of the client's ``Timeouts.total_s``.

        Returns:
            The transaction's hash, once it is on the chain.

        Raises:
            ConfigurationError: The account's kind is not a delegated one, or the owner's wallet signs no transactions:
                ``LocalWallet`` does.
            BundlerError: The node refused: *set_up* may be wrong. Nothing was sent.
            UserOperationCostError: It could cost more than the client's *cost_limit*; nothing was signed.
            UserOperationTimeoutError: It was sent and is not on the chain yet.
            UserOperationRevertedError: The setup failed; the EOA is delegated all the same.
        """
        kind = self._delegated()
        data = kind.set_up(self.owner, self.owner).data if set_up else b""
        return await self._set_code(kind.implementation, data, timeout)

    async def end_delegation(self, *, timeout: TimeSpan | None = None) -> Hex:
        """
        Have the owner's EOA run no code any more, by a transaction of its own.

        Its modules' data stays on the chain, and counts again after another delegation: revoke session keys before.

        Args:
            timeout: Seconds for the whole, instead of the client's ``Timeouts.total_s``.

        Returns:
            The transaction's hash, once it is on the chain.

        Raises:
            DanError: As for ``delegate``.
        """
        self._delegated()
        return await self._set_code(NO_CODE, b"", timeout)

    def _delegated(self) -> Nexus:
        if not isinstance(self.kind, Nexus) or not self.kind.is_delegated:
            raise ConfigurationError(
                "the account is not a delegated EOA", hint="Make it with account=Nexus(is_delegated=True)"
            )
        return self.kind

    async def _set_code(self, implementation: Address, data: bytes, timeout: TimeSpan | None) -> Hex:
        deadline = self._deadline(timeout)
        async with deadline.enforced("delegating an account"):
            await self._check_chain(deadline)
            transaction = await prepare_set_code(
                self._chain,
                self._wallet,
                owner=self.owner,
                implementation=implementation,
                data=data,
                chain_id=self.chain_id,
                cost_limit=self._cost_limit,
                deadline=deadline,
            )
        return await send_set_code(self._chain, transaction, deadline=deadline)

    async def _check_authorisation(self, authorisation: Authorisation, deadline: Deadline) -> None:
        """Check that an authorisation is the account's, for its implementation, and would be applied now."""
        kind, problem = self._delegated(), None
        if authorisation.authority != self.owner:
            problem = f"is signed by {authorisation.authority}, not by {self.owner}"
        elif authorisation.address != kind.implementation:
            problem = f"is for the code of {authorisation.address}, not of {kind.implementation}"
        elif authorisation.chain_id not in (0, self.chain_id):
            problem = f"is for chain {authorisation.chain_id}, not for {self.chain_id}"
        else:
            nonce = await self._chain.count_transactions(self.owner, deadline=deadline)
            if nonce != authorisation.nonce:
                problem = f"is for the EOA's nonce {authorisation.nonce}, which is {nonce} now"
        if problem is not None:
            raise InvalidFieldError(
                "authorisation", problem, hint="Nothing was sent. authorise_delegation() makes a new one"
            )

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _prepare(
        self,
        call_data: bytes,
        nonce: int,
        deadline: Deadline,
        *,
        deploy: bool,
        kind: AccountKind,
        bundler: Bundler,
    ) -> Operation:
        """Build an operation that is complete except for its signature: price, gas, paymaster."""
        sender, price = await self._find_address(deadline), await self._price(deadline)
        factory = self._deployment() if deploy else None
        fields: dict[str, Any] = {
            "sender": sender,
            "nonce": nonce,
            "call_data": call_data,
            "call_gas_limit": 0,
            "verification_gas_limit": 0,
            "pre_verification_gas": 0,
            "max_fee_per_gas": price.max_fee_per_gas,
            "max_priority_fee_per_gas": price.max_priority_fee_per_gas,
            "signature": kind.dummy_signature,
        }
        draft: Operation
        if kind.version == "v0.6.0":
            init_code = bytes.fromhex(factory.factory[2:]) + factory.data if factory else b""
            draft = UserOperationV06(**fields, init_code=init_code)
        else:
            deploying: Any = {"factory": factory.factory, "factory_data": factory.data} if factory else {}
            draft = UserOperationV07(**fields, **deploying)
        paymaster, is_final = self._paymaster, True
        where: Any = {"entry_point": self.entry_point, "chain_id": self.chain_id, "deadline": deadline}
        if paymaster is not None:
            draft, is_final = await paymaster.stub(draft, **where)
        gas: dict[str, Any] = await bundler.estimate_gas(draft, deadline=deadline)
        if not (isinstance(draft, UserOperationV07) and draft.paymaster is not None):
            gas = {name: value for name, value in gas.items() if not name.startswith("paymaster")}
        gas["verification_gas_limit"] += secrets.randbelow(_SPREAD)
        draft = evolve(draft, **gas)
        if paymaster is not None and not is_final:
            draft = await paymaster.sponsor(draft, **where)
        check_cost("this operation", gas_cost(draft), self._cost_limit)
        return evolve(draft, signature=b"")

    async def _price(self, deadline: Deadline) -> GasPrice:
        """Return the bundler's price of gas, if it is of the size of the chain's own; without one the chain's."""
        price = await self._bundler.gas_price(deadline=deadline)
        if price is None:
            return await self._chain.gas_price(deadline=deadline)
        most = max(_PRICE_FACTOR * await self._chain.usual_price(deadline=deadline), _SMALL_PRICE)
        if not price.max_priority_fee_per_gas <= price.max_fee_per_gas <= most:
            raise ProtocolError(
                f"the bundler's price of gas is {price.max_fee_per_gas} wei with a tip of "
                f"{price.max_priority_fee_per_gas}, and at most {most} is allowed by the chain's own price",
                hint="Nothing was signed. Use another bundler, or another rpc_url if the node is wrong",
            )
        return price

    def _deployment(self) -> FactoryCall:
        found = self.kind.deployment(self.owner, self._salt)
        if found is None and isinstance(self.kind, Nexus):
            raise ConfigurationError(
                f"the EOA {self.owner} does not run the code of {self.kind.implementation}",
                hint="Its owner delegates it: delegate(), or send_user_operation() with an authorisation",
            )
        if found is None:
            raise ConfigurationError(
                "the account is not deployed, and its kind has no factory", hint="Deploy it first"
            )
        return found

    async def _find_address(self, deadline: Deadline) -> Address:
        if self._address is None:
            found = self._deployment()
            expected = None if found.address is None else parse_address("address", found.address)
            if expected is not None and self._chain_or_none is None:
                return expected
            (address,) = await self._chain.read(
                found.factory, found.address_function, found.address_arguments, "(address)", deadline=deadline
            )
            if address != (expected or address):
                raise ProtocolError(
                    f"the node says that the account's address is {address}, but its factory would make {found.address}",
                    hint="Send nothing to either. Check rpc_url, or whether the chain has another factory at this address",
                )
            self._address = Address(address)
        return self._address

    async def _look_deployed(self, deadline: Deadline) -> bool:
        if not self._is_deployed:
            code = await self._chain.code(await self._find_address(deadline), deadline=deadline)
            if isinstance(self.kind, Nexus) and self.kind.is_delegated:
                # Asked each time: its owner may change that.
                return code == delegation_code(self.kind.implementation)
            self._is_deployed = bool(code)
        return self._is_deployed

    async def _fetch_nonce(self, key: int, deadline: Deadline) -> int:
        return await self._chain.nonce(
            self.entry_point, await self._find_address(deadline), key, deadline=deadline
        )

    async def _users_of_nonce(self, nonce: int, deadline: Deadline) -> frozenset[str]:
        sender = await self._find_address(deadline)
        return await self._chain.users_of_nonce(self.entry_point, sender, nonce, deadline=deadline)

    async def _check_chain(self, deadline: Deadline) -> None:
        """Check, once, that bundler and node are on the account's chain: nothing is signed for another one."""
        if self._is_checked:
            return
        for name, source in (("bundler_url", self._bundler), ("rpc_url", self._chain)):
            found = await source.service.chain_id(deadline=deadline)
            if found != self.chain_id:
                raise InvalidFieldError(
                    name,
                    f"is on chain {found}, but the account is on chain {self.chain_id}",
                    hint="Nothing was signed or sent",
                )
        self._is_checked = True

    @property
    def _chain(self) -> Chain:
        if self._chain_or_none is None:
            raise ConfigurationError(
                "a node of the chain is needed, but no rpc_url was given",
                hint="Give rpc_url: a node of the chain, over HTTP",
            )
        return self._chain_or_none

    def _deadline(self, timeout_s: TimeSpan | None) -> Deadline:
        self._loop.check()
        return Deadline(self._timeouts.total_s if timeout_s is None else check_seconds("timeout", timeout_s))

    async def aclose(self) -> None:
        """Close the connections that were opened for this account. May be called twice."""
        if self._is_shared:
            return
        await self._bundler.service.aclose()
        if self._chain_or_none is not None:
            await self._chain_or_none.service.aclose()
        if self._paymaster is not None:
            await self._paymaster.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def read_calls(calls: Call | Iterable[Call]) -> tuple[Call, ...]:
    """Return one call or several as a tuple."""
    found = (calls,) if isinstance(calls, Call) else check_list("calls", calls)
    if not found or not all(isinstance(call, Call) for call in found):
        raise InvalidFieldError("calls", "must be a Call, or several")
    return found


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
    cost_limit: int = DEFAULT_COST_LIMIT,
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
        paymaster_context: The service's own parameters, for example a policy's id.
        biconomy_paymaster_api_key: The API key of Biconomy's paymaster, instead of paymaster_url.
        paymaster: A paymaster of your own making, instead of either; it is closed with the client.
        account: The kind of account; ``SimpleAccount("v0.7.0")`` if None, and ``BiconomyV2()`` with Biconomy's
            paymaster.
        address: The account's address; if None, its factory is asked.
        owner: The account's owner, if that is not the signer: a session may sign for an account with another owner.
        salt: Tells several accounts of one owner apart.
        entry_point: The entry point; the well-known one of the account's version if None. The one of another version is
            refused.
        chain_id: The chain; if None, the one in the bundler's URL (…/api/v2/80002/… or v3), or else the bundler is asked.
        cost_limit: Most wei that the gas of one operation may cost, whoever pays for it: all its gas limits times its
            ``max_fee_per_gas``, as the entry point reserves it. By default a tenth of one unit of the chain's currency.
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
            "paymaster_url", "excludes biconomy_paymaster_api_key and paymaster: give one of the three"
        )
    kind = account or (BiconomyV2() if biconomy_paymaster_api_key is not None else SimpleAccount())
    if getattr(kind, "version", None) not in ENTRY_POINTS or not callable(getattr(kind, "nonce_key", None)):
        raise InvalidFieldError(
            "account",
            f"must be a kind of account, not {type(account).__name__}",
            hint="A custom kind must have every method of AccountKind",
        )
    if paymaster is not None and not callable(getattr(paymaster, "aclose", None)):
        raise InvalidFieldError("paymaster", f"must be a paymaster, not {type(paymaster).__name__}")
    check_int("salt", salt, least=0, most=2**256 - 1)
    check_int("cost_limit", cost_limit, least=1, most=2**256 - 1)
    urls = {"bundler_url": bundler_url, "rpc_url": rpc_url, "paymaster_url": paymaster_url}
    for name, url in urls.items():
        if isinstance(url, str):
            check_url(name, url, schemes=("https", "http"))
        elif url is not None:
            check_transport(name, url)
    limits = setting("timeouts", timeouts, Timeouts)
    contract = check_entry_point(entry_point or ENTRY_POINTS[kind.version], kind.version, named=entry_point)
    owner_address = parse_address("owner" if owner else "signer", owner or _address_of(signer))
    known = None if address is None else parse_address("address", address)
    if isinstance(kind, Nexus) and kind.is_delegated:
        if known not in (None, owner_address):
            raise InvalidFieldError("address", f"must be the owner's, {owner_address}: a delegated EOA's is")
        known = owner_address

    def service(name: str, url: str | Transport) -> JsonRpcService:
        return JsonRpcService(name, url, options=options, retry=retry, attempt_s=limits.attempt_s)

    bundler = Bundler(service("bundler", bundler_url), entry_point=contract)
    chain = None if rpc_url is None else Chain(service("node", rpc_url))
    try:
        if chain_id is None:
            chain_id = chain_in_url(bundler_url)
        if chain_id is None:
            chain_id = await bundler.service.chain_id(deadline=Deadline(limits.total_s))
        check_int("chain_id", chain_id, least=1, most=MAX_SAFE_INT)
    except BaseException:
        await bundler.service.aclose()
        raise
    if paymaster_url is not None:
        paymaster = Erc7677Paymaster(service("paymaster", paymaster_url), context=paymaster_context)
    elif biconomy_paymaster_api_key is not None:
        key = check_text("biconomy_paymaster_api_key", biconomy_paymaster_api_key, most=256)
        paymaster = BiconomyPaymaster(service("paymaster", f"{_BICONOMY_PAYMASTER}/{chain_id}/{key}"))
    operations = WalletSigner(signer) if isinstance(signer, MessageWallet) else None
    return SmartAccountClient(
        kind=kind,
        signer=signer if isinstance(signer, UserOperationSigner) else operations,
        wallet=None if isinstance(signer, UserOperationSigner) else signer,
        bundler_url=bundler_url if isinstance(bundler_url, str) else None,
        bundler=bundler,
        chain=chain,
        paymaster=paymaster,
        chain_id=chain_id,
        owner=owner_address,
        address=known,
        salt=salt,
        cost_limit=cost_limit,
        timeouts=limits,
    )


def _address_of(signer: object) -> str:
    address = getattr(signer, "address", None)
    if not isinstance(address, str):
        raise InvalidFieldError("signer", "must be a wallet or a SessionSigner: it has no address")
    return address
