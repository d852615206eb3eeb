"""Network files: what they say, what is wrong with them, and where they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dan_async import DanClient, GatewayNetwork, NodeNetwork, Threshold
from dan_async.config import NodeEndpoint
from dan_async.devnet import Devnet
from dan_async.errors import ConfigurationError, InsecureTransportError
from dan_async.network_file import ChainEndpoints, NetworkFile, find_network_file

ONE, TWO, THREE = (f"0x{number:040x}" for number in (1, 2, 3))
NODES = f"""
kind = "nodes"
threshold = "2-of-3"

[[nodes]]
url = "wss://one.example/v1/rpc"
operator = "{ONE}"
[[nodes]]
url = "wss://two.example/v1/rpc"
operator = "{TWO}"
[[nodes]]
url = "wss://three.example/v1/rpc"
operator = "{THREE}"
"""
GATEWAY = 'kind = "gateway"\nurl = "wss://gateway.example/v1"\nrevision = "0.3"\n'


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(text: str, name: str = "net.toml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


def test_nodes(write: Any) -> None:
    """Endpoints and threshold; connections as usual."""
    found = NetworkFile.read(write(NODES))
    assert [node.operator for node in found.nodes] == [ONE, TWO, THREE]
    assert (found.threshold, found.gateway) == (Threshold(2, 3), None)
    network = NodeNetwork.from_file(write(NODES))
    assert network.default_threshold == Threshold(2, 3)
    assert NodeNetwork.from_file(write(NODES), threshold=Threshold(3, 3)).default_threshold == Threshold(3, 3)


def test_a_file_from_windows(write: Any) -> None:
    """A byte order mark and other line ends change nothing."""
    path = write("")
    path.write_bytes(b"\xef\xbb\xbf" + NODES.replace("\n", "\r\n").encode())
    assert NetworkFile.read(path) == NetworkFile.read(write(NODES))


def test_a_gateway(write: Any) -> None:
    """URL, revision and version segment."""
    network = GatewayNetwork.from_file(str(write(GATEWAY)))
    assert (network.revision, network.default_threshold) == ("0.3", Threshold(3, 5))


def test_the_wrong_kind_says_which_it_is(write: Any) -> None:
    """Each class takes its own kind of file."""
    with pytest.raises(ConfigurationError, match="file of a gateway"):
        NodeNetwork.from_file(write(GATEWAY))
    with pytest.raises(ConfigurationError, match="file of nodes"):
        GatewayNetwork.from_file(write(NODES))


def test_connections(write: Any) -> None:
    """Pins, limits, and headers of which the file only names the variable."""
    text = GATEWAY + (
        f'[connection]\npins = ["{"ab" * 32}"]\nmax_message_bytes = 65536\n'
        '[connection.headers]\nX-Api-Key = { env = "DAN_KEY" }\nX-Team = "bots"\n'
    )
    options = NetworkFile.read(write(text), environment={"DAN_KEY": "sesame"}).options
    assert (options.pins, options.max_message_bytes) == ((b"\xab" * 32,), 65536)
    assert options.headers == {"X-Api-Key": "sesame", "X-Team": "bots"}
    with pytest.raises(ConfigurationError, match="DAN_KEY is not set"):
        NetworkFile.read(write(text), environment={})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nodes = 3", "nodes must be a list of tables"),
        ("kind = 'bridge'", "kind must be nodes or gateway"),
        ("kind = 'gateway'", "url is missing"),
        (NODES + "[[nodes]]\nurl = 'wss://x.example'\n", r"nodes\[3\].operator is missing"),
        (NODES.replace("wss://two", "ws://two"), "not loopback"),
        (NODES.replace("threshold", "treshold"), "treshold is not known here"),
        (NODES.replace("2-of-3", "3-of-2"), "threshold is 3, more than"),
        (NODES + "[conection]\n", "conection is not known here"),
        (GATEWAY + "[connection]\nca_file = 'none.pem'\n", "connection.ca_file is not a file of PEM"),
        (GATEWAY + "[connection]\npin = []\n", "connection.pin is not known here"),
        (GATEWAY + "[connection.headers]\nA = { env = 3 }\n", "is not set"),
        (GATEWAY + "[connection.headers]\nA = 3\n", "headers"),
        ("kind = nodes", "is not TOML"),
        ('kind = "\xff', "is not TOML"),
    ],
)
def test_errors_name_file_and_member(write: Any, text: str, problem: str) -> None:
    """And nothing of a value."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        NetworkFile.read(write(text))
    assert "net.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It says which."""
    with pytest.raises(ConfigurationError, match=r"no\.toml cannot be read: No such file"):
        NetworkFile.read(tmp_path / "no.toml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        NetworkFile.read(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        NetworkFile(nodes=(NodeEndpoint("wss://one.example/v1/rpc", ONE),), threshold=Threshold(2, 2)),
        NetworkFile(gateway="wss://gateway.example/v2", revision="1", api_version="v2"),
    ],
)
def test_what_is_written_is_read_again(write: Any, file: NetworkFile) -> None:
    """All but the settings of connections."""
    assert NetworkFile.read(write(file.to_toml())) == file


