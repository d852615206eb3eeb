"""
Sessions on chain: a Biconomy Smart Account V2 that obeys a distributed key within the owner's policies.

The chain keeps one root for each account; the leaves are in the session store, one record for each. Which records are in the
tree is found out by the root alone: a change that was sent is counted only when the chain has its root. Changes are made in
one nonce lane, each on condition that the root is still the one that it was computed from, so that none undoes another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations, groupby, islice
from operator import attrgetter
from typing import Any, Literal, Protocol

from attrs import evolve, field, frozen

from dan_async._values import (
    MAX_LIFETIME_S,
    MAX_SAFE_INT,
    check_instance,
    check_list,
    check_not_milliseconds,
    check_reference,
    check_text,
    from_hex,
    in_seconds,
    setting,
)
from dan_async.crypto.abi import encode_call
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    DanError,
    DuplicateUserOperationError,
    InvalidFieldError,
    PermissionDeniedError,
    RecordConflictError,
    UserOperationError,
    UserOperationInDoubtError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
)
from dan_async.network import EphemeralKeyReport
from dan_async.protocols.fields import new_request_id
from dan_async.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.storage.base import SessionFilter, SessionStore, StoredSession
from dan_async.types import Address, Clock, Hex, TimeSpan
from dan_async.user_operation import (
    ENTRY_POINTS,
    Call,
    UserOperationReceipt,
    UserOperationV06,
    UserOperationV07,
)
from dan_async.userops.account_kinds import BiconomyV2
from dan_async.userops.service import pause
from dan_async.userops.session_policies import (
    DUMMY_SESSION_SIGNATURE,
    AbiPolicy,
    Erc20Policy,
    MerkleTree,
    Policy,
    SessionContracts,
    SessionLeaf,
    batch_session_signature,
    node_permissions,
    read_sessions,
    root_of,
    session_signature,
    write_sessions,
)
from dan_async.userops.session_policies import dan_message as published_message
from dan_async.userops.sign_user_operation import MessageSigner, SessionSigner
from dan_async.userops.smart_account import SmartAccountClient, read_calls

_log = logging.getLogger(__name__)

#: The owner's nonce lane in which the root is set.
_LANE = "session tree"

#: How often a change is computed anew, or the tree looked for again, because the root has moved.
_TRIES = 64

#: How many sets of changes under way are compared with the root.
_MOST_SETS = 1024

#: For how long the node may be behind the bundler, in seconds.
_BEHIND_S = 15.0

#: For how long an operation's receipt is waited for before it is asked whether the root has moved, in seconds.
_PATIENCE_S = 8.0


class DistributedKeys(MessageSigner, Protocol):
    """The part of ``DanClient`` that sessions on chain need."""

    async def generate_session_key(self, *_: Any, **parameters: Any) -> DanSessionKeyPayload:
        """Make a session key; see ``DanClient.generate_session_key``."""

    async def revoke_ephemeral_key(self, *_: Any, **parameters: Any) -> EphemeralKeyReport:
        """Revoke a session's ephemeral key; see ``DanClient.revoke_ephemeral_key``."""


# --- the tree ---------------------------------------------------------------------------------------------------------

#: pending: its operation is being sent; doubtful: its change ended with an error and may be executed all the same; granted:
#: in the tree; revoking: in the tree, and a change without it is being sent.
_Status = Literal["pending", "doubtful", "granted", "revoking"]


@frozen(kw_only=True)
class _Entry:
    """A record of the store, read."""

    record: StoredSession
    account: Address
    manager: Address
    position: int
    status: _Status
    change: str
    leaf: SessionLeaf

    @classmethod
    def of(cls, record: StoredSession) -> _Entry:
        found = json.loads(record.grant)
        return cls(record=record, **found | {"leaf": SessionLeaf.from_dict(found["leaf"])})

    def stored(self) -> StoredSession:
        members = ("account", "manager", "position", "status", "change")
        grant = {name: getattr(self, name) for name in members} | {"leaf": self.leaf.to_dict(extended=True)}
        return evolve(self.record, grant=json.dumps(grant, separators=(",", ":")))


def _in_order(entries: Iterable[_Entry]) -> tuple[_Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.position, entry.record.record_id)))


def _root_of(entries: Iterable[_Entry]) -> bytes:
    return root_of(entry.leaf for entry in _in_order(entries))


