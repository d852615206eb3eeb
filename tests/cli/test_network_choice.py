"""Which network the options name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dan_async.cli.options import (
    DEVNET_CHAIN_ID,
    KeygenNetworkOptions,
    NetworkChoice,
    NetworkOptions,
    check_threshold,
)
from dan_async.config import NodeEndpoint, Threshold
from dan_async.errors import ConfigurationError, InsecureTransportError
from dan_async.network_file import ChainEndpoints, NetworkFile
from tests.cli.conftest import Run

OPERATORS = [f"0x{number:040x}" for number in range(1, 21)]
NODES = [f"ws://127.0.0.1:{9000 + place}/v1/rpc={operator}" for place, operator in enumerate(OPERATORS)]


def choose(
    devnet: str | None = None,
    nodes: list[str] | None = None,
    threshold: int | None = None,
    parties: int | None = None,
    **others: Any,
) -> NetworkChoice:
    given = KeygenNetworkOptions(devnet=devnet, node=nodes, threshold=threshold, parties=parties, **others)
    return given.choose()


def test_a_devnet_takes_its_threshold_from_the_option() -> None:
    """--devnet 2-of-3 names both numbers."""
    choice = choose(devnet="2-of-3")
    assert choice.is_devnet
    assert choice.threshold == Threshold(2, 3)
    assert choice.describe() == "3 nodes on loopback"


def test_nodes_are_read_in_order() -> None:
    """Each --node gives a URL and an operator."""
    choice = choose(nodes=NODES[:3], threshold=2, parties=3)
    assert choice.file is not None
    assert [node.url for node in choice.file.nodes] == [node.rpartition("=")[0] for node in NODES[:3]]
    assert [node.operator for node in choice.file.nodes] == OPERATORS[:3]
    assert choice.describe() == "3 nodes"


@pytest.mark.parametrize(
    ("count", "threshold", "parties", "expected"),
    [
        (7, None, None, Threshold(4, 7)),
        (3, None, None, Threshold(2, 3)),
        (20, None, None, Threshold(11, 20)),
        (5, None, None, Threshold(3, 5)),
        (4, None, None, Threshold(3, 4)),
        (7, None, 5, Threshold(3, 5)),
        (3, 2, None, Threshold(2, 3)),
        (7, 4, 7, Threshold(4, 7)),
    ],
)
def test_usual_threshold(count: int, threshold: int | None, parties: int | None, expected: Threshold) -> None:
    """Without numbers all nodes take part, and a majority of them signs."""
    assert choose(nodes=NODES[:count], threshold=threshold, parties=parties).threshold == expected


@pytest.mark.parametrize(
    "text", ["", "3", "3of5", "3-of-", "-of-5", "3-of-5-of-7", "a-of-b", "٣-of-5", "3 - of - 5"]
)
def test_a_malformed_devnet_is_refused(text: str) -> None:
    """Anything but T-of-N is refused, with an example."""
    with pytest.raises(ConfigurationError, match=r"--devnet must .*T-of-N.*3-of-5"):
        choose(devnet=text)


@pytest.mark.parametrize("text", ["1-of-5", "6-of-5", "3-of-21", "0-of-0", "2-of-1"])
def test_a_devnet_out_of_range_is_refused(text: str) -> None:
    """2 <= t <= n <= 20 is checked before anything starts."""
    with pytest.raises(ConfigurationError, match="--devnet: "):
        choose(devnet=text)


@pytest.mark.parametrize(
    ("threshold", "parties", "option"),
    [(1, 5, "--threshold"), (6, 5, "--threshold"), (3, 21, "--parties"), (3, 1, "--parties")],
)
def test_numbers_for_nodes_are_checked(threshold: int, parties: int, option: str) -> None:
    """The error names the option that is wrong."""
    with pytest.raises(ConfigurationError, match=f"^{option} "):
        choose(nodes=NODES, threshold=threshold, parties=parties)


def test_an_error_speaks_of_options_only() -> None:
    """The client's own parameter names do not appear."""
    with pytest.raises(ConfigurationError) as caught:
        check_threshold(6, 5, parties_option="--nodes")
    assert "parties_number" not in str(caught.value)
    assert "--nodes" in str(caught.value)


def test_more_parties_than_nodes_are_refused() -> None:
    """A key cannot have more parties than there are nodes."""
    with pytest.raises(ConfigurationError, match="--parties asks for 5 nodes, but 3 are named"):
        choose(nodes=NODES[:3], threshold=3, parties=5)


def test_two_networks_are_refused() -> None:
    """--devnet and --node exclude each other."""
    with pytest.raises(ConfigurationError, match="--devnet and --node both"):
        choose(devnet="2-of-3", nodes=NODES)


def test_no_network_is_refused() -> None:
    """The error says what to give, and names --devnet only where a command has it."""
    with pytest.raises(ConfigurationError, match=r"no network is named\. Use --devnet"):
        choose()
    with pytest.raises(ConfigurationError, match=r"no network is named\. Use --network FILE, --node"):
        NetworkOptions().choose()


@pytest.mark.parametrize(("threshold", "parties"), [(2, None), (None, 3), (2, 3)])
def test_numbers_beside_a_devnet_are_refused(threshold: int | None, parties: int | None) -> None:
    """--devnet says both numbers; a second source of them would be ambiguous."""
    with pytest.raises(ConfigurationError, match="are for --node"):
        choose(devnet="2-of-3", threshold=threshold, parties=parties)


