"""``dan-async mcp`` as an agent sees it: the package mcp's own client over stdio, a real network, a store, a chain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from mcp import Client, StdioServerParameters, stdio_client

from dan_async import DanClient, LocalWallet, Timeouts
from dan_async.devnet import Delay, Devnet
from dan_async.errors import ConfigurationError, InvalidFieldError, RpcError
from dan_async.mcp import SessionTools
from dan_async.network_file import ChainEndpoints, NetworkFile
from dan_async.storage import MemorySessionStore, StoredSession, StoreKey
from dan_async.storage.keys import keys_from_file
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from dan_async.wallets.base import CallbackWallet
from tests.chain.local_chain import CHAIN_ID, LocalChain
from tests.recipes.conftest import OWNER_KEY, run_sample
from tests.unit.userops.services import World, account_in, cancelled_when_sent

pytestmark = [pytest.mark.recipes, pytest.mark.timeout(180)]

OWNER = LocalWallet(OWNER_KEY)
SIMPLE_FACTORY = "0x91E60e0613810449d098b0b5Ec8b51A0FE8c8985"
ALWAYS = {"session_status", "sign_message", "sign_typed_data"}
ORDER = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
        "Order": [{"name": "amount", "type": "uint256"}],
    },
    "domain": {"name": "Exchange", "chainId": 80002},
    "primaryType": "Order",
    "message": {"amount": 5},
}

Serve = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def net() -> AsyncIterator[Devnet]:
    """A 2-of-3 network."""
    async with Devnet(2, 3) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, net: Devnet) -> Path:
    """A folder with a network file, the owner's key, and a key for a store."""
    (tmp_path / "net.toml").write_text(NetworkFile(nodes=net.endpoints, threshold=net.threshold).to_toml())
    for name, text in (("owner.key", OWNER_KEY), ("keys.db.key", StoreKey.generate().to_text())):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    return tmp_path


def arguments(*more: str, may_make: bool = True) -> list[str]:
    owner = ["--private-key-file", "owner.key", "--chain-id", "80002"] if may_make else []
    return [
        "-m",
        "dan_async",
        "mcp",
        "--network",
        "./net.toml",
        "--store",
        "sqlite:///keys.db",
        *owner,
        *more,
    ]


def environment() -> dict[str, str]:
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    return {"PYTHONPATH": paths} | {name: text for name, text in os.environ.items() if name.startswith("COV")}


@pytest.fixture
def serve(folder: Path) -> Serve:
    """Run the command, and connect a client to it."""

    @asynccontextmanager
    async def connect(*more: str, may_make: bool = True) -> AsyncIterator[Client]:
        parameters = StdioServerParameters(
            command=sys.executable,
            args=arguments(*more, may_make=may_make),
            env=environment(),
            cwd=folder,
        )
        with (folder / "stderr").open("a") as errlog:
            async with Client(stdio_client(parameters, errlog=errlog)) as client:
                yield client

    return connect


async def ask(client: Client, tool: str, **given: Any) -> dict[str, Any]:
    """Call a tool that succeeds."""
    result = await client.call_tool(tool, given)
    assert not result.is_error, result.structured_content
    (content,) = result.content
    assert json.loads(content.text) == result.structured_content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refuse(client: Client, tool: str, **given: Any) -> dict[str, Any]:
    """Call a tool that fails, and return the error."""
    result = await client.call_tool(tool, given)
    assert result.is_error
    error: dict[str, Any] = result.structured_content["error"]
    assert {"code", "message", "hint", "whatToDo", "retryable"} <= set(error)
    return error


async def stored(folder: Path, session: str) -> StoredSession:
    """Read a record as the store's owner may."""
    async with SQLAlchemyStore(
        f"sqlite:///{folder}/keys.db", keys_from_file(folder / "keys.db.key")
    ) as store:
        found = await store.get(session)
    assert found is not None
    return found