def _sets_of_changes(entries: Sequence[_Entry]) -> Iterator[tuple[_Entry, ...]]:
    """Yield the sets of changes under way that may have been made, the smallest first."""
    change = attrgetter("change")
    under_way = sorted((entry for entry in entries if entry.status != "granted"), key=change)
    changes = [tuple(group) for _, group in groupby(under_way, change)]
    sets = (chosen for size in range(len(changes) + 1) for chosen in combinations(changes, size))
    return (tuple(entry for change in chosen for entry in change) for chosen in islice(sets, _MOST_SETS))


@frozen
class _Tree:
    """The leaves on the chain, in order, under the root that it has; *loose* records are not among them."""

    root: bytes
    entries: tuple[_Entry, ...]
    loose: tuple[_Entry, ...] = ()

    def proof(self, leaf: SessionLeaf) -> tuple[bytes, ...] | None:
        hashes = [entry.leaf.hash for entry in self.entries]
        return MerkleTree(hashes).proof(leaf.hash) if leaf.hash in hashes else None


class _RootMovedError(DanError):
    """Somebody else has changed the tree meanwhile."""


class _SessionTree:
    """The sessions of one account: its records, and the changes of its root."""

    def __init__(
        self,
        account: SmartAccountClient,
        store: SessionStore,
        contracts: SessionContracts | None,
        clock: Clock,
    ) -> None:
        if not isinstance(account, SmartAccountClient) or not isinstance(account.kind, BiconomyV2):
            raise InvalidFieldError("smart_account", "must be the client of a BiconomyV2 account")
        if not isinstance(store, SessionStore):
            raise InvalidFieldError("store", f"must be a session store, not {type(store).__name__}")
        self.account, self.store, self.clock = account, store, clock
        self.contracts = setting("contracts", contracts, SessionContracts)
        self.kind = account.kind
        self._known: _Tree | None = None

    async def root(self) -> bytes:
        """Return the root on the chain; zero for an account without sessions."""
        address = await self.account.get_address()
        signature = "getSessionKeys(address)"
        (root,) = await self.account.read_contract(self.contracts.manager, signature, (address,), "(bytes32)")
        return bytes(root)

    async def current(self) -> _Tree:
        """Return the leaves that the chain's root stands for."""
        for _ in range(_TRIES):
            root = await self.root()
            if self._known is not None and self._known.root == root:
                return self._known
            self._known = await self._find(root)
            if self._known is not None:
                return self._known
            # Another program may have made a change, and noted it in the store, after the root was read.
            if await self.root() == root:
                break
        raise RecordConflictError(
            "the account's root on chain is not that of the leaves in the store",
            hint="Another program has granted or revoked sessions: import its sessions, so that they are kept",
        )

    async def _find(self, root: bytes) -> _Tree | None:
        """
        Find the records that the root stands for, and note in the store what it shows about changes under way.

        None if there are no such records.
        """
        entries = await self._entries()
        for made in _sets_of_changes(entries):
            # A change that was made puts its pending leaves into the tree, and takes its leaves on revocation out of it.
            inside = [e for e in entries if (e in made) is (e.status in ("pending", "doubtful"))]
            if _root_of(inside) != root:
                continue
            for entry in made:
                if entry.status == "revoking":
                    await self.drop(entry)
            granted = [await self._put(e, status="granted") if e in made else e for e in inside]
            loose = [e for e in entries if e not in made and e not in inside]
            return _Tree(root, _in_order(granted), tuple(loose))
        return None

    async def _entries(self) -> list[_Entry]:
        """
        Return the account's leaves.

        Records that were revoked by other means are final, and their leaves may be in the tree still: the root alone says.
        """
        place = (await self.account.get_address(), self.contracts.manager)
        where = SessionFilter(owner=self.account.owner, chain_id=self.account.chain_id)
        entries = [_Entry.of(record) async for record in self.store.find(where) if record.grant]
        return [
            entry
            if entry.record.state == "active"
            else evolve(entry, status="revoking", change=entry.record.record_id)
            for entry in entries
            if (entry.account, entry.manager) == place
        ]

    async def _put(self, entry: _Entry, **changes: Any) -> _Entry:
        changed = evolve(entry, **changes)
        if entry.record.state == "active":
            await self.store.replace(changed.stored(), expected="active")
        return changed

    async def drop(self, entry: _Entry) -> None:
        """Mark a leaf that is in no tree any more; it is purged like any session that has ended."""
        now = self.clock()
        if entry.record.session is None or entry.record.state != "active":
            await self.store.delete(entry.record.record_id)
            return
        revoked = evolve(entry.record.changed("revoked", now=now), expires_at=int(now), grant="")
        with suppress(RecordConflictError):  # somebody else has seen it, too
            await self.store.replace(revoked, expected="active")

    async def add(self, leaf: SessionLeaf, position: int, status: _Status, change: str) -> _Entry:
        """Store a leaf."""
        session = leaf.session
        if session is not None and not isinstance(session, DanSessionKeyPayload):
            try:
                session = DanSessionKeyPayload.from_dict(session.to_dict(extended=True))
            except InvalidFieldError:
                session = None
        now = int(self.clock() * 1000)
        record = StoredSession(
            record_id=new_request_id(),
            owner=self.account.owner,
            chain_id=self.account.chain_id,
            state="active",
            expires_at=MAX_SAFE_INT,  # it stays in the tree until it is taken out
            created_at=now,
            updated_at=now,
            grant="{}",
            session=session,
        )
        entry = _Entry(
            record=record,
            account=await self.account.get_address(),
            manager=self.contracts.manager,
            position=position,
            status=status,
            change=change,
            leaf=leaf,
        )
        await self.store.save(entry.stored())
        return evolve(entry, record=entry.stored())

    async def adopt(self, leaves: Sequence[SessionLeaf]) -> tuple[SessionLeaf, ...]:
        """Keep these leaves, in this order, as those of the tree on the chain; others are in it no more."""
        known = {entry.leaf.hash: entry for entry in await self._entries()}
        adopted = []
        for position, leaf in enumerate(leaves):
            entry = known.pop(leaf.hash, None)
            if entry is None:
                entry = await self.add(leaf, position, "granted", "")
            else:
                entry = await self._put(entry, position=position, status="granted", change="")
            adopted.append(entry.leaf)
        for entry in known.values():
            if entry.status in ("granted", "revoking"):
                await self.drop(entry)
        self._known = None
        return tuple(adopted)

    async def grant(self, leaves: Sequence[SessionLeaf], *, batch: bool, timeout: TimeSpan | None) -> Hex:
        """Put leaves into the tree; return the transaction's hash once the chain has them."""
        return await self._change(leaves, frozenset(), batch=batch, timeout=timeout)

    async def revoke(self, leaves: Iterable[SessionLeaf], *, timeout: TimeSpan | None) -> Hex | None:
        """Take leaves out of the tree; None if none of them is in it."""
        gone = frozenset(leaf.hash for leaf in leaves)
        tree = await self.current()
        if not any(entry.leaf.hash in gone for entry in tree.entries):
            return None
        return await self._change((), gone, batch=False, timeout=timeout)

    async def _change(
        self, leaves: Sequence[SessionLeaf], gone: frozenset[bytes], *, batch: bool, timeout: TimeSpan | None
    ) -> Hex:
        change, added = secrets.token_hex(8), list[_Entry]()
        for _ in range(_TRIES):
            before = await self.current()
            if leaves and not added:
                known = [entry.position for entry in (*before.entries, *before.loose)]
                for position, leaf in enumerate(leaves, max(known, default=-1) + 1):
                    added.append(await self.add(leaf, position, "pending", change))
            removed = [entry for entry in before.entries if entry.leaf.hash in gone]
            removed = [await self._put(entry, status="revoking", change=change) for entry in removed]
            after = _root_of([*(e for e in before.entries if e.leaf.hash not in gone), *added])
            try:
                sent = await self._send(before.root, after, batch=batch, timeout=timeout)
            except _RootMovedError:
                self._known = None
                continue
            except DanError as error:
                self._known = None
                await self._give_up([*added, *removed], error)
                raise
            deadline = Deadline(_BEHIND_S)
            while await self.root() == before.root and await pause(deadline):
                pass  # the node is behind the bundler
            now = {entry.leaf.hash for entry in (await self.current()).entries}
            if not now >= {leaf.hash for leaf in leaves} or now & gone:
                raise RecordConflictError(
                    f"the change of transaction {sent} does not show in the account's root",
                    hint="The node is behind, or another program has undone it",
                )
            for entry in before.loose:
                if entry.status == "doubtful":  # it had failed before this one used up its nonce
                    await self.store.delete(entry.record.record_id, expected="active")
            return sent
        raise RecordConflictError("others keep changing the account's sessions", hint="Call again")

    async def _send(self, before: bytes, after: bytes, *, batch: bool, timeout: TimeSpan | None) -> Hex:
        """Set the root if it is what it was *before*; return the transaction's hash."""
        calls = [Call(self.contracts.manager, 0, encode_call("setMerkleRoot(bytes32)", after))]
        address = await self.account.get_address()
        wanted = (self.contracts.manager, self.contracts.router) if batch else (self.contracts.manager,)
        missing = [module for module in wanted if not await self.is_enabled(module)]
        calls[:0] = [self.kind.enable_module(address, module) for module in missing]

        async def check() -> None:
            if await self.root() != before:
                raise _RootMovedError("the root has moved")

        try:
            sent = await self.account.send_user_operation(calls, lane=_LANE, timeout=timeout, check=check)
        except DuplicateUserOperationError as error:
            if error.user_operation_hash is None:
                raise
            sent = Hex(error.user_operation_hash)
        return (await self.account.wait_for_receipt(sent, timeout=timeout)).transaction_hash

    async def is_enabled(self, module: Address) -> bool:
        """Return whether the account is deployed and has a module."""
        if not await self.account.is_deployed():
            return False
        address = await self.account.get_address()
        (found,) = await self.account.read_contract(address, "isModuleEnabled(address)", (module,), "(bool)")
        return bool(found)

    async def _give_up(self, entries: Iterable[_Entry], error: DanError) -> None:
        """Note that a change has failed: its leaves are forgotten unless its operation may be executed yet."""
        is_certain = isinstance(error, UserOperationRevertedError) or not isinstance(
            error, UserOperationError
        )
        for entry in entries:
            if entry.status == "revoking":
                if is_certain:
                    await self._put(entry, status="granted")
            elif is_certain:
                await self.store.delete(entry.record.record_id, expected="active")
            else:
                await self._put(entry, status="doubtful")


