"""Headless Chromium with a virtual authenticator, driven over the WebDriver protocol (W3C WebDriver 2, WebAuthn 3 section 11)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

FLAGS = [
    "--headless",
    "--no-sandbox",  # it may run as root, in a container, on pages of our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
}


def missing_programs() -> list[str]:
    """Give the programs that are not installed."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """One browser window with one authenticator."""

    def __init__(self, http: aiohttp.ClientSession, session: str) -> None:
        self._http = http
        self._session = session
        self._authenticator = ""

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a WebDriver command; give its value."""
        sent = None if method == "DELETE" else body or {}
        async with self._http.request(method, f"/session/{self._session}{path}", json=sent) as reply:
            value = (await reply.json())["value"]
        assert reply.status == 200, value
        return value

    async def plug_in(self) -> None:
        """Attach the authenticator."""
        self._authenticator = await self.call("POST", "/webauthn/authenticator", AUTHENTICATOR)

    async def verify_person(self, is_verified: bool) -> None:
        """Decide whether the authenticator recognises the person from now on."""
        path = f"/webauthn/authenticator/{self._authenticator}/uv"
        await self.call("POST", path, {"isUserVerified": is_verified})

    async def credentials(self) -> list[dict[str, Any]]:
        """Give what the authenticator holds."""
        async with self._http.get(
            f"/session/{self._session}/webauthn/authenticator/{self._authenticator}/credentials"
        ) as reply:
            found: list[dict[str, Any]] = (await reply.json())["value"]
        return found

    async def run(self, script: str) -> Any:
        """Run a function's body in the page; a promise is waited for."""
        return await self.call("POST", "/execute/sync", {"script": script, "args": []})


@contextlib.asynccontextmanager
async def chromedriver(folder: str) -> AsyncIterator[str]:
    """Run the driver on a free port; give its URL."""
    process = await asyncio.create_subprocess_exec(
        "chromedriver",
        "--port=0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"HOME": folder, "TMPDIR": folder},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while True:
                line = (await process.stdout.readline()).decode()
                found = re.search(r"successfully on port (\d+)", line)
                if found:
                    break
                assert line, "chromedriver has ended"
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        await process.communicate()


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Open a window with an empty profile and an authenticator that recognises the person; close everything after."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with chromedriver(folder) as url, aiohttp.ClientSession(url) as http:
            flags = [*FLAGS, f"--user-data-dir={folder}/profile"]
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": flags, "binary": shutil.which("chromium")},
            }
            async with http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}) as reply:
                value = (await reply.json())["value"]
            assert reply.status == 200, value
            window = Browser(http, value["sessionId"])
            try:
                await window.plug_in()
                yield window
            finally:
                await window.call("DELETE", "")