async def test_an_agent_makes_a_session_and_signs(serve: Serve, folder: Path) -> None:
    """Its signatures recover to the session's address, and it never sees a key."""
    async with serve() as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == ALWAYS | {"make_session"}
        made = await ask(client, "make_session", duration=600, reference="agent 1")
        assert (made["chainId"], made["owner"], made["state"]) == (80002, OWNER.address, "active")
        assert 0 < made["secondsLeft"] <= 600
        for name in (made["session"], "agent 1"):
            signed = await ask(client, "sign_message", session=name, message="hello")
            assert signed["address"] == made["address"]
            signable = encode_defunct(text="hello")
            assert Account.recover_message(signable, signature=signed["signature"]) == made["address"]
        signed = await ask(client, "sign_message", session="agent 1", message="0x00ff", encoding="hex")
        signable = encode_defunct(b"\x00\xff")
        assert Account.recover_message(signable, signature=signed["signature"]) == made["address"]
        signed = await ask(client, "sign_typed_data", session="agent 1", typed_data=ORDER)
        signable = encode_typed_data(full_message=ORDER)
        assert Account.recover_message(signable, signature=signed["signature"]) == made["address"]
        (listed,) = (await ask(client, "session_status"))["sessions"]
        told = json.dumps([made, listed, signed])
    secret = (await stored(folder, made["session"])).session
    assert secret is not None
    for hidden in (secret.hex_eph_sk_without_0x, OWNER_KEY):
        assert hidden not in told
        assert hidden not in (folder / "stderr").read_text()
    assert "serving 3 nodes" in (folder / "stderr").read_text()


async def test_without_a_wallet_no_session_is_made(serve: Serve) -> None:
    """The tool is not offered, and calling it all the same is refused."""
    async with serve():
        pass  # makes the store
    async with serve(may_make=False) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == ALWAYS
        error = await refuse(client, "make_session")
        assert (error["code"], error["field"]) == ("invalid_input", "name")


async def test_permissions_are_a_refusal_with_a_code(serve: Serve) -> None:
    """A session with permissions signs user operations only; the agent is told so, and sees them."""
    permissions = [{"type": "call", "to": OWNER.address, "selectors": ["0x"]}]
    async with serve("--permissions", json.dumps(permissions)) as client:
        made = await ask(client, "make_session")
        assert made["permissions"] == permissions
        error = await refuse(client, "sign_message", session=made["session"], message="hello")
        assert (error["code"], error["retryable"]) == ("permission_denied", False)
        assert "permissions" in error["whatToDo"]


async def test_a_revoked_session_is_refused(serve: Serve, folder: Path, net: Devnet) -> None:
    """By the nodes, whoever revoked it; and by its record, once that says so."""
    async with serve() as client:
        made = await ask(client, "make_session")
        record = await stored(folder, made["session"])
        assert record.session is not None
        async with DanClient(net) as owner:
            await owner.revoke_ephemeral_key(record.session, wallet=OWNER)
        error = await refuse(client, "sign_message", session=made["session"], message="hello")
        assert error["code"] == "session_refused"
        url, keys = f"sqlite:///{folder}/keys.db", keys_from_file(folder / "keys.db.key")
        async with SQLAlchemyStore(url, keys) as store:
            await store.change_state(record.record_id, "revoked", expected="active")
        error = await refuse(client, "sign_typed_data", session=made["session"], typed_data=ORDER)
        assert (error["code"], error["state"]) == ("session_not_active", "revoked")


async def test_a_deadline_is_a_refusal_with_a_code(serve: Serve, net: Devnet) -> None:
    """Too few nodes answer: the agent hears in time that it may try again."""
    async with serve("--timeout", "4") as client:
        made = await ask(client, "make_session")
        for index in (0, 1):
            net.faults[index] = Delay(seconds=60)
        error = await refuse(client, "sign_message", session=made["session"], message="hello")
        assert (error["code"], error["retryable"]) == ("deadline_exceeded", True)