def test_a_name_is_looked_up_in_the_configuration_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown one lists those that there are."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "dan-async" / "networks"
    folder.mkdir(parents=True)
    (folder / "amoy.toml").write_text(NODES)
    assert find_network_file("amoy") == folder / "amoy.toml"
    with pytest.raises(ConfigurationError, match="no network of that name") as caught:
        find_network_file("main")
    assert "amoy" in str(caught.value)
    assert find_network_file("./x.toml") == Path("x.toml")
    monkeypatch.chdir(tmp_path)
    Path("main").touch()
    with pytest.raises(ConfigurationError, match=r"For the file here: \./main"):
        find_network_file("main")


class TestConnect:
    """One text to a client."""

    async def test_a_devnet_of_its_own(self) -> None:
        """It runs as long as the client."""
        async with DanClient.connect("devnet://2-of-3") as dan:
            assert (await dan.network.health()).live == 3

    async def test_files_names_and_urls(
        self, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kind of network follows from the text."""
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        (tmp_path / "dan-async" / "networks").mkdir(parents=True)
        (tmp_path / "dan-async" / "networks" / "main.toml").write_text(GATEWAY)
        for where, kind in {
            str(write(NODES)): NodeNetwork,
            "main": GatewayNetwork,
            "wss://gateway.example/v1": GatewayNetwork,
            f"wss://one.example/v1/rpc={ONE} wss://two.example/v1/rpc={TWO}": NodeNetwork,
        }.items():
            client = DanClient.connect(where)
            assert isinstance(client.network, kind)
            await client.aclose()
        monkeypatch.setenv("DAN_ASYNC_NETWORK", "main")
        client = DanClient.connect()
        assert isinstance(client.network, GatewayNetwork)
        await client.aclose()

    @pytest.mark.parametrize(
        ("where", "kind"),
        [
            ("", ConfigurationError),
            (None, ConfigurationError),
            ("devnet://many", ConfigurationError),
            ("http//x", ConfigurationError),
            ("ws://gateway.example/v1", InsecureTransportError),
            (7, ConfigurationError),
        ],
    )
    def test_what_names_no_network(
        self, where: Any, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One clear error, before anything is opened."""
        monkeypatch.delenv("DAN_ASYNC_NETWORK", raising=False)
        with pytest.raises(kind):
            DanClient.connect(where)


class TestPorts:
    """A devnet's ports: named, or kept with its storage."""

    async def test_ports_in_a_row(self) -> None:
        """The gateway's first; a port that is in use is an error."""
        async with Devnet(2, 2) as net:
            taken = int(net.gateway_url.rpartition(":")[2].partition("/")[0])
            with pytest.raises(OSError, match="in use"):
                await Devnet(2, 2, port=taken).start()
            # Below the ports that systems give to connections, where any of ours may have one of the three.
            base = 20_000 + taken % 1000 * 10
        async with Devnet(2, 2, port=base) as net:
            assert net.gateway_url == f"ws://127.0.0.1:{base}/v1"
            assert [node.url for node in net.nodes] == [f"ws://127.0.0.1:{base + i}/v1/rpc" for i in (1, 2)]

    async def test_ports_are_kept_with_the_storage(self, tmp_path: Path) -> None:
        """So that a network file stays right; one that somebody else has meanwhile is replaced."""
        async with Devnet(2, 2, storage=tmp_path) as net:
            before = net.describe()
        async with Devnet(2, 2, storage=tmp_path) as net:
            assert net.describe() == before
        (tmp_path / "ports.json").write_text('["x", 70000')
        async with Devnet(2, 2, storage=tmp_path) as net:
            assert len(net.endpoints) == 2


def test_the_chain(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id, and where it is reached, from the environment if the URLs are secret; written as it is read."""
    text = (
        GATEWAY + '[chain]\nid = 137\nrpc_url = { env = "RPC" }\nbundler_url = "http://127.0.0.1:4337/rpc"\n'
    )
    found = NetworkFile.read(write(text), environment={"RPC": "https://rpc.example/key"}).chain
    assert found == ChainEndpoints(137, "https://rpc.example/key", "http://127.0.0.1:4337/rpc")
    assert (
        NetworkFile.read(write(NetworkFile(gateway="wss://g.example/v1", chain=found).to_toml())).chain
        == found
    )
    assert NetworkFile.read(write(GATEWAY)).chain is None


@pytest.mark.parametrize(
    ("chain", "field"),
    [
        ("", r"chain\.id"),
        ("id = 0", r"chain\.id"),
        ("id = 1\nrpc = 'x'", r"chain\.rpc"),
        ("id = 1\nrpc_url = 'ws://127.0.0.1:1'", r"chain\.rpc_url"),
        ("id = 1\nbundler_url = 'http://bundler.example'", r"chain\.bundler_url"),
        ("id = 1\nrpc_url = { env = 'NONE' }", r"chain\.rpc_url"),
    ],
)
def test_a_wrong_chain_is_named(write: Any, chain: str, field: str) -> None:
    """The member that is wrong, and the file."""
    with pytest.raises(ConfigurationError, match=rf"net\.toml: {field}"):
        NetworkFile.read(write(f"{GATEWAY}[chain]\n{chain}\n"), environment={})
