"""Every program under examples/ runs and does what it says."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from dan_async import LocalWallet

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
OWNER_KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"


async def start(name: str, *args: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), *args, stdout=pipe, stderr=pipe
    )


@asynccontextmanager
async def serving(name: str) -> AsyncIterator[str]:
    """Run a server on a free port, give the URL it prints, and check that it stops cleanly."""
    process = await start(name, "0")
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield line.decode().split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert stderr == b""
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["in_a_web_server.py", "callback_wallet.py", "passkey_page/server.py"])
@pytest.mark.parametrize("port", ["soon", "70000", "taken"])
async def test_a_wrong_port_is_a_line(name: str, port: str) -> None:
    """Not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start(name, str(taken.getsockname()[1]) if port == "taken" else port)
        stdout, stderr = await asyncio.wait_for(process.communicate(), 40)
    assert (bool(process.returncode), stdout) == (True, b"")
    assert b"error: " in stderr
    assert b"Traceback" not in stderr


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [("sign.py", "eth_account", "eth-account"), ("passkey_page/server.py", "webauthn", "passkeys")],
)
async def test_a_missing_extra_is_a_line(name: str, missing: str, extra: str) -> None:
    """With the command that installs it."""
    code = f"import sys, runpy; sys.modules[{missing!r}] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(EXAMPLES / name), stdout=pipe, stderr=pipe
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 1
    (line,) = stderr.decode().splitlines()
    assert f'pip install "dan-async[{extra}]"' in line


@pytest.mark.parametrize("first", ["nonsense", "[]", "{}", '{"owner": 5}'])
async def test_a_stranger_at_the_callback_wallet_is_told_what_is_expected(first: str) -> None:
    """And the server stays up, without a traceback."""
    async with serving("callback_wallet.py") as url, aiohttp.ClientSession() as http:
        async with http.ws_connect(url + "session") as stranger:
            await stranger.send_str(first)
            assert "error" in await stranger.receive_json()
        async with http.get(url) as page:
            assert page.status == 200


def test_every_example_is_tested() -> None:
    """A new example needs a test here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "first_key.py",
        "sign.py",
        "agent_tools.py",
        "million_keys.py",
        "on_a_chain.py",  # tests/chain/test_dev_command.py
        "in_a_web_server.py",
        "callback_wallet.py",
    }


async def test_first_key() -> None:
    """It prints a session key of three of five nodes."""
    process = await start("first_key.py")
    stdout, stderr = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, stderr) == (0, b"")
    assert b"held 3-of-5" in stdout


async def test_sign() -> None:
    """Whatever it signs is signed by the session's address."""
    process = await start("sign.py")
    stdout, stderr = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, stderr) == (0, b"")
    lines = [line.split() for line in stdout.decode().splitlines()]
    addresses = {line[-1] for line in lines if line[0] == "address:" or line[:2] == ["signed", "by"]}
    assert len(addresses) == 1
    assert [line[0] for line in lines].count("signed") == 2


async def test_agent_tools() -> None:
    """What is allowed is signed by the session key; what is not is refused with the rule, as a result for the model."""
    process = await start("agent_tools.py")
    stdout, stderr = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, stderr) == (0, b"")
    status, paid, too_much, stranger = (json.loads(line)["result"] for line in stdout.splitlines())
    assert paid["signedBy"] == status["address"]
    for refused, rule in ((too_much, "permissions[0].args.value"), (stranger, "permissions[0].args.to")):
        assert (refused["error"], refused["retry"]) == ("not permitted", False)
        assert rule in refused["reasons"][0]


@pytest.mark.long
async def test_million_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run keeps what the first has made."""
    monkeypatch.chdir(tmp_path)
    for count, expected in (("3", "3 made"), ("5", "3 kept, 2 made")):
        process = await start("million_keys.py", count)
        stdout, stderr = await asyncio.wait_for(process.communicate(), 50)
        assert (process.returncode, stderr) == (0, b"")
        assert stdout.decode().splitlines()[-1] == expected
    assert (tmp_path / "agents.key").stat().st_mode & 0o777 == 0o600


async def test_in_a_web_server() -> None:
    """Concurrent requests each get a key of their own, a wrong one gets a reason, and no secret leaves the server."""
    async with serving("in_a_web_server.py") as url, aiohttp.ClientSession() as http:

        async def post(duration: str) -> tuple[int, dict[str, object]]:
            async with http.post(url, params={"duration": duration}) as response:
                return response.status, await response.json()

        answers = await asyncio.gather(*(post("600") for _ in range(3)))
        assert [status for status, _ in answers] == [201] * 3
        assert len({str(body["address"]) for _, body in answers}) == 3
        assert all(set(body) == {"address", "keyId", "expiresAt"} for _, body in answers)
        status, body = await post("0")
        assert status == 400
        assert "duration" in str(body["error"])
        assert (await post("soon"))[0] == 400
        assert (await post("9" * 5000))[0] == 400


async def test_callback_wallet_signs_in_the_browser() -> None:
    """The page is served, and what plays its part over the WebSocket gets a session key for its signature."""
    wallet = LocalWallet(OWNER_KEY)
    async with serving("callback_wallet.py") as url, aiohttp.ClientSession() as http:
        async with http.get(url) as page:
            assert "eth_signTypedData_v4" in await page.text()
        async with http.ws_connect(url + "session") as socket:
            await socket.send_json({"owner": wallet.address})
            typed_data = (await socket.receive_json())["sign"]
            await socket.send_json({"signature": await wallet.sign_typed_data(typed_data)})
            made = await socket.receive_json()
        assert made["sessionKey"].startswith("0x")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [({"refused": "no"}, "declined"), ({"signature": "0x12"}, "signature")],
    ids=["refused", "not a signature"],
)
async def test_callback_wallet_passes_on_what_went_wrong(reply: dict[str, str], expected: str) -> None:
    """An owner who declines, or a wallet that answers nonsense, gives the page a sentence."""
    async with (
        serving("callback_wallet.py") as url,
        aiohttp.ClientSession() as http,
        http.ws_connect(url + "session") as socket,
    ):
        await socket.send_json({"owner": LocalWallet(OWNER_KEY).address})
        await socket.receive_json()
        await socket.send_json(reply)
        assert expected in (await socket.receive_json())["error"]
