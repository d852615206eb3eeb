"""The documentation is true: names, links, commands and code."""

from __future__ import annotations

import ast
import asyncio
import enum
import functools
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

import dan_async
from dan_async import config, errors, nodes, retry
from dan_async.crypto.signature import personal_message_digest, recover_address

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
#: Below docs/, except for what builds the site.
PAGES_OF_DOCS = [page for page in sorted(DOCS.rglob("*.md")) if "node_modules" not in page.parts]
#: The changelog also names what has moved or gone.
OF_TODAY = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES_OF_DOCS])
PAGES = sorted([*OF_TODAY, ROOT / "CHANGELOG.md"])
#: Files that a page has its reader write.
OF_A_READER = {"conftest.py", "dist/"}
#: Pages about the code itself.
OF_THE_CODE = [DOCS / "explanation" / "architecture.md", ROOT / "CONTRIBUTING.md"]
ERRORS = [
    value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.DanError)
]
#: Packages whose names users import; the others are machinery that the public names bring with them.
PACKAGES = ["dan_async"] + [
    f"dan_async.{module.name}" for module in pkgutil.iter_modules(dan_async.__path__) if module.ispkg
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    """Give the code blocks of a language; "" for those that name none."""
    fenced = re.findall(r"^```(\w*)(?: title=.*)?\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [code for found, code in fenced if found == language]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    """Every link to a file of ours leads to one, and to a heading that exists; others have the form of an address."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if "://" in target:
            assert re.fullmatch(r"https://[a-z0-9.-]+\.[a-z]{2,}(/[\w./#%@~-]*)?", target), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or lies in one."""
    parts = dotted.split(".")
    length = next(length for length in range(len(parts), 0, -1) if _is_module(parts[:length]))
    try:
        found: object = importlib.import_module(".".join(parts[:length]))
    except errors.MissingExtraError:  # a run without extras; in CI they are all there
        assert not os.environ.get("CI")
        return True
    for name in parts[length:]:
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def dotted_names(text: str) -> list[str]:
    """Return what begins with the package's name and a dot, in prose and in code."""
    return sorted(set(re.findall(r"(?<![\w./@-])dan_async(?:\.\w+)+", text)))


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("page", OF_TODAY, ids=name_of)
def test_every_dotted_name_exists(page: Path) -> None:
    """Modules and names that stand on a page in full are there."""
    assert [name for name in dotted_names(text_of(page)) if not exists(name)] == []


def test_the_changelog_announces_what_exists() -> None:
    """Entries under "Added", of what is not released yet and of this version, name the places of today."""
    newest = "".join(text_of(ROOT / "CHANGELOG.md").split("\n## ")[1:3])
    added = "".join(re.findall(r"^### Added$(.*?)(?=^### |\Z)", newest, re.MULTILINE | re.DOTALL))
    assert added
    assert [name for name in dotted_names(added) if not exists(name)] == []


@pytest.mark.parametrize("page", OF_TODAY, ids=name_of)
def test_every_path_exists(page: Path) -> None:
    """Files and folders of the repository, in full or as seen from the package or the benchmarks."""
    text = without_code(text_of(page))
    paths = set(re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", text)) - OF_A_READER
    paths |= set(re.findall(r"\bdan_async/[\w/]+(?:\.py)?", text))
    paths |= set(re.findall(r"`(results/[\w-]+\.json)`", text))
    homes = (ROOT, ROOT / "dan_async", ROOT / "benchmarks")
    assert [path for path in sorted(paths) if not any((home / path).exists() for home in homes)] == []


@pytest.mark.parametrize("page", OF_THE_CODE, ids=name_of)
def test_files_hold_what_the_page_says(page: Path) -> None:
    """These pages point at code with "`file.py`: `name`, `name`"; whatever else looks like a class is one, too."""
    text = " ".join(text_of(page).split())
    pointers = [
        f"dan_async.{path.replace('/', '.')}.{name}"
        for path, names in re.findall(r"`([\w/]+)\.py`: ((?:`[\w.]+`(?:, )?)+)", text)
        for name in re.findall(r"[\w.]+", names)
    ]
    assert pointers
    assert [name for name in pointers if not exists(name)] == []
    trees = [ast.parse(text_of(file)) for file in (ROOT / "dan_async").rglob("*.py")]
    classes = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    named = set(re.findall(r"`([A-Z]\w*[a-z]\w*)(?:\.\w+)?`", text))
    assert {name for name in named - classes if not hasattr(asyncio, name)} == set()


def test_the_diagram_shows_the_rooms() -> None:
    """Each arrow of docs/explanation/architecture.md is an import of one room by another, and no room is left out."""
    (diagram,) = blocks(DOCS / "explanation" / "architecture.md", "mermaid")
    drawn = set(re.findall(r"(\w+) --> (\w+)", diagram))
    package = ROOT / "dan_async"
    arrows = {
        (file.relative_to(package).with_suffix("").parts[0], room)
        for file in package.rglob("*.py")
        for room in re.findall(r"^\s*from dan_async\.(\w+)", text_of(file), re.MULTILINE)
    }
    assert drawn - arrows == set()
    rooms = {room for arrow in arrows for room in arrow} - {"__init__", "_version"}
    assert rooms == {room for arrow in drawn for room in arrow}


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=name_of)
def test_the_index_lists_every_page(page: Path) -> None:
    """A page that nothing leads to is not read."""
    assert page.name == "index.md" or f"]({page.relative_to(DOCS)})" in text_of(DOCS / "index.md")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_explained(error: type[errors.DanError]) -> None:
    """docs/reference/errors.md has a row, not only a line of the tree, for each error class: cause and remedy."""
    assert error is errors.DanError or re.search(
        rf"^\| `{error.__name__}` \| \S.* \| \S.* \|$",
        text_of(DOCS / "reference" / "errors.md"),
        re.MULTILINE,
    )


def test_the_tree_of_errors_is_the_real_one() -> None:
    """Each line of the tree stands under its base class, and names the built-ins that the class is as well."""
    (tree,) = blocks(DOCS / "reference" / "errors.md", "")
    stack: list[str] = []
    seen = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        name, *others = re.findall(r"\w+", line)
        cls = getattr(errors, name)
        del stack[depth:]
        bases = [base.__name__ for base in cls.__bases__]
        assert bases == ([stack[-1], *others] if stack else ["Exception"]), name
        stack.append(name)
        seen.add(cls)
    assert seen == set(ERRORS)


@pytest.mark.parametrize("name", [name for name in dan_async.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    """A name that users may import stands on some page, and has a docstring."""
    assert any(re.search(rf"\b{name}\b", text_of(page)) for page in PAGES)
    assert inspect.getdoc(getattr(dan_async, name))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_promised_name_has_a_docstring(package: str) -> None:
    """What a package lists is explained where an editor shows it."""
    module = importlib.import_module(package)
    assert len(module.__doc__ or "") > 20
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), name


@pytest.mark.parametrize(
    "cls",
    [config.Timeouts, config.TransportOptions, retry.RetryPolicy, nodes.RestPolicy, nodes.SigningOptions],
)
def test_every_setting_is_explained(cls: type) -> None:
    """docs/reference/configuration.md has a row for each setting that is not there for tests, with its default."""
    page = text_of(DOCS / "reference" / "configuration.md")
    for field in attrs.fields(cls):
        if field.name not in ("sleep", "random", "clock"):
            (default,) = re.findall(rf"^\| `{field.name}` \| (\S+) \|", page, re.MULTILINE)
            if isinstance(field.default, int | float | None):
                assert default in (str(field.default), str(field.default).removesuffix(".0")), field.name


def test_every_parameter_of_the_job_is_documented() -> None:
    """docs/reference/generate-session-key.md has each parameter and each field of the payload."""
    text = text_of(DOCS / "reference" / "generate-session-key.md")
    for name in inspect.signature(dan_async.DanClient.generate_session_key).parameters:
        assert name == "self" or f"*{name}*" in text, name
    for field in attrs.fields(dan_async.DanSessionKeyPayload):
        assert f"`{field.name}`" in text, field.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_pages_is_python(page: Path) -> None:
    """Every code block compiles, and what it imports from us is there."""
    for block in blocks(page, "python"):
        tree = compile(block, name_of(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dan_async"):
                try:
                    module = importlib.import_module(node.module or "")
                except errors.MissingExtraError:  # a run without extras; in CI they are all there
                    assert not os.environ.get("CI")
                    continue
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_json_in_the_pages_is_json(page: Path) -> None:
    """Every block parses; three dots stand for what is left out."""
    for block in blocks(page, "json"):
        json.loads(block)


def test_the_session_of_the_page_can_be_read() -> None:
    """docs/reference/file-formats.md shows one with every member, and explains each."""
    page = DOCS / "reference" / "file-formats.md"
    (shown,) = blocks(page, "json")
    session = dan_async.DanSessionKeyPayload.from_dict(json.loads(shown))
    assert session.to_dict(extended=True) == json.loads(shown)
    for member in json.loads(shown):
        assert re.search(rf"^\|.*`{member}`.*\|.*\|.*\|$", text_of(page), re.MULTILINE)


def test_the_readmes_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's first program prints a session with its secret masked, the seven fields, and a signature."""
    exec(compile(blocks(ROOT / "README.md", "python")[0], "README.md", "exec"), {"__name__": "__main__"})
    masked, fields, signature = capsys.readouterr().out.splitlines()
    session = ast.literal_eval(fields)
    assert len(session) == 7
    assert session["hexEphSKWithout0x"] not in masked
    signed = personal_message_digest(b"hello")
    assert recover_address(signed, signature) == session["sessionKeyEOA"]


def test_the_readme_begins_with_its_two_commands() -> None:
    """The first shell block is what prints a key and what runs the tests, each on one line that pip alone can follow."""
    (block, *_) = blocks(ROOT / "README.md", "sh")
    first, second = block.splitlines()
    assert first.endswith("dan-async keygen --devnet 3-of-5 --json")
    assert second.endswith("-m pytest -n auto")
    for line in (first, second):
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")


def test_ci_runs_the_readmes_test_command() -> None:
    """.ci/run has that very line."""
    (block, *_) = blocks(ROOT / "README.md", "sh")
    assert block.splitlines()[1] in text_of(ROOT / ".ci" / "run").splitlines()


def test_the_changelog_is_kept() -> None:
    """[Unreleased] and this version with its day stand on top; sections have Keep a Changelog's names, in our order."""
    headings = re.findall(r"^#{2,3} (.+)$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    versions = [heading for heading in headings if heading.startswith("[")]
    assert versions[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(dan_async.__version__)}\] - \d{{4}}-\d\d-\d\d", versions[1])
    order = ["Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"]
    sections: list[str] = []
    for heading in headings:
        if heading.startswith("["):
            sections = []
            continue
        sections.append(heading)
        assert sections == sorted(set(sections), key=order.index)


# --- the reference of the public names --------------------------------------------------------------------------------

#: Classes that implementations follow: their methods are explained once, there.
CONTRACTS = (
    "dan_async.devnet.Fault",
    "dan_async.events.Observable",
    "dan_async.network.MeasuresClock",
    "dan_async.network.Network",
    "dan_async.network.NetworkSource",
    "dan_async.network.OpensKeygen",
    "dan_async.network.SettlesKeygen",
    "dan_async.storage.KeySource",
    "dan_async.storage.SessionStore",
    "dan_async.transport.Transport",
    "dan_async.userops.AccountKind",
    "dan_async.userops.Paymaster",
    "dan_async.userops.UserOperationSigner",
    "dan_async.wallets.Wallet",
)
#: Classes whose objects users receive, and do not make.
RECEIVED = {"DevnetNode", "EphemeralKey", "LiveSession", "SessionOnChain", "SigningRun", "SmartAccountClient"}
NAMES = [
    f"{module}.{name}"
    for module, names in json.loads((ROOT / "tests" / "public_names.json").read_text()).items()
    for name in names
    if not name.startswith("__")
]


def found(dotted: str) -> Any:
    """Return a public name's object; skip the test where its extra is missing."""
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except errors.MissingExtraError:
        assert not os.environ.get("CI")
        pytest.skip("needs an extra")


@functools.cache
def all_sources() -> str:
    return "\n".join(text_of(path) for path in (ROOT / "dan_async").rglob("*.py"))


def section(doc: str, title: str) -> str:
    match = re.search(rf"^{title}:\n((?: +.*\n?|\n)*)", doc, re.MULTILINE)
    return match[1] if match else ""


def listed(doc: str, title: str) -> set[str]:
    """Return the names that a section of a docstring explains."""
    return set(re.findall(r"^ {4}\*{0,2}(\w+)[^\n:]*: *\S", section(doc, title), re.MULTILINE))


def errors_raised(function: Any) -> set[type[errors.DanError]]:
    """Return the errors of ours that a function raises in its own lines, outside of what it catches again."""
    raised: set[type[errors.DanError]] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Try) and child.handlers:
                continue
            if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
                error = getattr(errors, ast.unparse(child.exc.func), None)
                if inspect.isclass(error) and issubclass(error, errors.DanError):
                    raised.add(error)
            walk(child)

    walk(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0])
    return raised


def gaps(function: Any, doc: str) -> list[str]:
    """Return what an entry does not explain: arguments, the returned value, errors."""
    signature = inspect.signature(function)
    elsewhere = re.search(r"those of ``DanClient\.(\w+)``", " ".join(doc.split()))
    explained = listed(doc, "Args")
    if elsewhere:
        explained |= set(inspect.signature(getattr(dan_async.DanClient, elsewhere[1])).parameters)
        explained |= set(re.findall(r"\*(\w+)\*", doc))
    missing = [
        name
        for name in signature.parameters
        if not name.startswith("_") and name not in {*explained, "self", "cls"}
    ]
    returns = signature.return_annotation in (inspect.Signature.empty, None, "None", "Self")
    if not (
        returns or section(doc, "Returns") or section(doc, "Yields") or re.match("Return|Whether|Yield", doc)
    ):
        missing.append("Returns")
    described = set() if elsewhere else listed(doc, "Raises")
    for error in set() if elsewhere else errors_raised(function):
        if not described & {base.__name__ for base in error.__mro__}:
            missing.append(error.__name__)
    return missing


@pytest.mark.parametrize("dotted", NAMES)
def test_every_public_name_has_a_whole_entry(dotted: str) -> None:
    """Purpose, arguments, returned value and errors, of functions, of classes and of their methods."""
    thing = found(dotted)
    name = dotted.rpartition(".")[2]
    if hasattr(thing, "_fixture_function"):  # pytest shows its docstring
        assert inspect.getdoc(thing._fixture_function)
    elif inspect.isfunction(thing):
        assert gaps(thing, inspect.getdoc(thing) or "") == []
    elif not inspect.isclass(thing) or not thing.__module__.startswith("dan_async"):
        # A constant or an alias: the line above it says what it is, wherever it is defined.
        assert re.search(rf"^#: .*\n(?:#.*\n)*{name}\b.* = ", all_sources(), re.MULTILINE)
    else:
        check_class(thing, dotted)


def check_class(cls: type, dotted: str) -> None:
    doc = inspect.getdoc(cls) or ""
    assert doc
    missing: dict[str, list[str]] = {}
    if (
        not issubclass(cls, enum.Enum)
        and not getattr(cls, "_is_protocol", False)
        and cls.__name__ not in RECEIVED
        and not issubclass(cls, dict)
    ):
        explained = set().union(
            *(
                listed(inspect.getdoc(base) or "", "Args")
                for base in cls.__mro__
                if base.__module__.startswith("dan_async")
            )
        )
        if "the parameters of ``DanClient.generate_session_key``" in doc:
            explained |= set(inspect.signature(dan_async.DanClient.generate_session_key).parameters)
        parameters = [name for name in inspect.signature(cls).parameters if not name.startswith("_")]
        missing["itself"] = [name for name in parameters if name not in {*explained, "args", "kwargs"}]
    contracts = [] if dotted in CONTRACTS else [found(contract) for contract in CONTRACTS]
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or any(hasattr(base, name) for base in (*contracts, *cls.__mro__[1:])):
            continue
        if isinstance(function, property):
            missing[name] = [] if function.__doc__ else ["docstring"]
        elif inspect.isfunction(function):
            missing[name] = gaps(function, inspect.getdoc(getattr(cls, name)) or "")
    assert {name: gap for name, gap in missing.items() if gap} == {}


# --- the tests that the security page names ---------------------------------------------------------------------------


def demands() -> list[tuple[int, list[str]]]:
    """The rows of the security page's table: their numbers, and the tests that they name."""
    rows = re.findall(r"^\| (\d+) \|(.*)$", text_of(DOCS / "explanation" / "security.md"), re.MULTILINE)
    return [(int(number), re.findall(r"`([\w/]+\.py::\w+)`", row)) for number, row in rows]


def marks_of(tree: ast.Module, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The marks of a test, its file's included, as they are written."""
    own = [ast.unparse(decorator) for decorator in function.decorator_list]
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return own + [
        ast.unparse(node.value) for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"
    ]


def test_the_security_page_answers_every_demand() -> None:
    """Each of the 32, by a test; where something is not possible, for the part that is."""
    assert [number for number, names in demands() if names] == list(range(1, 33))


@pytest.mark.parametrize("named", sorted({name for _, names in demands() for name in names}))
def test_what_the_security_page_names_is_tested(named: str) -> None:
    """The test exists, and runs wherever the suite does; what is skipped without a tool must fail in CI without it."""
    path, name = named.split("::")
    tree = ast.parse(text_of(ROOT / "tests" / path))
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    assert len(found) == 1
    marks = " ".join(marks_of(tree, found[0]))
    assert not re.search(r"mark\.(long|skip\b|xfail)", marks)
    assert "skipif" not in marks or "'CI'" in marks
    assert not [
        node for node in ast.walk(found[0]) if isinstance(node, ast.Call) and "skip" in ast.unparse(node.func)
    ]


def test_what_the_security_page_names_has_to_run(tmp_path: Path) -> None:
    """In a run of the whole suite, skipped or left out is a failure, also where workers run it; not in a run of one file."""
    (tmp_path / "tests").mkdir()
    page = tmp_path / "docs" / "explanation" / "security.md"
    page.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    options = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["pytest"]["ini_options"]["addopts"]
    ordinary = options[options.index("-m") + 1]
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\ntestpaths = tests\nmarkers =\n  long\n  recipes\naddopts = -m '{ordinary}'\n"
    )
    names = ["runs", "skipped", "left_out", "gone"]
    page.write_text("".join(f"`test_it.py::test_{name}`\n" for name in names))
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.parametrize('case', [1, 2])\ndef test_runs(case): pass\n\n"
        "def test_skipped(): pytest.skip('no tool')\n\n"
        "@pytest.mark.long\ndef test_left_out(): pass\n"
    )

    def run(*options: str, ci: str) -> tuple[int, list[str]]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        environment = {**os.environ, "CI": ci, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, re.findall(r"names test_it\.py::test_(.+), which (.+)", done.stdout)

    missing = [("gone", "did not run"), ("left_out", "did not run")]
    assert run("-p", "xdist", "-n1", ci="true") == (1, [*missing, ("skipped", "was skipped")])
    assert run(ci="") == (1, missing)
    assert run("tests/test_it.py", ci="true") == (0, [])
