"""What the package is from outside: its names, how little an import loads, and that it does nothing by itself."""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.metadata
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dan_async
from dan_async import network
from dan_async.errors import MissingExtraError

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ["dan_async"] + [
    f"dan_async.{module.name}" for module in pkgutil.iter_modules(dan_async.__path__) if module.ispkg
]
PUBLIC = [name for name in dan_async.__all__ if name != "__version__"]

#: Modules of extras, which users import by their full path.
DEEP_MODULES = ("storage/sqlalchemy_store.py", "wallets/eth_account_wallet.py")
#: The public names at the last change of the public surface, and how each is called. Rewrite them with:
#: python -m tests.test_package
RECORDED_NAMES = ROOT / "tests" / "public_names.json"
RECORDED_SIGNATURES = ROOT / "tests" / "public_signatures.txt"

#: Third-party modules that an extra brings; nothing of the core may load them, whatever is used.
OF_EXTRAS = {
    "typer",
    "rich",
    "eth_abi",
    "eth_account",
    "webauthn",
    "uvloop",
    "sqlalchemy",
    "alembic",
    "distributed",
    "opentelemetry",
}


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter."""
    code = f"import json, sys; before = set(sys.modules); {statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    return set(json.loads(run_python(code)))


def names_of(package: ModuleType) -> list[str]:
    return list(getattr(package, "__all__", []))


def public_names() -> dict[str, list[str]]:
    """Return the names that each public module lists; they are read, not imported, since some modules need an extra."""
    package = ROOT / "dan_async"
    found: dict[str, list[str]] = {}
    for path in sorted(
        {*package.glob("*.py"), *package.glob("*/__init__.py"), *map(package.joinpath, DEEP_MODULES)}
    ):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[module] = sorted(ast.literal_eval(node.value))
    return dict(sorted(found.items()))


def test_public_names_are_the_recorded_ones() -> None:
    """A name that users import neither comes nor goes unnoticed."""
    recorded, found = json.loads(RECORDED_NAMES.read_text()), public_names()
    before = {f"{module}.{name}" for module, names in recorded.items() for name in names}
    now = {f"{module}.{name}" for module, names in found.items() for name in names}
    assert recorded == found, (
        f"new: {sorted(now - before)}, gone: {sorted(before - now)}. If that is meant, name them in CHANGELOG.md"
        " under [Unreleased] and run: python -m tests.test_package"
    )


class Annotation(str):
    """The text of an annotation, which a signature shows without quotes, as not every version of Python does."""

    __slots__ = ()
    __repr__ = str.__str__


def public_objects() -> dict[str, Any]:
    """Return what the public modules list, each object under its first name."""
    found: dict[str, Any] = {}
    for module, names in public_names().items():
        imported = importlib.import_module(module)
        found |= {f"{module}.{name}": getattr(imported, name) for name in names}
    firsts = {id(value): name for name, value in reversed(found.items())}
    return {name: value for name, value in found.items() if firsts[id(value)] == name}


def public_signatures() -> list[str]:
    """Return a line for each way to call or read what is public; what a public base class has stands there only."""
    lines = []
    public = public_objects()
    classes = {value for value in public.values() if inspect.isclass(value)}
    for name, value in public.items():
        if inspect.isfunction(value):
            lines.append(called(value, name))
        elif inspect.isclass(value) and value.__module__.startswith("dan_async"):
            inherited = {base for other in value.__mro__[1:] if other in classes for base in other.__mro__}
            own = [base for base in value.__mro__ if base not in inherited]
            lines += members_of([base for base in own if base.__module__.startswith("dan_async")], name)
    return lines


def members_of(bases: list[type], name: str) -> Iterator[str]:
    """Yield the lines of a class: how it is made, its members if it is an enumeration, its methods and properties."""
    members = {key: member for base in reversed(bases) for key, member in vars(base).items()}
    if issubclass(bases[0], enum.Enum):
        yield f"{name}: {', '.join(bases[0].__members__)}"
    elif getattr(members.get("__init__"), "__module__", "").startswith("dan_async"):
        yield called(members["__init__"], name)
    for key, member in sorted(members.items()):
        function = getattr(member, "__func__", member)  # of a class method or a static one
        if key.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"{name}.{key} -> {inspect.signature(member.fget).return_annotation}"
        elif inspect.isfunction(function):
            yield called(function, f"{name}.{key}")


def called(function: Any, name: str) -> str:
    """Return how a function is called; a default that is no plain value is "...", as its text may vary."""
    signature = inspect.signature(function)
    plain = (bool, int, float, str, bytes, tuple, type(None))
    parameters = []
    for parameter in signature.parameters.values():
        is_plain = parameter.default is parameter.empty or type(parameter.default) in plain
        default = parameter.default if is_plain else Annotation("...")
        parameters.append(parameter.replace(annotation=annotation(parameter.annotation), default=default))
    shown = signature.replace(
        parameters=parameters, return_annotation=annotation(signature.return_annotation)
    )
    return f"{'async ' if inspect.iscoroutinefunction(function) else ''}{name}{shown}"


def annotation(written: Any) -> Any:
    return Annotation(written) if isinstance(written, str) else written


def test_public_signatures_are_the_recorded_ones() -> None:
    """What users call does not change unnoticed."""
    try:
        found = public_signatures()
    except MissingExtraError:  # a run without extras; in CI they are all there
        assert not os.environ.get("CI")
        pytest.skip("an extra is missing")
    recorded = RECORDED_SIGNATURES.read_text().splitlines()
    assert (sorted(set(found) - set(recorded)), sorted(set(recorded) - set(found))) == ([], []), (
        "If that is meant, say so in CHANGELOG.md under [Unreleased] and run: python -m tests.test_package"
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted(name: str) -> None:
    """A list of public names is sorted and has no repetition."""
    names = names_of(importlib.import_module(name))
    assert names == sorted(set(names))


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_can_be_imported(name: str) -> None:
    """What a package promises is there."""
    package = importlib.import_module(name)
    for public in names_of(package):
        assert getattr(package, public) is not None


def test_the_package_promises_something() -> None:
    """The list of public names is not empty, and dir() gives it."""
    assert {"DanClient", "NodeNetwork", "generate_session_key"} <= set(PUBLIC)
    assert dir(dan_async) == sorted(dan_async.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Lazy names do not turn a typing error into something else."""
    with pytest.raises(AttributeError, match="DanClinet"):
        _ = dan_async.DanClinet


