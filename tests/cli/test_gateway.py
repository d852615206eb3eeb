"""``dan-async keygen --gateway``: a gateway that runs elsewhere, in each revision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dan_async import DanSessionKeyPayload, GatewayNetwork
from dan_async.cli.options import KeygenNetworkOptions
from dan_async.config import Threshold, Timeouts
from dan_async.errors import ConfigurationError
from tests.cli.conftest import Run

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
GATEWAY = "wss://gateway.example/v1"


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(KEY)
    return str(path)


def choose(**options: Any) -> Any:
    """Choose with the defaults of the command line."""
    return KeygenNetworkOptions(**options).choose()


# --- the options ------------------------------------------------------------------------------------------------------


def test_a_gateway_is_chosen() -> None:
    """Its revision is left to be found out, and 3-of-5 is the usual threshold."""
    choice = choose(gateway=GATEWAY + "/")
    assert choice.file is not None
    assert (choice.file.gateway, choice.file.revision, choice.file.api_version) == (GATEWAY, None, "v1")
    assert choice.threshold == Threshold(3, 5)
    assert not choice.is_devnet
    assert choice.describe() == "the gateway"
    network = choice.client(Timeouts()).network
    assert isinstance(network, GatewayNetwork)
    assert network.revision is None


def test_revision_threshold_and_version_are_taken() -> None:
    """Each option reaches the network."""
    choice = choose(gateway=GATEWAY, revision="0.3", threshold=2, parties=3)
    assert choice.threshold == Threshold(2, 3)
    assert choice.client(Timeouts()).network.revision == "0.3"
    one_shot = choose(gateway="wss://gateway.example/v2", api_version="v2")
    assert one_shot.client(Timeouts()).network.revision == "1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"gateway": "wss://gateway.example"},
            r"^--gateway must end with the version segment.*\. For example wss",
        ),
        ({"gateway": "wss://gateway.example/v2"}, r"^--gateway ends with /v2, and --api-version is v1"),
        ({"gateway": GATEWAY, "api_version": "v2"}, r"^--gateway ends with /v1, and --api-version is v2"),
        ({"gateway": "ws://gateway.example/v1"}, r"^--gateway uses ws:// to a host that is not loopback"),
        ({"gateway": "https://gateway.example/v1"}, r"^--gateway must be a URL that begins with wss://"),
        ({"gateway": ""}, r"^--gateway must be a URL"),
        ({"gateway": GATEWAY, "revision": "2"}, r"^--revision must be one of 0\.1, 0\.3, 1"),
        ({"gateway": GATEWAY, "api_version": "v3"}, r"^--api-version must be v1 or v2"),
        (
            {"gateway": "wss://g.example/v2", "api_version": "v2", "revision": "0.3"},
            r"^--api-version must be v1 in revision 0\.3",
        ),
        ({"gateway": GATEWAY, "threshold": 1}, r"^--threshold "),
        ({"gateway": GATEWAY, "parties": 21}, r"^--parties "),
        ({"gateway": GATEWAY, "devnet": "2-of-3"}, r"^--devnet and --gateway both name a network"),
        ({"gateway": GATEWAY, "node": ["x"]}, r"^--node and --gateway both name a network"),
        ({"devnet": "2-of-3", "revision": "1"}, r"^--revision and --api-version are for --gateway"),
        ({"node": ["x"], "api_version": "v1"}, r"^--revision and --api-version are for --gateway"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    """The error speaks of options, and says what is wrong."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        choose(**options)
    assert "api_version" not in str(caught.value)


def test_wrong_options_give_exit_code_2(run: Run, key_file: str) -> None:
    """One line, nothing sent."""
    finished = run(
        "keygen", "--gateway", "wss://gateway.example", "--chain-id", "1", "--private-key-file", key_file
    )
    assert finished.code == 2
    assert "--gateway" in finished.error


def test_a_gateway_needs_a_chain_id(run: Run, key_file: str) -> None:
    """There is no usual chain outside of a devnet."""
    finished = run("keygen", "--gateway", GATEWAY, "--private-key-file", key_file)
    assert finished.code == 2
    assert "--chain-id is needed with --gateway" in finished.error


def test_a_gateway_needs_a_wallet(run: Run) -> None:
    """Throwaway owners are for devnets only."""
    finished = run("keygen", "--gateway", GATEWAY, "--chain-id", "1")
    assert finished.code == 2
    assert "no wallet is named" in finished.error


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [(), ("--revision", "0.1"), ("--revision", "0.3"), ("--revision", "1"), ("--api-version", "v2")],
)
def test_a_key_over_a_gateway(run: Run, gateway: str, key_file: str, options: tuple[str, ...]) -> None:
    """In each revision, and where it is found out: the seven fields on standard output, nothing on standard error."""
    url = gateway.replace("/v1", "/v2") if "v2" in options else gateway
    finished = run(
        "keygen",
        *("--gateway", url, *options, "--threshold", "2", "--parties", "3", "--chain-id", "137"),
        *("--private-key-file", key_file, "--json"),
    )
    assert finished.code == 0, finished.err
    session = DanSessionKeyPayload.from_dict(json.loads(finished.out))
    assert (session.threshold, session.parties_number, session.chain_id) == (2, 3, 137)
    assert session.eoa_address == ADDRESS
    assert finished.err == ""


def test_a_gateway_that_is_down_gives_exit_code_1(run: Run, key_file: str) -> None:
    """One line that names it."""
    finished = run(
        "keygen",
        *("--gateway", "ws://127.0.0.1:9/v1", "--chain-id", "1", "--private-key-file", key_file),
    )
    assert (finished.code, finished.out) == (1, "")
    assert "no connection to ws://127.0.0.1:9/v1" in finished.err


def test_a_gateway_that_refuses_gives_exit_code_1(run: Run, gateway: str, key_file: str) -> None:
    """More parties than there are nodes: the gateway's own words."""
    finished = run(
        "keygen",
        *("--gateway", gateway, "--revision", "1", "--chain-id", "1", "--private-key-file", key_file),
    )
    assert (finished.code, finished.out) == (1, "")
    assert "5 are needed" in finished.err
