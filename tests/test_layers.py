"""The layers of the package: imports point downward only, those for types included, and each library has one home."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dan_async"

#: From the ground up. A module imports from lower layers, and from its own part (the first part of its dotted name).
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"_version", "types"}),
    frozenset({"errors"}),
    frozenset({"_values"}),
    frozenset({"_json", "deadline", "turns"}),
    frozenset({"retry", "crypto"}),
    frozenset({"config", "events", "user_operation"}),
    frozenset({"session", "protocols", "transport", "otel", "network_file", "listeners"}),
    frozenset({"network", "wallets", "permissions", "storage", "batch"}),
    frozenset({"request", "nodes", "gateway", "userops"}),
    frozenset({"jobs", "devnet"}),
    frozenset({"opening", "live_session"}),
    frozenset({"client"}),
    frozenset({"account", "dask_batch", "pytest_plugin"}),
    frozenset({"web3", "mcp"}),
    frozenset({"cli"}),
    frozenset({"__init__", "__main__"}),
)

#: The same inside the devnet.
DEVNET_LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"listening", "share_store", "mpc", "local_chain"}),
    frozenset({"faults", "gateway"}),
    frozenset({"context"}),
    frozenset({"peers"}),
    frozenset({"node"}),
    frozenset({"cluster"}),
    frozenset({"__init__"}),
)

#: The jobs' contract is `network`: whoever calls a job chooses the network, so these know none, wherever it stands.
FORBIDDEN = {
    part: frozenset({"nodes", "gateway", "devnet"})
    for part in ("request", "jobs", "client", "batch", "account", "userops", "web3", "mcp")
}

#: Arithmetic and text only: no waiting, no clock, no socket.
PURE = (
    "crypto",
    "protocols",
    "permissions",
    "userops/session_policies.py",
    "nodes/acknowledgements.py",
    "nodes/signature_shares.py",
    "devnet/mpc",
    "devnet/node/checks.py",
)

#: Third-party packages that live in one place only.
HOMES = {
    "coincurve": {"crypto"},
    "eth_abi": {"crypto"},
    "eth_hash": {"crypto"},
    "eth_utils": {"crypto"},
    "tenacity": {"retry"},
    "typer": {"cli"},
    "rich": {"cli"},
    "opentelemetry": {"otel"},
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "distributed": {"dask_batch"},
    "web3": {"web3"},
    "mcp": {"mcp"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the statement stands; names of the package with their module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            module = node.module or ""
            found.add(module)
            found.update(
                f"{module}.{alias.name}" for alias in node.names if _is_module(f"{module}.{alias.name}")
            )
    return found - {"dan_async"}


def _is_module(name: str) -> bool:
    parts = name.split(".")
    if parts[0] != "dan_async":
        return False
    path = PACKAGE.joinpath(*parts[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _layer(part: str, layers: tuple[frozenset[str], ...]) -> int:
    (number,) = (number for number, parts in enumerate(layers) if part in parts)
    return number


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    """A part imports parts of lower layers only."""
    part = _part(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "dan_async" or parts[1] == part:
            continue
        assert _layer(parts[1], LAYERS) < _layer(part, LAYERS), name


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if _part(path) in FORBIDDEN],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_jobs_know_no_network(path: Path) -> None:
    """Some parts may not import others, though these are on lower layers."""
    parts = {name.split(".")[1] for name in _imports(path) if name.startswith("dan_async.")}
    assert not parts & FORBIDDEN[_part(path)]


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if _part(path) == "devnet"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_inside_the_devnet_point_downward(path: Path) -> None:
    """The devnet's parts have layers too."""
    part = path.relative_to(PACKAGE).with_suffix("").parts[1]
    for name in _imports(path):
        parts = tuple(name.split("."))
        if parts[:2] != ("dan_async", "devnet") or len(parts) < 3 or parts[2] == part:
            continue
        assert _layer(parts[2], DEVNET_LAYERS) < _layer(part, DEVNET_LAYERS), name


def test_no_imports_go_in_circles() -> None:
    """No module imports itself by way of others, for types or otherwise."""
    imports: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        parts = ["dan_async", *path.relative_to(PACKAGE).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        imports[name] = {other for other in _imports(path) if _is_module(other) and other != name}
    left = dict(imports)
    while left:
        leaves = [name for name, others in left.items() if not others & left.keys()]
        assert leaves, f"these import each other: {sorted(left)}"
        for name in leaves:
            del left[name]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_at_home(path: Path) -> None:
    """Curve arithmetic, hashing, retries and the terminal each have one home."""
    for name in _imports(path):
        home = HOMES.get(name.split(".")[0])
        assert home is None or _part(path) in home, name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_underscore_modules_stay_in_their_folder(path: Path) -> None:
    """A module whose name begins with an underscore is imported from its own folder and below only."""
    here = ("dan_async", *path.relative_to(PACKAGE).parts[:-1])
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "dan_async":
            continue
        for depth, part in enumerate(parts):
            if part.startswith("_") and depth > 1:
                assert here[:depth] == tuple(parts[:depth]), name


@pytest.mark.parametrize("place", PURE)
def test_pure_modules_wait_for_nothing(place: str) -> None:
    """A pure module imports no event loop, no clock and no socket, and has no coroutine."""
    path = PACKAGE / place
    for module in [path] if path.is_file() else sorted(path.rglob("*.py")):
        assert not _imports(module) & {"asyncio", "time", "socket"}, module
        waiting = [
            node.lineno
            for node in ast.walk(ast.parse(module.read_text()))
            if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith)
        ]
        assert not waiting, f"{module} waits on lines {waiting}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_public_modules_list_their_names(path: Path) -> None:
    """An ``__all__`` is a promise: it stands in the package, directly beneath it, and in what an extra brings."""
    parts = path.relative_to(PACKAGE).parts
    lists = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for node in ast.parse(path.read_text()).body
    )
    is_public = len(parts) == 1 or (len(parts) == 2 and parts[1] == "__init__.py")
    of_an_extra = {"storage/sqlalchemy_store.py", "wallets/eth_account_wallet.py"}
    assert (
        not lists
        or (is_public and (parts[0] == "__init__.py" or not parts[0].startswith("_")))
        or "/".join(parts) in of_an_extra
    )