async def test_wrong_arguments_are_named(serve: Serve) -> None:
    """The field, and what it must be; the server goes on."""
    async with serve("--max-duration", "60") as client:
        made = await ask(client, "make_session", reference="one")
        name = made["session"]
        elsewhere = {**ORDER, "domain": {"name": "Exchange", "chainId": 1}}
        for tool, given, field in (
            ("make_session", {"duration": 61}, "duration"),
            ("make_session", {"permissions": "[]"}, "arguments"),
            ("sign_message", {"session": name}, "message"),
            ("sign_message", {"session": "0x" + "00" * 32, "message": "hi"}, "session"),
            ("sign_message", {"session": 5, "message": "hi"}, "session"),
            ("sign_message", {"session": name, "message": "hi", "encoding": "hex"}, "message"),
            ("sign_message", {"session": name, "message": "hi", "encoding": "utf-16"}, "encoding"),
            ("sign_typed_data", {"session": name, "typed_data": "{}"}, "typed_data"),
            ("sign_typed_data", {"session": name, "typed_data": elsewhere}, "chainId"),
            ("send_user_operation", {"session": name, "calls": []}, "name"),
        ):
            error = await refuse(client, tool, **given)
            assert (error["code"], error["field"]) == ("invalid_input", field)
        assert (await refuse(client, "make_session", reference="one"))["code"] == "conflict"
        assert (await ask(client, "session_status", session="one"))["state"] == "active"


async def test_an_agent_may_use_the_named_sessions_only(serve: Serve) -> None:
    """And those that it makes itself."""
    async with serve() as client:
        first = await ask(client, "make_session", reference="first")
        await ask(client, "make_session", reference="second")
    async with serve("--session", "first") as client:
        third = await ask(client, "make_session")
        listed = (await ask(client, "session_status"))["sessions"]
        assert {one["session"] for one in listed} == {first["session"], third["session"]}
        assert (await refuse(client, "session_status", session="second"))["field"] == "session"
        assert (await refuse(client, "sign_message", session="second", message="hi"))["field"] == "session"


async def made_session(dan: DanClient, reference: str) -> StoredSession:
    """Make a session for the owner, and return its record."""
    await dan.generate_session_key(wallet=OWNER, chain_id=80002, reference=reference)
    assert dan.store is not None
    record = await dan.store.get_by_reference(reference)
    assert record is not None
    return record


async def test_a_reference_is_no_way_to_another_session() -> None:
    """An agent that names its session with the id of one that it may not use may not use that one."""
    async with DanClient(Devnet(2, 3), store=MemorySessionStore()) as dan:
        owners = await made_session(dan, "the owner's")
        async with SessionTools(dan, wallet=OWNER, chain_id=80002, sessions=["another"]) as tools:
            made = await tools.call("make_session", {"reference": owners.record_id})
            signed = await tools.call("sign_message", {"session": owners.record_id, "message": "hello"})
            assert signed["error"]["field"] == "session"
            own = await tools.call("sign_message", {"session": made["session"], "message": "hello"})
            assert own["address"] == made["address"]


async def test_sessions_that_may_not_be_used_hide_none_that_may() -> None:
    """However many there are in the store; each is listed once, by whichever of its names it is allowed."""
    store = MemorySessionStore()
    async with DanClient(Devnet(2, 3), store=store) as dan:
        first = await made_session(dan, "first")
        for number in range(101):
            await store.save(evolve(first, record_id=f"0x{number:064x}", reference=None))
        names = ["first", first.record_id, "nobody's"]
        async with SessionTools(dan, wallet=OWNER, chain_id=80002, sessions=names) as tools:
            made = await tools.call("make_session", {})
            listed = (await tools.call("session_status", {}))["sessions"]
        assert [one["session"] for one in listed] == [first.record_id, made["session"]]


