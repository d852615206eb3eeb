"""Web pages at the doors of nodes and gateways: refused, but for those whose origin was named."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dan_async.devnet import Devnet
from dan_async.errors import InvalidFieldError
from tests.cli.test_devnet_command import TWO, running
from tests.passkeys.chromium import Browser, browser, missing_programs

PAGE = "http://localhost:5173"
HEALTH = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "dan_health", "params": {}})


def doors(net: Devnet) -> dict[str, str]:
    """The WebSocket doors of a devnet."""
    node = net.nodes[0].url
    return {"node": node, "gateway": f"{net.gateway_url}/keygen", "peer": node.replace("/rpc", "/peer")}


async def upgraded(url: str, origin: str | None) -> int:
    """Open a WebSocket as a page does; give the status of the answer, 101 if it opened."""
    async with aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(url, origin=origin):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def posted(url: str, origin: str | None, method: str = "POST") -> int:
    """POST to a node as a page does, or ask before, as its browser does; give the status."""
    headers = {"Content-Type": "application/json"} | ({} if origin is None else {"Origin": origin})
    async with aiohttp.ClientSession() as http:
        url = url.replace("ws:", "http:")
        async with http.request(method, url, data=HEALTH, headers=headers) as reply:
            return reply.status


@pytest.mark.parametrize("processes", [False, True], ids=["in-process", "processes"])
@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://localhost:5174", PAGE])
async def test_pages_are_refused_unless_their_origin_is_allowed(
    make_devnet: Any, processes: bool, origin: str
) -> None:
    """At every door, and never let in where nodes meet nodes; whoever sends no origin is no page."""
    net = await make_devnet(2, 2, processes=processes, allow_origins=[PAGE, "https://app.example"])
    is_allowed = origin == PAGE
    for name, url in doors(net).items():
        assert await upgraded(url, origin) == (101 if is_allowed and name != "peer" else 403), name
        assert await upgraded(url, None) == 101
    node = net.nodes[0].url
    assert await posted(node, origin) == (200 if is_allowed else 403)
    assert await posted(node, origin, "OPTIONS") == (405 if is_allowed else 403)
    assert await posted(node, None) == 200


async def test_no_page_is_allowed_unless_asked_for(devnet: Devnet) -> None:
    """Not even one of the node's own port, nor beside one that is: a gateway that is added later does the same."""
    added = await devnet.add_gateway()
    for url in (*doors(devnet).values(), f"{added}/keygen"):
        own = "http://" + url.split("/")[2]
        assert await upgraded(url, own) == 403
        assert await upgraded(url, PAGE) == 403


@pytest.mark.parametrize(
    "origins",
    [
        PAGE,
        ["localhost:5173"],
        ["*"],
        ["null"],
        [f"{PAGE}/"],
        ["http://u@localhost"],
        ["http://Localhost"],
        [b"http://localhost"],
        [""],
        5,
    ],
)
def test_what_is_no_origin_is_refused(origins: Any) -> None:
    """It would never match, or match too much: every sandboxed page is of the origin null."""
    with pytest.raises(InvalidFieldError, match="allow_origins"):
        Devnet(2, 2, allow_origins=origins)


async def test_the_command_takes_origins() -> None:
    """--allow-origin may be repeated; a wrong one is an error."""
    with running(*TWO, "--json", "--allow-origin", "http://a.example", "--allow-origin", PAGE) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["nodes"][0]["url"]
        assert await upgraded(url, PAGE) == await upgraded(url, "http://a.example") == 101
        assert await upgraded(url, "http://b.example") == 403
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    with running(*TWO, "--allow-origin", "*") as process:
        _, said = process.communicate(timeout=20)
        assert "--allow-origin must be origins" in said
        assert process.returncode != 0


# --- in a real browser ------------------------------------------------------------------------------------------------

OPENED = """
    const [url] = [%s];
    return new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => { socket.close(); done("open"); };
        socket.onerror = () => done("refused");
    });
"""


async def at_page(window: Browser) -> tuple[web.AppRunner, str]:
    """Serve an empty page and open it; give the server, and the page's origin."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>a page</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0)
    await site.start()
    origin = f"http://localhost:{runner.addresses[0][1]}"
    await window.call("POST", "/url", {"url": origin})
    return runner, origin


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_page_in_a_browser(make_devnet: Any) -> None:
    """It reaches neither node nor gateway of the usual devnet, and both where it is allowed."""
    missing = missing_programs()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs {' and '.join(missing)}")
    async with browser() as window:
        runner, origin = await at_page(window)
        try:
            usual = await make_devnet(2, 2)
            allowing = await make_devnet(2, 2, allow_origins=[origin])
            for net, said in ((usual, "refused"), (allowing, "open")):
                for name in ("node", "gateway"):
                    assert await window.run(OPENED % json.dumps(doors(net)[name])) == said, name
                assert await window.run(OPENED % json.dumps(doors(net)["peer"])) == "refused"
        finally:
            await runner.cleanup()
