"""Network files: nodes or gateway, threshold and connections of a network, named once (docs/how-to/networks.md)."""

from __future__ import annotations

import json
import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

from dan_async._values import MAX_SAFE_INT, check_instance, check_int, check_list, check_text
from dan_async.config import NodeEndpoint, Threshold, TransportOptions, check_operators, check_url
from dan_async.errors import ConfigurationError, InvalidFieldError, require_extra

__all__ = ["ChainEndpoints", "NetworkFile", "find_network_file"]

#: Names the network where none is given.
NETWORK_VARIABLE = "DAN_ASYNC_NETWORK"

#: A network's name; ``networks/NAME.toml`` in the configuration folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")

_LONGEST_FILE = 256 * 1024

_MEMBERS = {
    "nodes": ("kind", "threshold", "connection", "chain", "nodes"),
    "gateway": ("kind", "threshold", "connection", "chain", "url", "revision", "api_version"),
}
_CHAIN = ("id", "rpc_url", "bundler_url")
_CONNECTION = ("pins", "ca_file", "proxy", "headers", "max_message_bytes", "trust_env")


@frozen
class ChainEndpoints:
    """
    The chain that a network's session keys are for, and where it is reached.

    Args:
        id: Its EIP-155 id, 1 to 2^53 - 1.
        rpc_url: A node of the chain: ``https://…``, or ``http://…`` to loopback; None if not named.
        bundler_url: An ERC-4337 bundler, likewise.

    Raises:
        InvalidFieldError: An argument is wrong.
        InsecureTransportError: A URL has no TLS and its host is not loopback.
    """

    id: int
    rpc_url: str | None = None
    bundler_url: str | None = None

    def __attrs_post_init__(self) -> None:
        check_int("chain.id", self.id, least=1, most=MAX_SAFE_INT)
        for name in _CHAIN[1:]:
            if (url := getattr(self, name)) is not None:
                check_url(f"chain.{name}", url, schemes=("https", "http"))


@frozen(kw_only=True)
class NetworkFile:
    """
    The content of a network file.

    Args:
        nodes: The pool of nodes; empty for a gateway.
        gateway: The gateway's URL; None for nodes.
        revision: The gateway's revision; None to find it out.
        api_version: The gateway's version segment, ``"v1"`` or ``"v2"``.
        threshold: t and n when the caller of a job names none; None for the network's own default.
        options: How connections are made.
        chain: The chain that its keys are for, if the file names one.
    """

    nodes: tuple[NodeEndpoint, ...] = ()
    gateway: str | None = None
    revision: str | None = None
    api_version: str = "v1"
    threshold: Threshold | None = None
    options: TransportOptions = field(factory=TransportOptions)
    chain: ChainEndpoints | None = None

    def __attrs_post_init__(self) -> None:
        for place, node in enumerate(check_list("nodes", self.nodes)):
            check_instance(f"nodes[{place}]", node, NodeEndpoint)
        check_operators(self.nodes)

    @classmethod
    def read(cls, path: str | Path, *, environment: Mapping[str, str] | None = None) -> Self:
        """
        Read a file.

        Args:
            path: The file.
            environment: Where headers and the proxy are looked up that the file only names, instead of the process's own
                variables.

        Raises:
            ConfigurationError: It cannot be read, is no TOML, or a member is missing, wrong or unknown; or an environment
                variable that it names is not set. No value is repeated.
        """
        file = Path(check_text("path", str(path) if isinstance(path, Path) else path, most=4096))
        try:
            with file.open("rb") as opened:
                text = opened.read(_LONGEST_FILE).decode("utf-8-sig")
            found = tomllib.loads(text)
        except OSError as error:
            raise ConfigurationError(f"the network file {file} cannot be read: {error.strerror}") from None
        except ValueError:  # also UnicodeDecodeError and TOMLDecodeError, whose message may repeat a header
            raise ConfigurationError(f"the network file {file} is not TOML") from None
        try:
            return cls._of(found, file.parent, os.environ if environment is None else environment)
        except InvalidFieldError as error:
            raise InvalidFieldError(f"{file}: {error.field}", error.problem, hint=error.hint) from None
        except ConfigurationError as error:
            raise type(error)(f"{file}: {error.message}", hint=error.hint) from None

    @classmethod
    def _of(cls, found: Mapping[str, Any], folder: Path, environment: Mapping[str, str]) -> Self:
        kind = found.get("kind", "nodes" if "nodes" in found else "gateway")
        if kind not in _MEMBERS:
            raise InvalidFieldError("kind", "must be nodes or gateway")
        _check_members("", found, _MEMBERS[kind])
        threshold = found.get("threshold")
        common: dict[str, Any] = {
            "threshold": None if threshold is None else Threshold.parse(threshold),
            "options": _read_connection(found.get("connection", {}), folder, environment),
            "chain": _read_chain(found["chain"], environment) if "chain" in found else None,
        }
        if kind == "gateway":
            if "url" not in found:
                raise InvalidFieldError("url", "is missing: the gateway's, with its version segment")
            revision, version = found.get("revision"), found.get("api_version", "v1")
            return cls(
                gateway=check_text("url", found["url"]), revision=revision, api_version=version, **common
            )
        nodes = found.get("nodes")
        if not isinstance(nodes, list) or not nodes:
            raise InvalidFieldError("nodes", "must be a list of tables [[nodes]], each with url and operator")
        return cls(nodes=tuple(_read_node(node, place) for place, node in enumerate(nodes)), **common)

    def to_toml(self) -> str:
        """Return the file's text. Settings of connections are left out: they may be secret."""
        lines = [] if self.threshold is None else [f"threshold = {json.dumps(str(self.threshold))}"]
        if self.gateway is not None:
            members = {"url": self.gateway, "revision": self.revision, "api_version": self.api_version}
            lines += [f"{name} = {json.dumps(value)}" for name, value in members.items() if value is not None]
        if self.chain is not None:
            lines += ["", "[chain]", f"id = {self.chain.id}"]
            urls = {"rpc_url": self.chain.rpc_url, "bundler_url": self.chain.bundler_url}
            lines += [f"{name} = {json.dumps(url)}" for name, url in urls.items() if url is not None]
        for node in self.nodes:
            lines += ["", "[[nodes]]", f"url = {json.dumps(node.url)}", f'operator = "{node.operator}"']
        return "\n".join([f'kind = "{"gateway" if self.gateway else "nodes"}"', *lines, ""])


