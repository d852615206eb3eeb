"""
Sessions: lint, typing, tests, tests_min, loops, recipes, tally, package, lock, sbom, matrix, interop, signatures, docs,
batch, bench, soak, chaos, fuzz.

Each installs what it needs into an environment of its own, so that a fresh clone passes.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "typing", "tests", "package", "docs"]
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PROJECT = PYPROJECT["project"]
DIST = ROOT / "dist"
LOCK = ROOT / ".ci" / "requirements-dev.txt"
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
#: Extras that people install for what they bring, unlike those for working on the package.
FEATURES = ("cli", "dask", "eth-account", "mcp", "otel", "passkeys", "pytest", "storage", "uvloop", "web3")
#: The long tests as well, on every core.
WHOLE = ("-n", "auto", "-m", "not recipes")
SOURCES = ("dan_async", "tests", "benchmarks", "examples", "noxfile.py")


def tools(*names: str, extra: str = "dev") -> list[str]:
    """Return the requirements with these names as pyproject.toml states them, so that they stand in one place."""
    found = {Requirement(line).name: line for line in EXTRAS[extra]}
    return [found[name] for name in names]


def test_tools() -> list[str]:
    """Return what the tests need besides the package and its extras."""
    return [
        *EXTRAS["pytest"],
        *(line for line in EXTRAS["test"] if Requirement(line).name != PROJECT["name"]),
    ]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*tools("ruff"))
    present = [source for source in SOURCES if (ROOT / source).exists()]
    session.run("ruff", "check", *present)
    session.run("ruff", "format", "--check", *present)


@nox.session
def typing(session: nox.Session) -> None:
    """Strict mypy over the package; with pyright, over the public API as a caller writes it, the examples and samples."""
    session.install("-e", ".[test,recipes]", *tools("mypy", "pyright"))
    session.run("mypy")
    session.run("mypy", "--strict", "tests/typing", "examples")
    samples = Path(session.create_tmp()).resolve() / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    session.run("python", "-m", "tests.test_samples", str(samples))
    # The samples are modules by themselves, and use names of the reader's; Dask's Client has no types.
    options = ("--strict", "--untyped-calls-exclude=distributed")
    session.run("mypy", *options, str(samples), env={"MYPYPATH": str(ROOT)})
    session.run("pyright", "tests/typing", "examples", str(samples))


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
@nox.parametrize("extras", ["all", "none"])
def tests(session: nox.Session, extras: str) -> None:
    """The suite with every extra, and what of it needs none without any."""
    if extras == "all":
        session.install("-e", ".[test]")
        session.run("python", "-m", "pytest", *WHOLE, *session.posargs)
        return
    session.install("-e", ".", *test_tools())
    files = [str(path) for path in files_without_extras()]
    session.run("python", "-m", "pytest", *WHOLE, *files, *session.posargs)


@nox.session
def tests_min(session: nox.Session) -> None:
    """The suite with the lowest version of every direct dependency that pyproject.toml allows."""
    extras = (line for extra in FEATURES for line in EXTRAS[extra])
    lines = [
        *PROJECT["dependencies"],
        *(line for line in extras if Requirement(line).name != PROJECT["name"]),
    ]
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(map(lowest, lines)) + "\n")
    session.install("-e", ".[test]", "-c", str(constraints))
    # An old Typer imports what a new click calls deprecated: their affair, not ours.
    ignored = "ignore:'click:DeprecationWarning"
    session.run("python", "-m", "pytest", *WHOLE, "-W", ignored, *session.posargs)


@nox.session
@nox.parametrize("loop", ["debug", "uvloop"])
def loops(session: nox.Session, loop: str) -> None:
    """The unit tests in asyncio's debug mode, and on uvloop."""
    session.install("-e", ".[test]")
    environment = {"debug": {"PYTHONASYNCIODEBUG": "1"}, "uvloop": {"DAN_LOOP": "uvloop"}}[loop]
    arguments = session.posargs or ["-n", "auto", "tests/unit"]
    session.run("python", "-m", "pytest", *arguments, env=environment)


@nox.session
def recipes(session: nox.Session) -> None:
    """Run the recipes and the adapters to other libraries: web3.py, the package mcp, LangChain and more."""
    session.install("-e", ".[test,recipes]")
    session.run("python", "-m", "pytest", "-m", "recipes", *session.posargs)