async def start(folder: Path, *more: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments(*more),
        cwd=folder,
        env=os.environ | environment(),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


@pytest.mark.parametrize("how", ["closed", "SIGINT", "SIGTERM", "stdout"])
async def test_it_ends_cleanly(folder: Path, how: str) -> None:
    """When standard input is closed, on Ctrl-C, or when nobody reads any more: exit code 0, no traceback, nothing left."""
    process = await start(folder)
    assert process.stdin is not None
    assert process.stderr is not None
    while b"serving" not in await process.stderr.readline():
        pass
    if how == "stdout":
        process._transport.get_pipe_transport(1).close()
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n' * 3)
        await process.stdin.drain()
    elif how != "closed":
        process.send_signal(getattr(signal, how))
    if how in ("closed", "stdout"):
        process.stdin.close()
    stderr = await asyncio.wait_for(process.stderr.read(), 60)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert stderr.decode().splitlines() == ["stopped"]


async def test_garbage_on_standard_input_is_survived(folder: Path) -> None:
    """What is no message is passed over; a line without end ends it."""
    process = await start(folder)
    stdout, stderr = await asyncio.wait_for(
        process.communicate(
            b'garbage\n{}\n{"jsonrpc": "2.0", "id": 7, "method": "nothing"}\n' + b"x" * 5_000_000
        ),
        30,
    )
    assert b"Traceback" not in stderr
    assert b"too long" in stderr
    assert process.returncode == 0
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in stdout.splitlines())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--private-key-file", "-"], "--private-key-file"),
        (["--rpc-url", "http://127.0.0.1:1"], "--bundler-url"),
        (["--bundler-url", "http://example.com", "--rpc-url", "http://127.0.0.1:1"], "--bundler-url"),
        (
            ["--bundler-url", "http://127.0.0.1:1", "--rpc-url", "http://127.0.0.1:1", "--account", "safe"],
            "--account",
        ),
        (["--permissions", "{"], "--permissions"),
        (["--session", "nobody"], "--session"),
    ],
)
async def test_wrong_options_are_named(folder: Path, options: list[str], named: str) -> None:
    """Before the agent is served: exit code 2 and one line."""
    process = await start(folder, *options)
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, stdout) == (2, b"")
    (line,) = stderr.decode().splitlines()
    assert named in line


@pytest.mark.timeout(180)
async def test_user_operations_within_permissions(
    serve: Serve, folder: Path, chain: LocalChain, bundler_url: str
) -> None:
    """Calls that are allowed are executed on the chain; others are refused with the rule, before anything is sent."""
    to = Account.create().address
    permissions = {
        "factory": SIMPLE_FACTORY,
        "permissions": [{"type": "call", "to": to, "selectors": ["0x"], "valueLimit": 10}],
    }
    (folder / "permissions.json").write_text(json.dumps(permissions))
    known = NetworkFile.read(folder / "net.toml")
    reached = ChainEndpoints(CHAIN_ID, rpc_url=chain.url, bundler_url=bundler_url)
    (folder / "net.toml").write_text(evolve(known, chain=reached).to_toml())
    owner = ("--private-key-file", "owner.key", "--permissions", "@permissions.json", "--timeout", "60")
    async with serve(*owner, may_make=False) as client:
        made = await ask(client, "make_session")
        allowed = [{"to": to, "value": "10"}]
        poor = await refuse(client, "send_user_operation", session=made["session"], calls=allowed)
        assert poor["code"] == "user_operation_failed"
        shown = await ask(client, "session_status", session=made["session"])
        chain.fund(shown["account"])
        done = await ask(client, "send_user_operation", session=made["session"], calls=allowed)
        assert (done["status"], done["account"]) == ("executed", shown["account"])
        assert chain.balance(to) == 10
        for calls, rule in (
            ([{"to": to, "value": 11}], "permissions[0].valueLimit"),
            ([{"to": OWNER.address}], "permissions"),
        ):
            error = await refuse(client, "send_user_operation", session=made["session"], calls=calls)
            assert (error["code"], error["retryable"]) == ("permission_denied", False)
            assert error["rule"].startswith(rule)
        for calls in ("no list", [5], [{"to": to, "gas": 1}], [{"to": "nowhere"}]):
            error = await refuse(client, "send_user_operation", session=made["session"], calls=calls)
            assert error["code"] == "invalid_input"
    assert OWNER_KEY not in (folder / "stderr").read_text()