# --- a session --------------------------------------------------------------------------------------------------------


@frozen
class _SessionForm(BiconomyV2):
    """The form of one operation of a session: which leaf allows each of its calls."""

    contracts: SessionContracts = field(kw_only=True)
    proven: tuple[tuple[SessionLeaf, tuple[bytes, ...]], ...] = field(kw_only=True)

    def wrap_signature(self, signature: bytes) -> bytes:
        if len(self.proven) == 1:
            return session_signature(signature, *self.proven[0], self.contracts)
        return batch_session_signature(signature, self.proven, self.contracts)

    @property
    def dummy_signature(self) -> bytes:
        return self.wrap_signature(DUMMY_SESSION_SIGNATURE)


class _PublishedSigner(SessionSigner):
    """Has DAN sign the text that the published package sends, which every gateway of it reads."""

    async def sign_user_operation(
        self, operation: UserOperationV06 | UserOperationV07, *, entry_point: Address, chain_id: int
    ) -> bytes:
        if not isinstance(operation, UserOperationV06):
            raise InvalidFieldError("operation", "must be one of entry point v0.6")
        named: dict[str, Any] = {} if entry_point == ENTRY_POINTS["v0.6.0"] else {"entry_point": entry_point}
        message = published_message(operation, entry_point=entry_point, chain_id=chain_id)
        signature = await self._client.sign_message(
            message, self.session, request_type="accountAbstractionTx", **named
        )
        return from_hex(signature, field="signature", length=65)