@nox.session
def tally(session: nox.Session) -> None:
    """Count the acknowledgements of twenty thousand key generations, in any order, with every lie; eight minutes."""
    session.install("-e", ".", *test_tools())
    environment = {"DAN_TALLY_KEYGENS": "20000"}
    test = "tests/unit/nodes/test_acknowledgements_stateful.py"
    session.run("python", "-m", "pytest", "-m", "", test, "--timeout=3600", *session.posargs, env=environment)


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist into dist/, check them, install the wheel alone, and run the README's first line in a copy."""
    folder = Path(session.create_tmp()).resolve()
    for name in ("checkout", "elsewhere"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for old in (*DIST.glob("dan_async-*.whl"), *DIST.glob("dan_async-*.tar.gz")):
        old.unlink()
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(DIST), silent=True)
    (wheel,) = DIST.glob("dan_async-*.whl")
    (sdist,) = DIST.glob("dan_async-*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    names = zipfile.ZipFile(wheel).namelist()
    if "dan_async/py.typed" not in names:
        session.error("the wheel does not hold py.typed")
    strays = [name for name in names if not name.startswith(("dan_async/", "dan_async-"))]
    if strays:
        session.error(f"the wheel holds what is not ours: {strays}")
    # What is committed and nothing else, so that tests and examples run from the sdist.
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    if different := inside ^ {*committed(), "PKG-INFO"}:
        session.error(f"the sdist does not hold what the repository holds: {sorted(different)}")

    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    session.install("--force-reinstall", f"{wheel}[cli]", *tools("mypy"))
    with session.chdir(elsewhere):
        session.run("python", "-c", "import dan_async; print(dan_async.__version__)")
        printed = printed_by(f"{session.bin}/dan-async keygen --devnet 2-of-3 --json", elsewhere)
        check_session(session, printed)
        # Strict mypy sees the types through the installed wheel, so py.typed works.
        session.run("mypy", "--strict", str(ROOT / "tests" / "typing" / "api.py"))
    session.install("--force-reinstall", "--no-deps", str(sdist))

    copy_checkout(folder / "checkout")
    command = readme_commands()[0]
    session.log(command)
    check_session(session, printed_by(command, folder / "checkout"))


@nox.session
def lock(session: nox.Session) -> None:
    """Write .ci/requirements-dev.txt anew: every extra and the build's own needs, for every system, with hashes."""
    session.install("uv")
    build = Path(session.create_tmp()) / "build.in"
    build.write_text("\n".join([*PYPROJECT["build-system"]["requires"], "editables"]) + "\n")
    options = ("--all-extras", "--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade")
    written = ("--no-annotate", "--no-header", "--quiet", "--output-file", str(LOCK))
    session.run("uv", "pip", "compile", "pyproject.toml", str(build), *options, *written)
    text = LOCK.read_text().replace(" \\\n    --hash", " --hash")  # a changed package is a changed line
    LOCK.write_text(f"# Made by: nox -s lock. To install it: see CONTRIBUTING.md.\n{text}")


@nox.session
def sbom(session: nox.Session) -> None:
    """Write a CycloneDX bill of materials of the package with all its features, at the locked versions, into dist/."""
    session.install("cyclonedx-bom")
    folder = Path(session.create_tmp()).resolve()
    pins = folder / "pins.txt"
    pins.write_text(re.sub(r" --hash=\S+", "", LOCK.read_text()))
    described = folder / "described"
    session.run("python", "-m", "venv", "--clear", str(described))
    python = str(described / "bin" / "python")
    wanted = f".[{','.join(FEATURES)}]"
    session.run(python, "-m", "pip", "install", "-q", "-c", str(pins), wanted, external=True)
    session.run(python, "-m", "pip", "uninstall", "-q", "-y", "pip", "setuptools", external=True)
    DIST.mkdir(exist_ok=True)
    target = DIST / "dan_async.cdx.json"
    version = re.findall('"(.+)"', (ROOT / "dan_async" / "_version.py").read_text())[-1]
    project = folder / "pyproject.toml"  # the tool does not look for a dynamic version
    stated = (ROOT / "pyproject.toml").read_text().replace('dynamic = ["version"]', f'version = "{version}"')
    project.write_text(stated)
    options = ("--pyproject", str(project), "--mc-type", "library", "--output-reproducible", "--validate")
    session.run("cyclonedx-py", "environment", *options, "--output-file", str(target), python)


@nox.session
def matrix(session: nox.Session) -> None:
    """Run the whole fault matrix: every fault of whole jobs and signatures at 11-of-20 as well. Takes a while."""
    session.install("-e", ".[test]")
    kinds = ("fault_matrix", "fault_matrix_jobs", "fault_matrix_signing", "lost_replies")
    names = [f"test_{kind}.py" for kind in kinds]
    files = [f"tests/adversity/{name}" for name in names]
    session.run("python", "-m", "pytest", "-m", "", *files, *session.posargs, env={"DAN_MATRIX": "full"})


@nox.session
def interop(session: nox.Session) -> None:
    """Run the public TypeScript clients against the devnet's gateway. Needs Node.js; in CI its absence is a failure."""
    npm = shutil.which("npm")
    if npm is None:
        reason = "Node.js and npm are not installed"
        if os.environ.get("CI"):
            session.error(reason)
        session.skip(reason)
    options = ("--ignore-scripts", "--no-audit", "--no-fund")
    session.run(npm, "ci", "--prefix", "tests/interop", *options, external=True)
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-m", "", "tests/interop", *session.posargs)


@nox.session
def signatures(session: nox.Session) -> None:
    """Make ten thousand signatures: none invalid, none with a high s, no nonce twice. Some seven minutes."""
    session.install("-e", ".[test]")
    test = "tests/unit/devnet/mpc/test_many_signatures.py"
    session.run("python", "-m", "pytest", "-m", "", test, *session.posargs, env={"DAN_SIGNATURES": "10000"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into site/, warnings as errors: links, anchors, and an entry for each public name."""
    if shutil.which("npm") is None:
        session.error("npm is not installed: the script that draws the diagrams comes with it")
    options = ("--ignore-scripts", "--no-audit", "--no-fund")
    session.run("npm", "ci", "--prefix", "docs/site", *options, external=True, silent=True)
    session.install("-e", ".[docs]")
    session.run(
        "mkdocs", "build", "-f", "docs/site/mkdocs.yml", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"}
    )


@nox.session
def batch(session: nox.Session) -> None:
    """Kill a batch twenty times, then make keys on a real 2-of-3 network for ten minutes (posargs go to the second)."""
    session.install("-e", ".[test]")
    killed = "tests/cli/test_batch_killed.py"
    session.run("python", "-m", "pytest", "-m", "", "-s", killed, env={"DAN_ASYNC_BATCH_KILLS": "20"})
    options = session.posargs or ["--minutes", "10"]
    session.run("python", "-m", "benchmarks.batch", "devnet", *options)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure everything: half an hour on a quiet machine, minutes with -- --quick. Figures go to benchmarks/results."""
    session.install("-e", ".[bench]")
    quick = ["--quick"] if "--quick" in session.posargs else []
    results = ROOT / "benchmarks" / "results"
    for name, *options in (
        ("run", *(quick or ["--readme"])),
        ("gateway", *(quick or ["--readme"])),
        ("sign", *quick, "--output", str(results / "sign.json")),
        ("stalls", *quick, "--output", str(results / "stalls.json")),
        ("stalled_node", "--output", str(results / "stalled-node.json")),
        ("batch", "together"),
        ("observer", *quick),
    ):
        # 1: an aim was missed, which is said; the others are measured all the same.
        session.run("python", "-m", f"benchmarks.{name}", *options, success_codes=[0, 1])


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes in a network where something is always going wrong; shorter: nox -s soak -- --seconds 60 --seed 7."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Ten minutes of two batch runs over a PostgreSQL that fails, and nodes that do; needs PostgreSQL's server programs."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.soak", "--batches", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed everything that takes a stranger's input, for five minutes or as told: nox -s fuzz -- --minutes 60 --keep."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


def lowest(line: str) -> str:
    """Turn ``name>=1.2; marker`` into the constraint ``name==1.2; marker``."""
    requirement = Requirement(line)
    (bound,) = (part for part in requirement.specifier if part.operator == ">=")
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}=={bound.version}{marker}"


def files_without_extras() -> list[Path]:
    """Return the tests of the core that need nothing of an extra, nor what only comes along with one."""
    core = {
        "aiohttp",
        "attr",
        "attrs",
        "coincurve",
        "cryptography",
        "eth_hash",
        "tenacity",
        "yarl",
    }
    present = (
        {"dan_async", "tests", "pytest", "pytest_asyncio", "hypothesis", "packaging"}
        | core
        | sys.stdlib_module_names
    )
    tests = [
        *sorted((ROOT / "tests" / "unit").rglob("test_*.py")),
        *sorted((ROOT / "tests").glob("test_*.py")),
    ]
    return [path for path in tests if imported_by(path) | imported_by(path.parent / "conftest.py") <= present]


def imported_by(path: Path) -> set[str]:
    """Return the top-level modules that a test imports anywhere, also through helpers and our adapters of extras."""
    names: set[str] = set()
    if not path.is_file():
        return names
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    found = {name.partition(".")[0] for name in names}
    for name in names:
        helper = ROOT / f"{name.replace('.', '/')}.py"
        if name.startswith("tests.") and helper.is_file():
            found |= imported_by(helper)
    ours = (
        "dan_async.cli.",
        "dan_async.dask_batch",
        "dan_async.storage.sqlalchemy_store",
        "dan_async.wallets.eth_account_wallet",
    )
    if any(name.startswith(ours) for name in names):
        found.add("an extra")
    return found


def readme_commands() -> list[str]:
    """Return the command lines of the README's first shell block: one prints a key, one runs the tests."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[
        :1
    ]
    return [line for line in block.splitlines() if line and not line.startswith("#")]


def printed_by(command: str, folder: Path) -> str:
    """Run a command line as a person would, and return what it prints on standard output."""
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(  # noqa: S603 - our own lines
        ["/bin/sh", "-c", command], cwd=folder, env=clean, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout


def check_session(session: nox.Session, printed: str) -> None:
    """Check that what was printed is one session with the seed's seven fields."""
    fields = set(json.loads(printed))
    wanted = {
        "sessionKeyEOA",
        "mpcKeyId",
        "hexEphSKWithout0x",
        "partiesNumber",
        "threshold",
        "eoaAddress",
        "chainId",
    }
    if fields != wanted:
        session.error(f"the session has other fields than the seed's seven: {sorted(fields)}")


def copy_checkout(target: Path) -> None:
    """Copy what a fresh clone would hold, and what is about to be committed."""
    for name in committed():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def committed() -> list[str]:
    """Return the files of the repository, also those that are about to be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git from PATH
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
