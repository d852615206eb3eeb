"""Sessions on chain: granting, using, refusing, revoking, and several at once on one account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dan_async.crypto.abi import encode_call, function_selector
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    ConnectError,
    DanError,
    DuplicateUserOperationError,
    InvalidFieldError,
    PermissionDeniedError,
    ProtocolError,
    QuorumError,
    RecordConflictError,
    RpcError,
    UserOperationInDoubtError,
    UserOperationRevertedError,
)
from dan_async.permissions import parse_permissions
from dan_async.storage import FixedKeys, MemorySessionStore, SessionFilter, StoredSession, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.user_operation import Call
from dan_async.userops import (
    AbiPolicy,
    AbiRule,
    Erc20Policy,
    SessionOnChain,
    SessionSigner,
    SimpleAccount,
    create_session_with_distributed_key,
    export_biconomy_sessions,
    import_biconomy_sessions,
    open_session_on_chain,
    service,
    sessions_on_chain,
)
from dan_async.userops.session_policies import MerkleTree, read_sessions
from tests.unit.userops.biconomy import ACCOUNT, CONTRACTS, NOW, OWNER, BiconomyWorld, FakeDan, owners_account
from tests.unit.userops.services import account_in

ROOT_OF = function_selector("getSessionKeys(address)")
TOKEN, NFT, SHOP = "0x" + "11" * 20, "0x" + "22" * 20, "0x" + "33" * 20
UNTIL = int(NOW) + 3600
POLICY = Erc20Policy(token=TOKEN, recipient=SHOP, max_amount=100, valid_until=UNTIL)
MINT = AbiPolicy(
    target=NFT, function="safeMint(address)", rules=[AbiRule(0, "==", SHOP)], valid_until=UNTIL + 3600
)


def transfer(amount: int = 10, to: str = SHOP) -> Call:
    return Call(TOKEN, 0, encode_call("transfer(address,uint256)", to, amount))


def mint(to: str = SHOP) -> Call:
    return Call(NFT, 0, encode_call("safeMint(address)", to))


class Scene:
    """A chain, a network and a store."""

    def __init__(self) -> None:
        self.world, self.dan = BiconomyWorld(), FakeDan()
        self.store = MemorySessionStore(clock=self.world.clock)

    @property
    def common(self) -> dict[str, Any]:
        return {"client": self.dan, "store": self.store, "clock": self.world.clock}

    async def account(self, **options: Any) -> Any:
        return await owners_account(self.world, **options)

    async def grant(self, policy: Any = POLICY, account: Any = None, **options: Any) -> SessionOnChain:
        account = account or await self.account()
        return await create_session_with_distributed_key(account, policy, **(self.common | options))

    async def grants(self) -> list[StoredSession]:
        where = SessionFilter(state="active")
        return [record async for record in self.store.find(where) if record.grant]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_one_operation_deploys_enables_and_grants(scene: Scene) -> None:
    """The first session of an account that is not there yet; the leaf's root is on the chain."""
    session = await scene.grant()
    (operation,) = scene.world.operations.values()
    assert operation.init_code
    assert scene.world.modules == {CONTRACTS.manager}
    assert scene.world.root == session.leaves[0].hash
    assert [record.session for record in await scene.grants()] == [session.session]


async def test_the_agent_moves_the_token_without_the_owner(scene: Scene) -> None:
    """DAN signs the published text; the chain takes it."""
    session = await scene.grant()
    receipt = await session.send_transaction(transfer(), timeout=timedelta(seconds=5))
    assert scene.world.made == [transfer()]
    assert receipt.is_success
    assert '"callData":"0000189a' in scene.dan.messages[0]


async def test_several_calls_go_through_the_router(scene: Scene) -> None:
    """Each under its own policy, with one signature."""
    session = await scene.grant([POLICY, MINT], batch=True)
    await session.send_transactions([mint(), transfer(), mint()])
    assert scene.world.made == [mint(), transfer(), mint()]
    await session.send_transactions([transfer()])  # one needs no router
    assert len(scene.dan.messages) == 2


async def test_a_router_that_is_no_module_is_named(scene: Scene) -> None:
    """Before anything is signed."""
    session = await scene.grant([POLICY, MINT])
    with pytest.raises(ConfigurationError, match="router"):
        await session.send_transactions([mint(), transfer()])
    assert not scene.dan.messages
    await scene.grant(batch=True)  # another session's grant enables it
    await session.send_transactions([mint(), transfer()])