@frozen(kw_only=True)
class SessionRevocation:
    """
    The outcome of a revocation, on the chain and at the nodes: each by itself ends the session.

    Args:
        on_chain: The transaction that took its leaves out of the tree; None if they were in it no more; or the error.
        at_nodes: The nodes' confirmations; or the error.
    """

    on_chain: Hex | DanError | None
    at_nodes: EphemeralKeyReport | DanError

    @property
    def is_complete(self) -> bool:
        """Whether both are done."""
        return not (isinstance(self.on_chain, DanError) or isinstance(self.at_nodes, DanError))


@frozen(eq=False, repr=False)
class SessionOnChain:
    """
    A session that the account's modules know: agents act with it, and no owner signs.

    ``create_session_with_distributed_key`` and ``open_session_on_chain`` make it. Several may be used at once
    on one account.

    Attributes:
        session: The DAN session.
        leaves: Its leaves, one for each policy.
        account: The account, with the session as its signer: for its nonce lanes and receipts.
    """

    _tree: _SessionTree
    session: DanModuleInfo
    leaves: tuple[SessionLeaf, ...]
    _client: DistributedKeys
    account: SmartAccountClient = field(init=False)

    @account.default
    def _signed(self) -> SmartAccountClient:
        return self._tree.account.signed_by(_PublishedSigner(self._client, self.session))

    @property
    def session_id(self) -> str:
        """Its name in the store: that of its first leaf."""
        return self.leaves[0].session_id

    def __repr__(self) -> str:
        return f"SessionOnChain({self.session_id!r}, {self.session.session_key_eoa!r})"

    async def send_transaction(
        self, call: Call, *, lane: str = "", timeout: TimeSpan | None = None
    ) -> UserOperationReceipt:
        """
        Make one call within the session's policies, and wait until it is on the chain.

        Args:
            call: The call.
            lane: The nonce lane; see ``SmartAccountClient.send_user_operation``.
            timeout: Seconds for sending, and again for the receipt, instead of the account's.

        Returns:
            The receipt.

        Raises:
            PermissionDeniedError: No policy allows it, or the session is not in the account's tree on chain. *rule* names
                the policy and its part, or ``merkleRoot``; nothing was signed.
            RecordConflictError: The tree on chain has leaves that the store does not know.
            UserOperationRevertedError: The call was reverted.
            DanError: As for ``SmartAccountClient.send_user_operation`` and ``wait_for_receipt``.
        """
        return await self._send((check_instance("call", call, Call, "a Call"),), lane, timeout)

    async def send_transactions(
        self, calls: Iterable[Call], *, lane: str = "", timeout: TimeSpan | None = None
    ) -> UserOperationReceipt:
        """
        Make several calls together or not at all, through the batched session router, and wait.

        The router must be a module of the account: *batch* of ``create_session_with_distributed_key``.

        Args:
            calls: The calls, each within one of the policies.
            lane: The nonce lane.
            timeout: As for ``send_transaction``.

        Returns:
            The receipt.

        Raises:
            ConfigurationError: The router is not a module of the account.
            DanError: As for ``send_transaction``.
        """
        found = read_calls(calls)
        if len(found) > 1 and not await self._tree.is_enabled(self._tree.contracts.router):
            raise ConfigurationError(
                "the batched session router is not a module of the account",
                hint="Have the owner enable it: grant a session with batch=True, or send the calls one by one",
            )
        return await self._send(found, lane, timeout)

    async def _send(
        self, calls: tuple[Call, ...], lane: str, timeout: TimeSpan | None
    ) -> UserOperationReceipt:
        tree, sent = await self._submit(calls, lane, timeout)
        patience = _PATIENCE_S if timeout is None else min(in_seconds(timeout), _PATIENCE_S)
        try:
            with suppress(UserOperationTimeoutError):
                return await self.account.wait_for_receipt(sent, timeout=patience)
            is_dropped = False
            with suppress(DanError):  # a node that fails says nothing about it: then it is waited for
                is_dropped = await self._tree.root() != tree.root
            if is_dropped and self.account.lanes.forget(lane, user_operation_hash=sent):
                sent = await self._replace(sent, calls, lane, timeout)
            return await self.account.wait_for_receipt(sent, timeout=timeout)
        except asyncio.CancelledError:  # nobody hears of it, and the same calls may be asked for again
            self.account.lanes.doubt_again(lane, sent)
            raise

    async def _replace(self, sent: Hex, calls: tuple[Call, ...], lane: str, timeout: TimeSpan | None) -> Hex:
        """
        Send another operation under the nonce of one that was dropped, since its proof is of a tree before.

        It excludes the first one for good. Return the hash of the one that is to be waited for.
        """
        try:
            _, sent = await self._submit(calls, lane, timeout)
        except UserOperationInDoubtError:
            raise
        except DuplicateUserOperationError as error:
            if error.user_operation_hash != sent:
                raise
        except DanError as error:
            # There is no second one, for whatever reason; the first may have been executed all the same.
            _log.debug("the user operation %s is not replaced: %s", sent, error.message)
        return sent

    async def _submit(
        self, calls: tuple[Call, ...], lane: str, timeout: TimeSpan | None
    ) -> tuple[_Tree, Hex]:
        """Send an operation; return the tree of its proofs, and its hash."""
        refused: BundlerError | None = None
        while True:
            tree = await self._tree.current()
            form = self._form(calls, tree)
            try:
                sent = await self.account.send_user_operation(calls, lane=lane, timeout=timeout, kind=form)
            except BundlerError as error:
                # A proof of the tree before is refused. With another proof the operation takes the same nonce.
                if refused is not None or await self._tree.root() == tree.root:
                    raise
                refused = error
            except DuplicateUserOperationError as error:
                if refused is None or error.user_operation_hash != refused.user_operation_hash:
                    raise
                # It was executed although the bundler had refused it.
                return tree, Hex(error.user_operation_hash or "")
            else:
                return tree, sent

    async def check(self, calls: Call | Iterable[Call]) -> None:
        """
        Check calls as the contracts will, without sending anything.

        Args:
            calls: One call or several.

        Raises:
            PermissionDeniedError: They would be refused; *rule* says by what.
            RecordConflictError: The tree on chain has leaves that the store does not know.
        """
        self._form(read_calls(calls), await self._tree.current())

    def _form(self, calls: Sequence[Call], tree: _Tree) -> _SessionForm:
        """Choose a leaf for each call. If none allows one, the objection is that of the policy which came closest."""
        now, contracts = self._tree.clock(), self._tree.contracts
        proofs = [tree.proof(leaf) for leaf in self.leaves]
        if not any(proof is not None for proof in proofs):
            raise PermissionDeniedError(
                "merkleRoot",
                "the session is not in the account's tree on chain",
                hint="It was revoked, or never granted. Nothing was signed",
            )
        proven = []
        for call in calls:
            denials: list[tuple[bool, str, str]] = []
            for position, (leaf, proof) in enumerate(zip(self.leaves, proofs, strict=True)):
                if proof is None:
                    continue
                try:
                    leaf.check_call(call, contracts, now=now)
                except PermissionDeniedError as denied:
                    is_far = denied.rule in ("target", "token")
                    denials.append((is_far, f"policies[{position}].{denied.rule}", denied.problem))
                    continue
                proven.append((leaf, proof))
                break
            else:
                _, rule, problem = min(denials)
                raise PermissionDeniedError(rule, problem, hint="Nothing was signed")
        kind = self._tree.kind
        return _SessionForm(kind.factory, kind.module, contracts=contracts, proven=tuple(proven))

    async def revoke(self, *, timeout: TimeSpan | None = None, **parameters: Any) -> SessionRevocation:
        """
        End the session: remove its leaves from the tree on the chain, and revoke its ephemeral key at the nodes.

        Each is tried even if the other fails. Call again until the outcome is complete.

        Args:
            timeout: Seconds for each of the two, instead of the usual.
            **parameters: *wallet* or *auth* of ``DanClient.revoke_ephemeral_key``; the account's owner if none is given.

        Returns:
            Which of the two was done, and the error of one that failed, which is not raised.
        """
        on_chain: Hex | DanError | None
        at_nodes: EphemeralKeyReport | DanError
        owner = self._tree.account.signer
        try:
            if owner is None:
                raise ConfigurationError(
                    "the owner's wallet does not sign for the account, so the root stays"
                )
            on_chain = await self._tree.revoke(self.leaves, timeout=timeout)
        except DanError as error:
            on_chain = error
        if not parameters:
            parameters = {"wallet": owner}
        try:
            at_nodes = await self._client.revoke_ephemeral_key(self.session, timeout=timeout, **parameters)
            await self._mark_revoked()
        except DanError as error:
            at_nodes = error
        return SessionRevocation(on_chain=on_chain, at_nodes=at_nodes)

    async def _mark_revoked(self) -> None:
        """Mark the record that the client itself keeps of the key, if it is in the same store."""
        store, account = self._tree.store, self._tree.account
        where = SessionFilter(owner=account.owner, chain_id=account.chain_id, state="active")
        async for record in store.find(where):
            if record.session and not record.grant and record.session.mpc_key_id == self.session.mpc_key_id:
                await store.change_state(record.record_id, "revoked", expected="active")


