"""The web service of the examples, its page in a real browser, with a wallet that announces itself as EIP-6963 says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from eth_account import Account

from tests.passkeys.chromium import Browser, browser, missing_programs

#: One event loop for the file: the browser and the servers are started once.
pytestmark = [pytest.mark.recipes, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SERVICE = Path(__file__).parent.parent.parent / "examples" / "web_service" / "service.py"

#: What a wallet extension puts into every page: a provider (EIP-1193) that asks the wallet, which is elsewhere.
PROVIDER = """
const provider = { async request(question) {
  const answer = await (await fetch(WALLET, { method: "POST", body: JSON.stringify(question) })).json();
  if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error);
  return answer.result;
} };
const detail = Object.freeze({ info: { uuid: "350670db-19fa-4704-a166-e52e178b59d2", name: "Test Wallet" }, provider });
const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
window.addEventListener("eip6963:requestProvider", announce);
announce();
"""


class Wallet:
    """A wallet with a real key of eth-account's; its person may decline, or have another account selected."""

    def __init__(self) -> None:
        self.account, self.selected = Account.create(), None
        self.declines = False
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        question = json.loads(await request.text())
        self.asked.append(question["method"])
        found: dict[str, Any]
        if question["method"] == "eth_requestAccounts":
            found = {"result": [self.account.address]}
        elif self.declines:
            found = {"error": {"code": 4001, "message": "User rejected the request"}}
        else:
            assert question["params"][0] == self.account.address
            typed_data = json.loads(question["params"][1])
            signed = (self.selected or self.account).sign_typed_data(full_message=typed_data)
            found = {"result": "0x" + signed.signature.hex().removeprefix("0x")}
        return web.json_response(found, headers={"Access-Control-Allow-Origin": "*"})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[str]:
    """The service's URL. It ends at Ctrl-C without a word."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVICE), "0", stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 90)
        assert line, await process.communicate()
        yield line.decode().split()[-1]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, stderr) == (0, b"")


@pytest.fixture(scope="module")
def wallet() -> Wallet:
    return Wallet()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(service: str, wallet: Wallet) -> AsyncIterator[Browser]:
    """The service's page in a browser with the wallet; skipped where there is no Chromium, but not in CI."""
    missing = missing_programs()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{' and '.join(missing)} must be installed in CI")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (Debian packages chromium, chromium-driver)")
    async with wallet.serving() as url, browser() as window:
        source = f"{{ const WALLET = {json.dumps(url)}; {PROVIDER} }}"
        injected = {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": source}}
        await window.call("POST", "/goog/cdp/execute", injected)
        await window.call("POST", "/url", {"url": service})
        yield window


async def press(page: Browser) -> dict[str, Any]:
    """Press the wallet's button, and return what the page then says."""
    text = await page.run(
        """
        const log = document.querySelector("#log");
        const before = log.textContent;
        document.querySelector("#wallets button").click();
        return new Promise((resolve) => {
          new MutationObserver(() => resolve(log.textContent.slice(before.length))).observe(log, { childList: true });
        });
        """
    )
    found: dict[str, Any] = json.loads(text)
    return found


async def test_a_visitor_makes_a_session_key(page: Browser, wallet: Wallet) -> None:
    """The page finds the wallet, which is asked to sign once; the page learns the address, and nothing secret."""
    assert await page.run("return document.querySelector('#wallets').textContent") == (
        "Make a session key with Test Wallet"
    )
    made = await press(page)
    assert set(made) == {"address", "expiresAt"}, made
    assert wallet.asked == ["eth_requestAccounts", "eth_signTypedData_v4"]
    assert (await press(page))["address"] != made["address"]


async def test_a_visitor_declines(page: Browser, wallet: Wallet) -> None:
    """It is called off, and the next try goes well."""
    wallet.declines = True
    assert await press(page) == {"error": "User rejected the request"}
    wallet.declines = False
    assert "address" in await press(page)


async def test_a_visitor_signs_with_another_account(page: Browser, wallet: Wallet) -> None:
    """The page says which."""
    wallet.selected = Account.create()
    error = (await press(page))["error"]
    wallet.selected = None
    assert "not as the owner" in error
    assert wallet.account.address in error


async def test_what_is_wrong_has_a_status(service: str) -> None:
    """For whoever is not the page: no owner, no such id, no signature."""
    async with ClientSession(service) as http:

        async def post(path: str, **body: str) -> tuple[int, str]:
            async with http.post(path, json=body) as response:
                return response.status, await response.text()

        assert (await post("/sessions", owner="me"))[0] == 400
        assert (await post("/sessions"))[0] == 422
        status, text = await post("/sessions/0x12", signature="0x")
        assert (status, "no session key with this id" in text) == (404, True)
        _, text = await post("/sessions", owner=Account.create().address)
        assert (await post(f"/sessions/{json.loads(text)['id']}", signature="0x12"))[0] == 400


@pytest.mark.parametrize("port", ["soon", "70000"])
async def test_a_wrong_port_is_a_line(port: str) -> None:
    """Not a traceback."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVICE), port, stdout=pipe, stderr=pipe
    )
    stdout, stderr = await asyncio.wait_for(process.communicate(), 40)
    assert (bool(process.returncode), stdout) == (True, b"")
    assert b"error: " in stderr
    assert b"Traceback" not in stderr