@pytest.mark.parametrize(
    ("call", "later_s", "rule"),
    [
        (transfer(101), 0, "policies[0].max_amount"),
        (transfer(to=NFT), 0, "policies[0].recipient"),
        (Call(SHOP, 0, transfer().data), 0, "policies[0].token"),
        (mint(to=NFT), 0, "policies[1].rules[0]"),
        (Call(NFT, 0, b"1234" + mint().data[4:]), 0, "policies[1].function"),
        (Call(NFT, 1, mint().data), 0, "policies[1].value_limit"),
        (transfer(), 3601, "policies[0].valid_until"),
        (mint(), -1, "policies[1].valid_after"),
    ],
)
async def test_a_call_outside_the_policy_is_refused_before_gas_is_spent(
    scene: Scene, call: Call, later_s: float, rule: str
) -> None:
    """With the rule; nobody was asked to sign, and nothing was estimated."""
    begin = AbiPolicy(
        target=MINT.target,
        function=MINT.function,
        rules=MINT.rules,
        valid_after=int(NOW),
        valid_until=UNTIL + 3600,
    )
    session = await scene.grant([POLICY, begin])
    scene.world.now += later_s
    before = len(scene.world.calls)
    with pytest.raises(PermissionDeniedError) as caught:
        await session.send_transaction(call)
    assert caught.value.rule == rule
    with pytest.raises(PermissionDeniedError):
        await session.check([call])
    assert not scene.dan.messages
    assert {method for method, _ in scene.world.calls[before:]} <= {"eth_call"}


async def test_the_chain_refuses_it_all_the_same(scene: Scene) -> None:
    """Without the check here, the contracts say no."""
    session = await scene.grant()
    scene.world.now += 3601  # the chain's time; the client's stands still
    behind = scene.common | {"clock": lambda: NOW}
    opened = await open_session_on_chain(await scene.account(), session.session_id, **behind)
    with pytest.raises(BundlerError, match="AA23"):
        await opened.send_transaction(transfer())
    assert not scene.world.made


async def test_the_key_lives_as_long_as_the_longest_policy(scene: Scene) -> None:
    """And no longer; without an end, for a year."""
    await scene.grant([POLICY, MINT])
    await scene.grant([POLICY, Erc20Policy(token=TOKEN, recipient=SHOP, max_amount=1)])
    assert [request["duration"] for request in scene.dan.requests] == [7200, 365 * 24 * 3600]


async def test_adding_keeps_earlier_sessions(scene: Scene) -> None:
    """Their proofs are made of the tree as it is now."""
    sessions = [await scene.grant() for _ in range(5)]
    for session in sessions:
        await session.send_transaction(transfer())
    assert len(scene.world.made) == 5


async def test_a_failed_grant_leaves_nothing_in_the_tree(scene: Scene) -> None:
    """Reverted on the chain: the next root is without its leaf, and the store forgets it."""
    first = await scene.grant()
    scene.world.success = False
    execute, scene.world.execute = scene.world.execute, super(BiconomyWorld, scene.world).execute  # type: ignore[method-assign]
    with pytest.raises(UserOperationRevertedError) as caught:
        await scene.grant()
    assert "does not obey" in caught.value.__notes__[0]
    scene.world.success, scene.world.execute = True, execute  # type: ignore[method-assign]
    second = await scene.grant()
    assert scene.world.root == MerkleTree([first.leaves[0].hash, second.leaves[0].hash]).root
    assert len(await scene.grants()) == 2


@pytest.mark.parametrize(
    "failure", [RpcError(-32603, "down"), ProtocolError("no JSON"), ConnectError("HTTP 403", retryable=False)]
)
async def test_a_grant_that_nobody_knows_the_end_of_is_settled_by_the_root(
    scene: Scene, failure: DanError
) -> None:
    """Executed although the call had failed: the session is there; not executed: its leaf goes with the next change."""
    account = await scene.account()
    await scene.grant(account=account)
    scene.world.executes = False
    scene.world.failures["eth_getUserOperationReceipt"] = [failure]
    with pytest.raises(UserOperationInDoubtError):
        await scene.grant(account=account, session_id="late")
    scene.world.execute(list(scene.world.operations)[-1])
    scene.world.executes = True
    late = await open_session_on_chain(account, "late", **scene.common)
    await late.send_transaction(transfer())
    assert [json.loads(record.grant)["status"] for record in await scene.grants()] == ["granted"] * 2