# --- the offering -----------------------------------------------------------------------------------------------------


def _policies(policy: object) -> tuple[Policy, ...]:
    found = (policy,) if isinstance(policy, AbiPolicy | Erc20Policy) else check_list("policy", policy)
    if not found or not all(isinstance(one, AbiPolicy | Erc20Policy) for one in found):
        raise InvalidFieldError("policy", "must be an AbiPolicy or an Erc20Policy, or several")
    return found


def _check_client(client: object) -> None:
    if not callable(getattr(client, "generate_session_key", None)):
        raise InvalidFieldError("client", f"must be a DanClient, not {type(client).__name__}")


def _lifetime_s(policies: Sequence[Policy], now: float) -> int:
    """Return how long the key lives: as long as the policy that lasts longest, and a year at most."""
    ends = [policy.valid_until for policy in policies]
    if any(end and end <= now for end in ends):
        raise InvalidFieldError("valid_until", "is over already")
    for end in ends:
        check_not_milliseconds("valid_until", end, now=now, ends=now + MAX_LIFETIME_S)
    longest = MAX_LIFETIME_S if 0 in ends else max(ends) - int(now)
    return min(longest, MAX_LIFETIME_S)


async def create_session_with_distributed_key(
    smart_account: SmartAccountClient,
    policy: Policy | Iterable[Policy],
    *,
    client: DistributedKeys,
    store: SessionStore,
    session_id: str | None = None,
    permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
    batch: bool = False,
    contracts: SessionContracts | None = None,
    clock: Clock = time.time,
    timeout: TimeSpan | None = None,
    **parameters: Any,
) -> SessionOnChain:
    """
    Make a distributed key, and have the account obey it within policies.

    One operation of the owner does what is needed: deploy the account, enable the session key manager, set the root.
    Sessions that were granted before stay as they are. A grant that fails leaves no leaf in the tree; two at a time do not
    undo each other, whichever programs make them, if they share the store.

    Args:
        smart_account: The account: ``create_smart_account_client(signer=wallet, account=BiconomyV2(), rpc_url=…, …)``.
        policy: One policy, or several.
        client: An open ``DanClient``.
        store: Where the leaves and the session are kept, one record for each policy. Without all leaves of an account none
            of its sessions can be used.
        session_id: The session's name, unique in the account; 10 random hex digits if None. Of several policies the further
            ones get ``-1``, ``-2`` and so on.
        permissions: The limits at the nodes: ``"from-policy"`` for those of the policies, as far as nodes can check them
            (no conditions on arguments other than those of ERC-20); else as for ``generate_session_key``.
        batch: Whether to enable the batched session router too, for ``send_transactions``.
        contracts: The contracts; Biconomy's own if None.
        clock: The wall clock, in Unix seconds.
        timeout: Seconds for the key, and again for the operation and its receipt, instead of the usual.
        **parameters: Further parameters of ``DanClient.generate_session_key``, but for *duration*: the key lives as long as
            the policy that lasts longest, and a year at most.

    Returns:
        The session, once the chain has it.

    Raises:
        InvalidFieldError: An argument is wrong; nothing was made.
        RecordConflictError: The account has sessions that the store does not know; nothing was made.
        DanError: The key was not made (as for ``generate_session_key``), or not granted (as for ``send_user_operation``); a
            note says which key was made in vain.

    Example:
        >>> policy = Erc20Policy(token=usdc, recipient=shop, max_amount=10**6, valid_until=tomorrow)
        >>> session = await create_session_with_distributed_key(account, policy, client=dan, store=store)
        >>> await session.send_transaction(Call(usdc, 0, encoded_transfer))
    """
    policies = _policies(policy)
    _check_client(client)
    tree = _SessionTree(smart_account, store, contracts, clock)
    lifetime_s = _lifetime_s(policies, clock())
    name = check_reference("session_id", session_id) if session_id is not None else secrets.token_hex(5)
    names = [name, *(f"{name}-{number}" for number in range(1, len(policies)))]
    if "duration" in parameters:
        raise InvalidFieldError("duration", "follows from the policies' valid_until")
    known = {entry.leaf.session_id for entry in (await tree.current()).entries}
    if known & set(names):
        raise InvalidFieldError("session_id", "is the name of another session of the account")
    if permissions == "from-policy":
        address = await smart_account.get_address()
        permissions = node_permissions(policies, account=address, chain_id=smart_account.chain_id)
    session = await client.generate_session_key(
        smart_account_client=smart_account,
        duration=lifetime_s,
        permissions=permissions,
        timeout=timeout,
        **({"chain_id": smart_account.chain_id} | parameters),
    )
    leaves = tuple(
        SessionLeaf.of(
            one,
            session.session_key_eoa,
            tree.contracts,
            session_id=own_name,
            is_named=session_id is not None,
            session=session,
        )
        for one, own_name in zip(policies, names, strict=True)
    )
    try:
        await tree.grant(leaves, batch=batch, timeout=timeout)
    except DanError as error:
        error.add_note(f"The key {session.session_key_eoa} was made, and the account does not obey it.")
        raise
    _log.debug("session %s of account %s is granted", name, await smart_account.get_address())
    return SessionOnChain(tree, session, leaves, client)