@pytest.mark.parametrize(
    "text", ["", "ws://127.0.0.1:1", f"={OPERATORS[0]}", f"ftp://x={OPERATORS[0]}", "ws://127.0.0.1=0x12"]
)
def test_a_malformed_node_is_refused(text: str) -> None:
    """Which --node it was, and what is wrong with it."""
    with pytest.raises(ConfigurationError, match=r"^--node number 2: "):
        choose(nodes=[NODES[0], text])


def test_a_node_without_tls_elsewhere_is_refused() -> None:
    """ws:// is for loopback; the line says what to use instead."""
    with pytest.raises(ConfigurationError, match=r"--node: .*not loopback.*wss://") as caught:
        choose(nodes=[f"ws://node.example/v1/rpc={OPERATORS[0]}", NODES[1]])
    assert not isinstance(caught.value, InsecureTransportError)


def test_a_single_node_is_refused() -> None:
    """A key needs two; the line says what to do."""
    with pytest.raises(ConfigurationError, match=r"--node is given only once.*Repeat"):
        choose(nodes=NODES[:1])


def test_a_network_file_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or environment; an option that names another network wins over the environment."""
    file = tmp_path / "net.toml"
    file.write_text(
        NetworkFile(nodes=tuple(map(NodeEndpoint.of, NODES[:5])), threshold=Threshold(2, 4)).to_toml()
    )
    choice = choose(network=str(file))
    assert (choice.threshold, choice.option, choice.describe()) == (Threshold(2, 4), "--network", "5 nodes")
    assert choose(network=str(file), threshold=3, parties=5).threshold == Threshold(3, 5)
    assert choose(network=str(file), parties=5).threshold == Threshold(3, 5)
    monkeypatch.setenv("DAN_ASYNC_NETWORK", str(file))
    assert choose().option == "DAN_ASYNC_NETWORK"
    assert choose(nodes=NODES[:3]).threshold == Threshold(2, 3)
    with pytest.raises(ConfigurationError, match="--network and --node both name"):
        choose(network=str(file), nodes=NODES[:3])
    file.write_text("[[nodes]]")
    with pytest.raises(ConfigurationError, match=r"DAN_ASYNC_NETWORK: .*nodes\[0\]\.url"):
        choose()


def test_an_operator_that_is_named_twice_is_refused_at_once(tmp_path: Path) -> None:
    """By every command, before it makes a store or asks a node, and with the option that named it."""
    twice = [NODES[0], NODES[1].rpartition("=")[0] + "=" + OPERATORS[0], NODES[2]]
    with pytest.raises(ConfigurationError, match=r"^--node names an operator twice"):
        choose(nodes=twice)
    file = tmp_path / "net.toml"
    tables = (
        f'[[nodes]]\nurl = "{url}"\noperator = "{who}"\n'
        for url, _, who in (n.rpartition("=") for n in twice)
    )
    file.write_text("".join(tables))
    with pytest.raises(ConfigurationError, match=r"^--network: .*net\.toml: nodes names an operator twice"):
        choose(network=str(file))


def test_a_hint_about_a_network_file_names_its_members_and_no_options(run: Run, tmp_path: Path) -> None:
    """Both have the name api_version, one of them with dashes."""
    file = tmp_path / "net.toml"
    file.write_text('kind = "gateway"\nurl = "wss://gateway.example/v1"\nport = 1\n')
    done = run("status", "--network", str(file))
    assert done.error.endswith("Members: kind, threshold, connection, chain, url, revision, api_version")
    file.write_text('kind = "gateway"\nurl = "wss://gateway.example"\n')
    assert "net.toml: url must end with the version segment" in run("status", "--network", str(file)).error
    file.write_text('kind = "gateway"\nurl = "wss://gateway.example/v1"\nrevision = "2"\n')
    assert "net.toml: revision must be one of" in run("status", "--network", str(file)).error
    done = run("status", "--gateway", "wss://gateway.example/v2", "--api-version", "v1")
    assert done.error.endswith("or the other --api-version")


@pytest.mark.parametrize("text", ["devnet://2-of-3", "wss://gateway.example/v1"])
def test_a_url_is_no_network_file(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a program takes it from the same variable: the error has the options for it."""
    monkeypatch.setenv("DAN_ASYNC_NETWORK", text)
    with pytest.raises(ConfigurationError, match=r"^DAN_ASYNC_NETWORK must be a network file.*--gateway URL"):
        choose()


def test_a_file_names_its_chain(tmp_path: Path) -> None:
    """So that --chain-id need not; a devnet of the command's own has one as well."""
    nodes = tuple(NodeEndpoint(f"wss://{n}.example", f"0x{n:040x}") for n in (1, 2, 3))
    for chain, expected in ((ChainEndpoints(137), 137), (None, None)):
        file = tmp_path / "net.toml"
        file.write_text(NetworkFile(nodes=nodes, chain=chain).to_toml())
        assert choose(network=str(file)).chain_id == expected
    assert choose(devnet="2-of-3").chain_id == DEVNET_CHAIN_ID