async def test_a_refused_grant_is_forgotten_with_the_next_one(scene: Scene) -> None:
    """A bundler may hold what it refuses, so its leaf stays until its nonce is used."""
    await scene.grant()
    scene.world.failures["eth_sendUserOperation"] = [RpcError(-32602, "no")]
    with pytest.raises(BundlerError):
        await scene.grant(session_id="refused")
    assert {json.loads(record.grant)["status"] for record in await scene.grants()} == {"granted", "doubtful"}
    await scene.grant()
    assert len(await scene.grants()) == 2
    with pytest.raises(RecordConflictError, match="of that name"):
        await open_session_on_chain(await scene.account(), "refused", **scene.common)


@pytest.mark.parametrize("clients", [1, 2])
async def test_grants_at_the_same_time_do_not_undo_each_other(scene: Scene, clients: int) -> None:
    """Through one client, or through several programs that share the store."""
    accounts = [await scene.account() for _ in range(clients)]
    sessions = await asyncio.gather(*(scene.grant(account=accounts[n % clients]) for n in range(4)))
    for session in sessions:
        await session.send_transaction(transfer())
    assert len(scene.world.made) == 4
    assert len(set(scene.world.roots)) == len(scene.world.roots) == 4


async def test_two_programs_with_one_database(scene: Scene, tmp_path: Path) -> None:
    """Each has its own store on one file: neither undoes the other, and both see all sessions."""
    keys = FixedKeys([StoreKey("k", b"k" * 32)])
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with SQLAlchemyStore(url, keys) as one, SQLAlchemyStore(url, keys) as other:
        stores = (one, other)
        accounts = [await scene.account() for _ in stores]
        made = await asyncio.gather(
            *(scene.grant(account=accounts[n % 2], store=stores[n % 2], session_id=f"s{n}") for n in range(4))
        )
        for n, session in enumerate(made):
            again = await open_session_on_chain(
                accounts[n % 2], f"s{n}", **(scene.common | {"store": stores[(n + 1) % 2]})
            )
            await again.send_transaction(transfer(n))
            assert (await session.revoke()).is_complete
    assert len(scene.world.made) == 4
    assert scene.world.root == bytes(32)
    assert b"hexEphSK" not in (tmp_path / "sessions.db").read_bytes()


async def test_a_change_that_was_noted_after_the_root_was_read(scene: Scene) -> None:
    """By another program that shares the store: the root is read once more, and the tree is known."""
    session = await scene.grant()
    mine, find, meanwhile = await scene.account(), scene.store.find, [scene.grant()]

    async def find_late(where: SessionFilter) -> AsyncIterator[StoredSession]:
        if meanwhile:
            await meanwhile.pop()
        async for record in find(where):
            yield record

    scene.store.find = find_late  # type: ignore[assignment, method-assign]
    again = await open_session_on_chain(mine, session.session_id, **scene.common)
    await again.send_transaction(transfer())


async def test_three_agents_at_once(scene: Scene) -> None:
    """Of two sessions, while a third one is granted: each call is executed exactly once."""
    first, second = await scene.grant(), await scene.grant([POLICY, MINT])
    again = await open_session_on_chain(await scene.account(), second.session_id, **scene.common)
    assert again.session.to_dict(extended=True) == second.session.to_dict(extended=True)
    assert again.account.lanes.key("x") == second.account.lanes.key("x")
    sends = [
        agent.send_transaction(transfer(10 * n + place), lane=str(place))
        for n in range(1, 4)
        for place, agent in enumerate((first, second, again))
    ]
    await asyncio.gather(scene.grant(), *sends)
    amounts = sorted(int.from_bytes(call.data[-32:]) for call in scene.world.made)
    assert amounts == sorted(10 * n + place for n in range(1, 4) for place in range(3))