async def open_session_on_chain(
    smart_account: SmartAccountClient,
    session_id: str,
    *,
    client: DistributedKeys,
    store: SessionStore,
    contracts: SessionContracts | None = None,
    clock: Clock = time.time,
) -> SessionOnChain:
    """
    Find a session that was granted before, by this program or another one that shares the store.

    Args:
        smart_account: The account. An agent without the owner's wallet names the owner, and any signer:
            ``create_smart_account_client(signer=SessionSigner(…), owner=…, account=BiconomyV2(), …)``.
        session_id: The session's name, or that of one of its leaves.
        client: An open ``DanClient``.
        store: The store.
        contracts: The contracts; Biconomy's own if None.
        clock: The wall clock, in Unix seconds.

    Returns:
        The session with all leaves of its key.

    Raises:
        RecordConflictError: The account has no such session on chain, or sessions that the store does not know.
        InvalidFieldError: The session's key is not a distributed one.
    """
    check_text("session_id", session_id, most=200)
    _check_client(client)
    tree = _SessionTree(smart_account, store, contracts, clock)
    leaves = [entry.leaf for entry in (await tree.current()).entries]
    found = next((leaf for leaf in leaves if leaf.session_id == session_id), None)
    if found is None:
        raise RecordConflictError("the account has no session of that name on chain")
    if found.session is None:
        raise InvalidFieldError("session_id", "is that of a session whose key is not a distributed one")
    own = tuple(leaf for leaf in leaves if leaf.session_key == found.session_key)
    return SessionOnChain(tree, found.session, own, client)