def _check_members(prefix: str, found: object, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise InvalidFieldError(prefix.rstrip("."), "must be a table")
    for name in found:
        if name not in known:
            raise InvalidFieldError(
                f"{prefix}{name}"[:80], "is not known here", hint=f"Members: {', '.join(known)}"
            )
    return found


def _read_node(value: Any, place: int) -> NodeEndpoint:
    try:
        found = _check_members("", value, ("url", "operator"))
        for name in ("url", "operator"):
            if name not in found:
                raise InvalidFieldError(name, "is missing")
        return NodeEndpoint.of(found)
    except InvalidFieldError as error:
        raise InvalidFieldError(f"nodes[{place}].{error.field}", error.problem, hint=error.hint) from None


def _secret(name: str, given: Any, environment: Mapping[str, str]) -> Any:
    """Return a text, or the environment variable that a table {env = "NAME"} names."""
    if not isinstance(given, Mapping):
        return given
    variable = _check_members(f"{name}.", given, ("env",)).get("env")
    if not isinstance(variable, str) or not environment.get(variable):
        raise ConfigurationError(f"{name}: the environment variable {variable!s:.80} is not set")
    return environment[variable]


def _read_chain(value: Any, environment: Mapping[str, str]) -> ChainEndpoints:
    found = _check_members("chain.", value, _CHAIN)
    urls = (_secret(f"chain.{name}", found.get(name), environment) for name in _CHAIN[1:])
    return ChainEndpoints(found.get("id", 0), *urls)


def _read_connection(value: Any, folder: Path, environment: Mapping[str, str]) -> TransportOptions:
    found = dict(_check_members("connection.", value, _CONNECTION))
    if "headers" in found:
        headers = _check_members("connection.headers.", found["headers"], tuple(found["headers"]))
        found["headers"] = {
            name: _secret(f"connection.headers.{name}", given, environment) for name, given in headers.items()
        }
    if "proxy" in found:
        found["proxy"] = _secret("connection.proxy", found["proxy"], environment)
    if "ca_file" in found:
        try:
            ca_file = folder / check_text("connection.ca_file", found.pop("ca_file"), most=4096)
            found["ssl_context"] = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise InvalidFieldError("connection.ca_file", "is not a file of PEM certificates") from None
    return TransportOptions(**found)


def find_network_file(name: str) -> Path:
    """
    Return the file of a network that is named: a path, or the name of a file in the user's configuration folder.

    Args:
        name: A path that ends in ``.toml`` or has a separator; or ``NAME`` for ``networks/NAME.toml`` in that folder.

    Raises:
        ConfigurationError: There is no such file; the error lists those that there are.
        MissingExtraError: A name is given, and platformdirs (extra ``cli``) is not installed.
    """
    if check_text("network", name, most=4096).endswith(".toml") or os.sep in name:
        return Path(name)
    if not _NAME.match(name):
        raise InvalidFieldError("network", "must be a file, or a name of letters, digits and . _ -")
    platformdirs: Any = require_extra("platformdirs", extra="cli", purpose="A network by its name")
    folder = Path(platformdirs.user_config_dir("dan-async")) / "networks"
    file = folder / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "none"
        raise ConfigurationError(
            f"there is no network of that name in {folder}",
            hint=f"Known there: {known}. "
            + (
                f"For the file here: .{os.sep}{name}"
                if Path(name).is_file()
                else "Or give a file: ./NAME.toml"
            ),
        )
    return file