def test_the_version_is_the_installed_one() -> None:
    """What the package says and what pip says agree."""
    assert dan_async.__version__ == importlib.metadata.version("dan-async")


def test_import_loads_nothing_heavy() -> None:
    """`import dan_async` loads no third-party module at all, nor asyncio."""
    loaded = {name.partition(".")[0] for name in loaded_by("import dan_async")}
    assert loaded <= {"dan_async"} | set(sys.stdlib_module_names)
    assert not loaded & {
        "asyncio",
        "ssl",
        "socket",
        "aiohttp",
        "eth_utils",
        "pydantic",
        "typer",
        "rich",
        "coincurve",
    }


def test_import_loads_few_modules() -> None:
    """The cost of the import stays what it is: a handful of modules."""
    assert len(loaded_by("import dan_async")) < 30


def test_everyday_names_leave_for_later_what_few_programs_need() -> None:
    """Each of these is loaded by the first call that needs it."""
    loaded = loaded_by("from dan_async import DanClient, GatewayNetwork, LocalWallet, NodeNetwork")
    later = [
        "batch",
        "devnet",
        "events",
        "nodes.signing",
        "permissions",
        "storage",
        "user_operation",
        "userops",
    ]
    assert not loaded & {"tenacity", *[f"dan_async.{name}" for name in later]}


def test_nothing_is_logged_unless_logging_is_configured() -> None:
    """Whatever module a program uses; Python would print warnings otherwise."""
    code = "import logging, dan_async.devnet; logging.getLogger('dan_async.devnet.peers').warning('a peer stops')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_errors_load_nothing_heavy() -> None:
    """A program that only handles errors does not pay for the network either."""
    loaded = {name.partition(".")[0] for name in loaded_by("from dan_async import DanError")}
    assert not loaded & {"aiohttp", "eth_utils", "pydantic", "coincurve", "cryptography", "tenacity"}


def test_no_public_name_loads_an_extra() -> None:
    """Using everything public needs the core dependencies only."""
    loaded = {name.partition(".")[0] for name in loaded_by(f"from dan_async import {', '.join(PUBLIC)}")}
    assert "dan_async" in loaded
    assert not loaded & OF_EXTRAS


def test_import_opens_no_socket_and_writes_no_file() -> None:
    """Loading every public name does no I/O but reading modules."""
    code = f"""
import sys

def watch(event, args):
    if event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess", "os.system")):
        raise RuntimeError(event)
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+") and "__pycache__" not in str(args[0]):
        raise RuntimeError(f"opened {{args[0]}} to write")

sys.addaudithook(watch)
from dan_async import {", ".join(PUBLIC)}
"""
    run_python(code)


@pytest.mark.parametrize("name", network.__all__)
def test_hints_of_the_contract_can_be_read(name: str) -> None:
    """No class of it names a type that only type checkers import."""
    public = getattr(network, name)
    if isinstance(public, type):
        assert get_type_hints(public) or not getattr(public, "__attrs_attrs__", ())


def test_types_are_marked() -> None:
    """Type checkers look into the package."""
    assert (ROOT / "dan_async" / "py.typed").is_file()


# --- what is released -------------------------------------------------------------------------------------------------


def test_package_indexes_show_the_readme_without_its_links() -> None:
    """The text is the README's own where it can be, and links nowhere, since an index has no files to lead to."""
    text, readme = PROJECT["readme"]["text"].strip(), (ROOT / "README.md").read_text()
    (code,) = re.findall(r"^```python$.*?^```$", text, re.MULTILINE | re.DOTALL)
    assert readme.startswith(text.partition("\n\n```")[0])
    assert code in readme
    assert "](" not in text


def test_the_lock_has_every_direct_dependency() -> None:
    """Each stands in .ci/requirements-dev.txt at a version that pyproject.toml allows, and every line has hashes."""
    lines = [line for line in (ROOT / ".ci/requirements-dev.txt").read_text().splitlines() if line[:1] != "#"]
    pinned: dict[str, set[str]] = {}
    for line in lines:
        pin, *hashes = line.split(" --hash=")
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), pin
        requirement = Requirement(pin)
        (version,) = requirement.specifier
        assert version.operator == "=="
        pinned.setdefault(canonicalize_name(requirement.name), set()).add(version.version)
    extras = PROJECT["optional-dependencies"]
    direct = {
        Requirement(line)
        for line in [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    }
    for requirement in sorted(direct, key=str):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert pinned.get(name), f"{requirement} is missing: run nox -s lock"
            assert all(map(requirement.specifier.contains, pinned[name])), f"{requirement}: run nox -s lock"


if __name__ == "__main__":
    RECORDED_NAMES.write_text(json.dumps(public_names(), indent=2) + "\n")
    RECORDED_SIGNATURES.write_text("".join(f"{line}\n" for line in public_signatures()))