async def test_a_proof_of_the_tree_before_is_made_anew(scene: Scene) -> None:
    """The root moves between the proof and the bundler's check: the operation is signed again under the same nonce."""
    session = await scene.grant()
    send, moved = scene.dan.sign_message, []

    async def sign(*args: Any, **options: Any) -> Any:
        if not moved:
            moved.append(await scene.grant())
        return await send(*args, **options)

    scene.dan.sign_message = sign  # type: ignore[method-assign]
    await session.send_transaction(transfer())
    assert (len(scene.world.made), len(scene.dan.messages)) == (1, 2)


@pytest.mark.parametrize("is_executed", [False, True])
async def test_an_operation_that_was_dropped_when_the_root_moved(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, is_executed: bool
) -> None:
    """Taken by the bundler, and not on the chain: another one under the same nonce, unless the first one came through."""
    monkeypatch.setattr(sessions_on_chain, "_PATIENCE_S", 0.3)
    session = await scene.grant()
    await session.send_transaction(transfer(1))
    world = scene.world
    world.executes = False
    sending = asyncio.create_task(session.send_transaction(transfer(2)))
    while len(world.operations) < 3:
        await asyncio.sleep(0.01)
    dropped = list(world.operations)[-1]
    if is_executed:
        world.execute(dropped)
        world.executed.remove(dropped)  # the bundler does not know it yet
    else:
        del world.operations[dropped]
    world.executes = True
    await scene.grant()
    if is_executed:
        await asyncio.sleep(0.4)
        world.executed.append(dropped)
    await sending
    assert world.made == [transfer(1), transfer(2)]


async def send_without_receipt(
    session: SessionOnChain, call: Call, world: BiconomyWorld
) -> asyncio.Task[Any]:
    """Send a call, which is executed at once; the bundler keeps the receipt to itself."""
    execute, before = world.execute, len(world.executed)

    def withhold(own: str) -> None:
        world.withheld.add(own)
        execute(own)

    world.execute = withhold  # type: ignore[method-assign]
    sending = asyncio.create_task(session.send_transaction(call, timeout=3))
    while len(world.executed) == before:
        await asyncio.sleep(0.01)
    world.execute = execute  # type: ignore[method-assign]
    return sending


async def test_a_call_that_came_through_is_not_made_again_when_its_lane_went_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipt is late, another call of the lane follows it, and the root moves: that drops neither of the two."""
    monkeypatch.setattr(sessions_on_chain, "_PATIENCE_S", 0.5)
    session = await scene.grant()
    sending = await send_without_receipt(session, transfer(1), scene.world)
    await session.send_transaction(transfer(2))
    await scene.grant()
    await asyncio.sleep(0.7)
    scene.world.withheld.clear()
    receipt = await sending
    assert scene.world.made == [transfer(1), transfer(2)]
    assert receipt.user_operation_hash == scene.world.executed[1]


async def test_a_call_that_came_through_is_told_although_its_session_was_revoked_then(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There cannot be another operation in its place; what was sent is not taken for what was refused."""
    monkeypatch.setattr(sessions_on_chain, "_PATIENCE_S", 0.3)
    session = await scene.grant()
    sending = await send_without_receipt(session, transfer(1), scene.world)
    await session.revoke()
    await asyncio.sleep(0.5)
    scene.world.withheld.clear()
    assert (await sending).is_success
    assert scene.world.made == [transfer(1)]