# --- crossing over ----------------------------------------------------------------------------------------------------


async def import_biconomy_sessions(
    smart_account: SmartAccountClient,
    sessions: str | bytes | Mapping[str, Any],
    *,
    store: SessionStore,
    contracts: SessionContracts | None = None,
    clock: Clock = time.time,
) -> tuple[SessionLeaf, ...]:
    """
    Take over the sessions of an account that @biconomy/account has stored.

    The chain decides which of its leaves count: those at the end whose grant had failed are left out. Leaves that the store
    has already are kept; leaves that are in the tree no more are dropped.

    Args:
        smart_account: The account.
        sessions: The value of ``<account>_sessions`` in its local storage or in its file, as text or as an object.
        store: Where to keep them.
        contracts: The contracts; Biconomy's own if None.
        clock: The wall clock, in Unix seconds.

    Returns:
        The leaves of the account, in the order of the tree.

    Raises:
        InvalidFieldError: It is not of that form.
        RecordConflictError: The root on chain is not that of these leaves.
    """
    tree = _SessionTree(smart_account, store, contracts, clock)
    _, leaves = read_sessions(sessions)
    root = await tree.root()
    count = next((n for n in range(len(leaves), -1, -1) if root_of(leaves[:n]) == root), None)
    if count is None:
        raise RecordConflictError(
            "the account's root on chain is not that of these sessions",
            hint="Export the newest state of that store; revoked sessions are in no root",
        )
    return await tree.adopt(leaves[:count])


async def export_biconomy_sessions(
    smart_account: SmartAccountClient,
    *,
    store: SessionStore,
    contracts: SessionContracts | None = None,
    clock: Clock = time.time,
) -> str:
    """
    Return the account's sessions on chain as @biconomy/account stores them.

    Args:
        smart_account: The account.
        store: The store.
        contracts: The contracts; Biconomy's own if None.
        clock: The wall clock, in Unix seconds.

    Returns:
        JSON for ``<account in lower case>_sessions``, in one line. It holds the ephemeral keys: treat it as a secret.

    Raises:
        RecordConflictError: The account has sessions that the store does not know.
    """
    tree = _SessionTree(smart_account, store, contracts, clock)
    return write_sessions([entry.leaf for entry in (await tree.current()).entries])