async def test_an_agent_is_not_told_to_repeat_what_was_sent() -> None:
    """A receipt that the bundler does not show is one to come; what waits for an earlier operation says whose hash it has."""
    world = World()

    async def open_account(_: Any) -> Any:
        # A key in this process signs: no time goes by with a network.
        return await account_in(world, timeouts=Timeouts(total_s=1))

    async with (
        DanClient(Devnet(2, 3), store=MemorySessionStore()) as dan,
        SessionTools(dan, wallet=OWNER, chain_id=80002, open_account=open_account) as tools,
    ):
        made = await tools.call("make_session", {})

        async def send(value: int) -> dict[str, Any]:
            calls = [{"to": OWNER.address, "value": value}]
            return await tools.call("send_user_operation", {"session": made["session"], "calls": calls})

        world.failures["eth_getUserOperationReceipt"] = [RpcError(-32001, "unauthorised")]
        first = await send(1)
        assert (first["status"], first["userOperationHash"]) == ("pending", world.executed[0])
        world.executes = False
        second = await send(2)
        assert second["status"] == "pending"
        waiting = (await send(3))["error"]
    assert waiting["message"].startswith("nothing was sent: the lane waits")
    assert (waiting["code"], waiting["userOperationHash"]) == ("not_yet", second["userOperationHash"])
    assert "that one" in waiting["whatToDo"]


async def test_a_call_that_its_agent_gave_up_is_not_made_again() -> None:
    """It had been sent: the same calls, asked for again, are told of it."""
    world = World()

    async def open_account(_: Any) -> Any:
        return await account_in(world)

    async with (
        DanClient(Devnet(2, 3), store=MemorySessionStore()) as dan,
        SessionTools(dan, wallet=OWNER, chain_id=80002, open_account=open_account) as tools,
    ):
        made = await tools.call("make_session", {})
        asked = {"session": made["session"], "calls": [{"to": OWNER.address, "value": 1}]}
        world.executes = False
        await cancelled_when_sent(world, tools.call("send_user_operation", asked))
        (left,) = world.operations
        world.execute(left)
        again = await tools.call("send_user_operation", asked)
    assert (again["error"]["code"], again["error"]["userOperationHash"]) == ("duplicate", left)
    assert world.executed == [left]


async def test_the_pages_sample_runs() -> None:
    """As it is printed in docs/how-to/mcp.md."""
    async with DanClient(Devnet(2, 3), store=MemorySessionStore()) as dan:
        names: dict[str, Any] = {"dan": dan, "wallet": OWNER}
        await run_sample("mcp", names)
    signature = names["signed"]["signature"]
    assert (
        Account.recover_message(encode_defunct(text="hello"), signature=signature) == names["made"]["address"]
    )


async def test_calls_are_bounded() -> None:
    """So many are worked on, so many wait, and what comes on top is refused at once; afterwards there is room again."""
    blocked, most = asyncio.Event(), 0
    working = 0

    async def sign(_: Any) -> str:
        nonlocal most, working
        working += 1
        most = max(most, working)
        await blocked.wait()
        working -= 1
        raise ValueError(OWNER_KEY)

    async with DanClient(Devnet(2, 3), store=MemorySessionStore()) as dan:
        wallet = CallbackWallet(OWNER.address, sign)
        async with SessionTools(dan, wallet=wallet, chain_id=80002, concurrency=2) as tools:
            calls = [asyncio.create_task(tools.call("make_session", {})) for _ in range(40)]
            while most < 2:
                await asyncio.sleep(0.01)
            refused = [call.result()["error"]["code"] for call in calls if call.done()]
            assert refused == ["overloaded"] * 6
            blocked.set()
            answers = await asyncio.gather(*calls)
            assert most == 2
            assert OWNER_KEY not in json.dumps(answers)
            assert "sessions" in await tools.call("session_status", {})


async def test_what_cannot_work_is_refused_when_it_is_made() -> None:
    """No store, no chain, no calls at a time."""
    async with DanClient(Devnet(2, 3)) as dan:
        with pytest.raises(ConfigurationError, match="store"):
            SessionTools(dan)
    dan = DanClient(Devnet(2, 3), store=MemorySessionStore())
    with pytest.raises(InvalidFieldError, match="chain_id"):
        SessionTools(dan, wallet=OWNER)
    with pytest.raises(InvalidFieldError, match="concurrency"):
        SessionTools(dan, concurrency=0)