async def test_a_node_that_fails_while_a_receipt_is_awaited_ends_no_wait(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error would not say that the call was sent."""
    monkeypatch.setattr(sessions_on_chain, "_PATIENCE_S", 0.3)
    node, failures = scene.world.node, list[RpcError]()

    async def failing_node(method: str, params: Any) -> Any:
        if failures:
            raise failures.pop()
        return await node(method, params)

    session = await scene.grant(account=await scene.account(rpc_url=InMemoryTransport(failing_node)))
    sending = await send_without_receipt(session, transfer(1), scene.world)
    failures.append(RpcError(-32603, "out of order"))
    while failures:
        await asyncio.sleep(0.05)
    scene.world.withheld.clear()
    assert (await sending).is_success


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_call_whose_caller_went_away_is_not_made_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, is_replaced: bool
) -> None:
    """Cancelled while its receipt is waited for, and executed then: the same call is told of the first one."""
    monkeypatch.setattr(sessions_on_chain, "_PATIENCE_S", 0.3)
    session = await scene.grant()
    world, other = scene.world, await scene.account()
    world.executes = False
    before = len(world.operations)
    sending = asyncio.create_task(session.send_transaction(transfer()))
    while len(world.operations) == before:
        await asyncio.sleep(0.01)
    if is_replaced:  # its proof is of a tree before: it is dropped, and another one takes its nonce
        del world.operations[list(world.operations)[-1]]
        world.executes = True
        await scene.grant(account=other)
        world.executes, known = False, len(world.operations)
        while len(world.operations) == known:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    left = list(world.operations)[-1]
    world.execute(left)
    world.executes = True
    with pytest.raises(DuplicateUserOperationError) as caught:
        await session.send_transaction(transfer())
    assert caught.value.user_operation_hash == left
    assert world.made == [transfer()]


async def test_revoking_ends_it_on_chain_and_at_the_nodes(scene: Scene) -> None:
    """The report says so; the others go on, and the records say what they are."""
    first, second = await scene.grant(), await scene.grant()
    outcome = await first.revoke()
    assert outcome.is_complete
    assert outcome.on_chain
    assert scene.dan.revoked == [first.session.mpc_key_id]
    with pytest.raises(PermissionDeniedError) as caught:
        await first.send_transaction(transfer())
    assert caught.value.rule == "merkleRoot"
    await second.send_transaction(transfer())
    assert scene.world.root == second.leaves[0].hash
    states = [record.state async for record in scene.store.find()]
    assert sorted(states) == ["active", "revoked"]
    assert (await first.revoke()).on_chain is None


async def test_revoking_the_last_one_leaves_no_root(scene: Scene) -> None:
    """Zero, for which there is no proof; and another session can be granted."""
    session = await scene.grant()
    await session.revoke()
    assert scene.world.root == bytes(32)
    await (await scene.grant()).send_transaction(transfer())


async def test_each_half_of_a_revocation_is_reported(scene: Scene) -> None:
    """Nodes that do not answer do not keep the chain from it, nor the other way round."""
    session = await scene.grant()
    scene.dan.failure = QuorumError("too few", threshold=3, outcomes=())
    outcome = await session.revoke()
    assert isinstance(outcome.on_chain, str)
    assert outcome.at_nodes is scene.dan.failure
    assert not outcome.is_complete
    other = await scene.grant()
    scene.dan.failure = None
    scene.world.failures["eth_estimateUserOperationGas"] = [RpcError(-32500, "AA21 didn't pay prefund")]
    outcome = await other.revoke()
    assert isinstance(outcome.on_chain, BundlerError)
    assert not isinstance(outcome.at_nodes, DanError)
    assert (await other.revoke()).is_complete
    assert scene.world.root == bytes(32)


async def test_a_revocation_whose_receipt_cannot_be_read_is_seen_by_the_root(scene: Scene) -> None:
    """The outcome says that it may have been made; the account's other sessions go on."""
    first, second = await scene.grant(), await scene.grant()
    scene.world.failures["eth_getUserOperationReceipt"] = [ProtocolError("no JSON")]
    assert isinstance((await first.revoke()).on_chain, UserOperationInDoubtError)
    await second.send_transaction(transfer())
    assert (await first.revoke()).on_chain is None


async def test_an_agent_without_the_owners_wallet(scene: Scene) -> None:
    """It opens the session from the store, acts, and cannot take the session out of the tree."""
    session = await scene.grant(session_id="shop")
    signer = SessionSigner(scene.dan, session.session)
    account = await scene.account(signer=signer, owner=OWNER.address)
    agent = await open_session_on_chain(account, "shop", **scene.common)
    await agent.send_transaction(transfer())
    outcome = await agent.revoke(wallet=OWNER)
    assert isinstance(outcome.on_chain, ConfigurationError)
    assert not isinstance(outcome.at_nodes, DanError)
    with pytest.raises(RecordConflictError, match="of that name"):
        await open_session_on_chain(account, "other", **scene.common)


async def test_a_key_revoked_at_the_nodes_alone_stays_in_the_tree(scene: Scene) -> None:
    """Its record is revoked by other means; the other sessions go on, and it can be taken out of the tree later."""
    first, second = await scene.grant(), await scene.grant()
    for record in await scene.grants():
        if record.session == first.session:
            await scene.store.change_state(record.record_id, "revoked", expected="active")
    again = await open_session_on_chain(await scene.account(), second.session_id, **scene.common)
    await again.send_transaction(transfer())
    await (await scene.grant()).send_transaction(transfer())
    assert (await first.revoke()).is_complete
    await again.send_transaction(transfer())
    assert len([record async for record in scene.store.find()]) == 2


async def test_permissions_from_the_policy(scene: Scene) -> None:
    """The same limits for the nodes, for this account and chain only."""
    await scene.grant([POLICY, MINT], permissions="from-policy")
    permissions = parse_permissions(json.dumps(scene.dan.requests[0]["permissions"]))
    assert permissions.accounts == {ACCOUNT}
    assert len(permissions.rules) == 3


async def test_sessions_go_to_typescript_and_come_back(scene: Scene) -> None:
    """Exported, they are the tree; imported into an empty store, they are used, in the same order."""
    named = await scene.grant([POLICY, MINT], session_id="shop")
    await scene.grant()
    account = await scene.account()
    text = await export_biconomy_sessions(account, store=scene.store)
    root, leaves = read_sessions(text)
    assert root == scene.world.root
    assert [leaf.session_id for leaf in leaves][:2] == ["shop", "shop-1"]
    scene.store = MemorySessionStore(clock=scene.world.clock)
    with pytest.raises(RecordConflictError, match="import"):
        await open_session_on_chain(account, "shop", **scene.common)
    imported = await import_biconomy_sessions(account, text, store=scene.store)
    assert [leaf.hash for leaf in imported] == [leaf.hash for leaf in leaves]
    assert await export_biconomy_sessions(account, store=scene.store) == text
    opened = await open_session_on_chain(account, "shop", **scene.common)
    await opened.send_transaction(mint())
    assert opened.session.mpc_key_id == named.session.mpc_key_id
    assert scene.world.made == [mint()]


async def test_leaves_of_failed_grants_are_not_imported(scene: Scene) -> None:
    """The published package keeps them in its store; the chain's root says where they begin."""
    await scene.grant(session_id="real")
    account = await scene.account()
    text = await export_biconomy_sessions(account, store=scene.store)
    found = json.loads(text)
    failed = found["leafNodes"][0] | {"sessionID": "failed", "validUntil": 7}
    found["leafNodes"].append(failed | {"preferredSessionId": "failed"})
    leaves = await import_biconomy_sessions(account, found, store=scene.store)
    assert [leaf.session_id for leaf in leaves] == ["real"]
    assert len(await scene.grants()) == 1
    found["leafNodes"] = found["leafNodes"][1:]
    with pytest.raises(RecordConflictError, match="root on chain"):
        await import_biconomy_sessions(account, found, store=scene.store)


async def test_sessions_that_the_other_side_added_are_taken_over(scene: Scene) -> None:
    """Ours stay, with what we know of them; a session of a local key comes too, and is proven around."""
    mine = await scene.grant(session_id="mine")
    account = await scene.account()
    found = json.loads(await export_biconomy_sessions(account, store=scene.store))
    local = found["leafNodes"][0] | {"validUntil": UNTIL + 1, "sessionID": "local"}
    del local["danModuleInfo"], local["preferredSessionId"]
    found["leafNodes"].insert(0, local)
    _, leaves = read_sessions(found)
    scene.world.root = MerkleTree([leaf.hash for leaf in leaves]).root
    await import_biconomy_sessions(account, found, store=scene.store)
    await mine.send_transaction(transfer())
    with pytest.raises(InvalidFieldError, match="not a distributed one"):
        await open_session_on_chain(account, "local", **scene.common)
    await (await scene.grant()).send_transaction(transfer(11))
    assert len(scene.world.made) == 2
    scene.world.root = leaves[1].hash  # and gone again, from there
    await import_biconomy_sessions(account, found | {"leafNodes": found["leafNodes"][1:]}, store=scene.store)
    assert [json.loads(record.grant)["leaf"]["sessionID"] for record in await scene.grants()] == ["mine"]


async def test_a_session_that_does_not_say_how_many_parties_it_has(scene: Scene) -> None:
    """Its key id and its ephemeral key are enough to use it."""
    await scene.grant(session_id="shop")
    account = await scene.account()
    found = json.loads(await export_biconomy_sessions(account, store=scene.store))
    for name in ("partiesNumber", "threshold", "chainId"):
        del found["leafNodes"][0]["danModuleInfo"][name]
    scene.store = MemorySessionStore(clock=scene.world.clock)
    await import_biconomy_sessions(account, found, store=scene.store)
    session = await open_session_on_chain(account, "shop", **scene.common)
    await session.send_transaction(transfer())
    assert (await session.revoke()).is_complete
    assert [record async for record in scene.store.find()] == []


@pytest.mark.parametrize("late", [3, 1000])
async def test_a_node_that_is_behind_the_bundler(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """It is waited for; if it never comes, that is said, and the session is there as soon as it has."""
    monkeypatch.setattr(service, "_POLL_S", 0.01)
    monkeypatch.setattr(sessions_on_chain, "_BEHIND_S", 0.1)
    world, node = scene.world, scene.world.node
    left = [late]

    async def behind(method: str, params: Any) -> Any:
        is_root = method == "eth_call" and params[0]["data"].startswith("0x" + ROOT_OF.hex())
        if is_root and world.roots and left[0] > 0:
            left[0] -= 1
            return "0x" + "00" * 32
        return await node(method, params)

    account = await scene.account(rpc_url=InMemoryTransport(behind, name="node"))
    if late == 1000:
        with pytest.raises(RecordConflictError, match="does not show"):
            await scene.grant(account=account, session_id="shop")
        left[0] = 0
    else:
        await scene.grant(account=account, session_id="shop")
    session = await open_session_on_chain(account, "shop", **scene.common)
    await session.send_transaction(transfer())


async def test_a_tree_that_the_store_does_not_know_is_not_overwritten(scene: Scene) -> None:
    """Somebody else's sessions would be lost."""
    scene.world.root = b"\x07" * 32
    with pytest.raises(RecordConflictError, match="Another program"):
        await scene.grant()
    assert not scene.dan.requests
    assert scene.world.root == b"\x07" * 32


async def test_leaves_outlive_a_purge(scene: Scene) -> None:
    """A leaf whose key has ended is in the tree still, and the others' proofs need it."""
    await scene.grant()
    longer = await scene.grant(MINT)
    scene.world.now += 3700
    await scene.store.mark_expired()
    await scene.store.purge_expired()
    again = await open_session_on_chain(await scene.account(), longer.session_id, **scene.common)
    await again.send_transaction(mint())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"policy": []}, "policy"),
        ({"policy": "everything"}, "policy"),
        ({"policy": Erc20Policy(token=TOKEN, recipient=SHOP, max_amount=1, valid_until=5)}, "valid_until"),
        (
            {"policy": Erc20Policy(token=TOKEN, recipient=SHOP, max_amount=1, valid_until=UNTIL * 1000)},
            "valid_until",
        ),
        ({"store": None}, "store"),
        ({"session_id": ""}, "session_id"),
        ({"duration": 60}, "duration"),
    ],
)
async def test_wrong_arguments_are_named(scene: Scene, changes: dict[str, Any], field: str) -> None:
    """Before a key is made."""
    with pytest.raises(InvalidFieldError) as caught:
        await scene.grant(**changes)
    assert caught.value.field == field
    assert not scene.dan.requests


async def test_names_are_unique_and_accounts_biconomys(scene: Scene) -> None:
    """Two sessions of one name could not be told apart in the published store."""
    await scene.grant(session_id="shop")
    with pytest.raises(InvalidFieldError, match="session_id"):
        await scene.grant(session_id="shop")
    account = await account_in(scene.world, account=SimpleAccount("v0.6.0"))
    with pytest.raises(InvalidFieldError, match="smart_account"):
        await scene.grant(account=account)


async def test_calls_are_calls(scene: Scene) -> None:
    """And one at least."""
    session = await scene.grant()
    assert "mpc" not in repr(session)
    for send in (
        session.send_transaction("call"),
        session.send_transactions([]),
        session.send_transactions(["x"]),
    ):  # type: ignore[arg-type, list-item]
        with pytest.raises(InvalidFieldError, match="call"):
            await send


async def test_a_bundler_that_loses_an_operation_does_not_double_it(scene: Scene) -> None:
    """It says that the nonce is taken, and knows nothing of it: the same operation again, executed once."""
    session = await scene.grant()
    scene.world.failures["eth_sendUserOperation"] = [RpcError(-32603, "AA25 invalid account nonce")]
    await session.send_transaction(transfer())
    assert scene.world.made == [transfer()]
