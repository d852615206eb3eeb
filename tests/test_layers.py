"""The import arrows: data flows client → job → network → quorum → transport, and never back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dan_async"

EVERYWHERE = {"errors", "types"}

#: First component of a module -> what of ours it may import, besides EVERYWHERE and its own folder.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "_hex": set(),
    "_json_depth": set(),
    "_version": set(),
    "_tasks": set(),
    "__init__": {"_version"},
    "events": set(),
    "_event_hub": {"events"},
    "_request_log": set(),
    "otel": {"events", "_version"},
    "retry_table": set(),
    "retry": {"_tasks", "retry_table"},
    "config": {"retry", "models", "crypto", "_hex"},
    "crypto": {"_hex"},
    "models": {"_hex", "_json_depth", "crypto"},
    "wire": {"models", "_hex", "_json_depth", "crypto"},
    "permissions": {"models", "wire", "crypto"},
    "userops": {"crypto", "models", "permissions", "wire", "transport", "config", "_tasks", "_hex"},
    "transport": {"config", "_tasks", "_json_depth", "retry_table"},
    "quorum": {"_request_log", "models", "crypto", "config", "retry", "_tasks"},
    "networks": {
        "events",
        "_event_hub",
        "_request_log",
        "quorum",
        "transport",
        "wire",
        "config",
        "retry",
        "retry_table",
        "_tasks",
        "models",
        "crypto",
        "_hex",
    },
    "wallets": {"crypto", "transport", "models", "_hex", "config"},
    "auth": {"wallets", "crypto", "models", "wire", "_hex"},
    "jobs": {
        "_request_log",
        "networks",
        "auth",
        "models",
        "wire",
        "crypto",
        "wallets",
        "config",
        "_tasks",
        "_hex",
        "storage",
    },
    "account": {"client", "jobs", "models", "crypto", "_hex"},
    "client": {
        "events",
        "_event_hub",
        "jobs",
        "networks",
        "auth",
        "models",
        "config",
        "crypto",
        "wallets",
        "storage",
        "batch",
        "_client_store",
        "userops",
    },
    "_client_keys": {"jobs", "networks", "auth", "models", "config", "crypto", "wallets"},
    "_client_store": {
        "_client_keys",
        "auth",
        "wallets",
        "jobs",
        "networks",
        "models",
        "config",
        "storage",
        "batch",
    },
    "batch": {"wallets", "client", "_tasks", "storage", "models", "config", "networks"},
    "storage": {"models", "crypto", "_hex", "_tasks"},
    "devnet": {
        "wire",
        "models",
        "crypto",
        "config",
        "_tasks",
        "_hex",
        "networks",
        "quorum",
        "retry",
        "permissions",
    },
    "cli": {
        "batch",
        "client",
        "storage",
        "transport",
        "devnet",
        "networks",
        "wallets",
        "models",
        "config",
        "crypto",
        "_tasks",
        "_hex",
        "_json_depth",
    },
}

#: Third-party packages that live in one place only.
HOMES = {
    "coincurve": {"crypto"},
    "eth_hash": {"crypto"},
    "eth_utils": {"crypto"},
    "tenacity": {"retry"},
    "typer": {"cli"},
    "rich": {"cli"},
    "opentelemetry": {"otel"},
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "distributed": {"batch"},
}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if _is_type_checking(node):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            if node.module == "dan_async":
                found.update(f"dan_async.{alias.name}" for alias in node.names)
            else:
                found.add(node.module or "")
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    """A module imports only what its layer may."""
    room = _room(path)
    allowed = ARROWS[room] | EVERYWHERE | {room}
    ours = {name.split(".")[1] for name in _imports(path) if name.startswith("dan_async.")}
    assert ours <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_at_home(path: Path) -> None:
    """Curve arithmetic, hashing, retries and the terminal each have one room."""
    for name in _imports(path):
        home = HOMES.get(name.split(".")[0])
        assert home is None or _room(path) in home, name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_underscore_modules_stay_in_their_folder(path: Path) -> None:
    """A module whose name begins with an underscore is imported from its own folder and below only."""
    here = ("dan_async", *path.relative_to(PACKAGE).parts[:-1])
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "dan_async":
            continue
        for depth, part in enumerate(parts):
            if part.startswith("_") and depth > 1 and part != "_fields":
                assert here[:depth] == tuple(parts[:depth]), name
