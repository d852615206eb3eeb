"""The example's page in a real browser: a passkey is made there, and owns a session key on real nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dan_async.wallets.passkey import decode_base64url
from tests.passkeys.chromium import Browser, browser, missing_programs

#: One event loop for the file: the browser and the server are started once.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SERVER = Path(__file__).parent.parent.parent / "examples" / "passkey_page" / "server.py"


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """Skip where there is no Chromium; in CI there is one."""
    missing = missing_programs()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{' and '.join(missing)} must be installed in CI")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (Debian packages chromium, chromium-driver)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(programs: None) -> AsyncIterator[Browser]:
    """The example's page, open in a browser."""
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), "0", stdout=pipe, stderr=pipe)
    assert server.stdout is not None
    try:
        line = await asyncio.wait_for(server.stdout.readline(), 90)
        assert line, await server.communicate()
        async with browser() as window:
            await window.call("POST", "/url", {"url": line.decode().split()[-1]})
            yield window
    finally:
        if server.returncode is None:
            server.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(server.communicate(), 30)
    assert (server.returncode, stderr) == (0, b"")


async def press(page: Browser, button: str) -> dict[str, Any]:
    """Press a button and give what the page then says."""
    text = await page.run(
        f"""
        const log = document.querySelector("#log");
        const before = log.textContent;
        document.querySelector("#{button}").click();
        return new Promise((resolve) => {{
          new MutationObserver(() => resolve(log.textContent.slice(before.length))).observe(log, {{ childList: true }});
        }});
        """
    )
    found: dict[str, Any] = json.loads(text)
    return found


async def test_a_passkey_made_in_the_browser_owns_session_keys(page: Browser) -> None:
    """Registered once, used twice; the browser's authenticator counts."""
    made = await press(page, "register")
    (credential,) = await page.credentials()
    assert decode_base64url("id", made["credentialId"]) == decode_base64url("id", credential["credentialId"])
    assert credential["rpId"] == "localhost"
    sessions = [await press(page, "session") for _ in range(2)]
    assert all(session["address"].startswith("0x") for session in sessions), sessions
    assert len({session["keyId"] for session in sessions}) == 2
    (used,) = await page.credentials()
    assert used["signCount"] > credential["signCount"]


async def test_a_person_who_is_not_recognised_gets_nothing(page: Browser) -> None:
    """The browser declines, the page says so, and the next try goes well."""
    await press(page, "register")
    await page.verify_person(False)
    declined = await press(page, "session")
    assert declined["kind"] == "WalletRefusedError"
    await page.verify_person(True)
    assert "address" in await press(page, "session")


async def test_another_page_cannot_run_jobs(page: Browser) -> None:
    """A WebSocket from another origin is refused."""
    origin = await page.run("return location.origin")
    elsewhere = origin.replace("localhost", "127.0.0.1")
    await page.call("POST", "/url", {"url": elsewhere})
    refused = await page.run(
        f"""
        const socket = new WebSocket("{origin.replace("http", "ws")}/jobs/register");
        return new Promise((resolve) => {{
          socket.onopen = () => resolve("opened");
          socket.onerror = () => resolve("refused");
        }});
        """
    )
    await page.call("POST", "/url", {"url": origin})
    assert refused == "refused"
