"""
What the site has besides its pages: one page for each public module, the commands, and files from outside docs/.

mkdocs calls the functions whose names begin with ``on_``. Pages are written for the repository: a link that leads out of
docs/ is turned here to the page that shows the file.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import zlib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Files of the repository that have a page, and where it is.
SHOWN = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security-policy.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
    "benchmarks/batch-throughput.png": "explanation/batch-throughput.png",
}
EXAMPLES = "tutorials/examples.md"
#: A line that is nothing but a link to an example: the site shows the program there.
_PROGRAM = re.compile(r"^\[(examples/[\w/]+\.(py|html))\]\([./]*\1\)$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]*)(#[^)\s]*)?(?=\))")
#: Arrowheads in a colour that shows on a light and on a dark page; the theme colours the rest.
_DIAGRAM = "```mermaid\n%%{init: {'themeVariables': {'signalColor': '#7d8799'}}}%%\n"
_PAGE_NAME = re.compile(r"docs/((?:tutorials|how-to|reference|explanation)/[\w-]+)\.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the public modules under Reference."""
    (reference,) = (entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    reference.append({"API": [{module: f"reference/api/{module}.md"} for module in public_modules()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the script of the diagrams."""
    for name, page in SHOWN.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, EXAMPLES, content=examples_page()))
    files.append(File.generated(config, "reference/cli.md", content=commands_page()))
    for name, content in module_pages().items():
        files.append(File.generated(config, f"reference/api/{name}.md", content=content))
    script = Path(__file__).parent / "node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js"
    files.append(File.generated(config, "assets/mermaid.js", abs_src_path=str(script)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to files outside docs/ to the pages that show them."""
    here = page.file.src_uri
    if here == "index.md":  # it has no neighbours to list beside it
        page.meta["hide"] = ["navigation"]
    if here.startswith("how-to/from-"):  # two programs side by side need the room
        page.meta["hide"] = ["toc"]
    origin = next((name for name, shown in SHOWN.items() if shown == here), f"docs/{here}")

    def show(program: re.Match[str]) -> str:
        code = (ROOT / program[1]).read_text(encoding="utf-8").rstrip()
        return f'```{program[2]} title="{program[1]}"\n{code}\n```'

    def turn(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link[1]))
        anchor = link[2] or ""
        if target.startswith("examples/"):
            shown, anchor = EXAMPLES, f"#{slug(target)}" if target.endswith(".py") else ""
        elif target in SHOWN:
            shown = SHOWN[target]
        elif target == "README.md":
            shown = "index.md"
        elif target.startswith("docs/"):
            shown = target.removeprefix("docs/")
        else:  # mkdocs warns of what is not there
            return link[0]
        return posixpath.relpath(shown, posixpath.dirname(here) or ".") + anchor

    markdown = _PROGRAM.sub(show, markdown).replace("```mermaid\n", _DIAGRAM)
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(turn, part) for part in parts)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Load the script of the diagrams where there is one, and make links of the pages that docstrings name."""
    up = "../" * page.file.src_uri.count("/")
    if page.file.src_uri.startswith("reference/api/"):
        html = _PAGE_NAME.sub(rf'<a href="{up}\1.html">\1</a>', html)
    html = html.replace("::</p>", ":</p>")  # before a block of code, in docstrings
    if 'class="mermaid"' in html:
        html += f'<script src="{up}assets/mermaid.js"></script>'
    return html


@event_priority(-100)  # after mkdocstrings has written the inventory
def on_post_build(config: MkDocsConfig) -> None:
    """Stop if a public name has no entry."""
    inventory = (Path(config.site_dir) / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    missing = [entry for name, module in homes().items() if (entry := entry_of(module, name)) not in entries]
    if missing:
        raise PluginError(f"no entry in the reference for {', '.join(missing)}")


def slug(text: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def examples_page() -> str:
    """Return a page with every program under examples/."""
    lines = [
        "# Example programs",
        "",
        "Each of them runs as it is, from a clone with the package installed.",
        "",
    ]
    for path in sorted((ROOT / "examples").rglob("*")):
        languages = {".py": "python", ".html": "html", ".yaml": "yaml", "Dockerfile": "dockerfile"}
        language = languages.get(path.suffix or path.name)
        if language and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            lines += [
                f"## {name}",
                "",
                f"````{language}",
                path.read_text(encoding="utf-8").rstrip(),
                "````",
                "",
            ]
    return "\n".join(lines)


# --- the API ----------------------------------------------------------------------------------------------------------


def public_modules() -> dict[str, list[str]]:
    """Return the names that each public module lists, as tests/test_package.py records them."""
    recorded: dict[str, list[str]] = json.loads(
        (ROOT / "tests" / "public_names.json").read_text(encoding="utf-8")
    )
    return recorded


def homes() -> dict[str, str]:
    """Return the module under which each public name is described: the one that defines it, or else the first."""
    found: dict[str, str] = {}
    for module, names in public_modules().items():
        tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
        definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        defined = {node.name for node in tree.body if isinstance(node, definitions)}
        for name in names:
            if module != "dan_async" and (name not in found or name in defined):
                found[name] = module
    return found


def source_of(module: str) -> Path:
    """Return the file of a module."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


def entry_of(module: str, name: str) -> str:
    """Return the name of an entry; a function in a file of its own name is hidden by that file."""
    is_hidden = (
        source_of(module).with_name(f"{name}.py").is_file() and source_of(module).name == "__init__.py"
    )
    return f"{module}.{name}.{name}" if is_hidden else f"{module}.{name}"


def module_pages() -> dict[str, str]:
    """Return a page for each public module: whole entries of the names that are at home there, links to the others."""
    at = homes()
    pages = {}
    for module, names in public_modules().items():
        here = {name: entry_of(module, name) for name in names if at.get(name) == module}
        shown = [name for name, entry in here.items() if entry == f"{module}.{name}"]
        lines = [f"# {module}", "", f"::: {module}", "    options:", f"      members: {shown}", ""]
        for name, entry in here.items():
            if name not in shown:
                lines += [
                    f"::: {entry}",
                    "    options:",
                    "      show_root_heading: true",
                    "      show_root_toc_entry: true",
                    "",
                ]
        elsewhere = {name: entry_of(at[name], name) for name in names if at.get(name, module) != module}
        if elsewhere:
            lines += ["| Name | Described under |", "|---|---|"]
            lines += [f"| `{name}` | [{entry}]({at[name]}.md#{entry}) |" for name, entry in elsewhere.items()]
        pages[module] = "\n".join(lines) + "\n"
    return pages


# --- the commands -----------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return the reference of the command line, from its own parser."""
    from dan_async.cli import app as cli

    lines = [
        "# Command line",
        "",
        'The command `dan-async` comes with `pip install "dan-async[cli]"`. Every command explains itself with `--help`.',
        "",
        "Exit codes: 0 done, 1 the network or the wallet failed, 2 wrong input, 130 interrupted. Results are on standard",
        "output, everything else is on standard error.",
        "",
    ]
    for name in cli._COMMANDS:  # noqa: SLF001 - the table of the commands
        lines += command_entry(f"dan-async {name}", cli._load(name))  # noqa: SLF001
    return "\n".join(lines)


def command_entry(path: str, command: Any) -> list[str]:
    """Return a command's heading, usage, text and options, and those of the commands below it."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    values = "".join(f" {each.metavar or each.name.upper()}" for each in arguments)
    below = " COMMAND" if getattr(command, "commands", {}) else ""
    level = "##" if path.count(" ") == 1 else "###"
    lines = [
        f"{level} {path}",
        "",
        "\n\n".join(plain(paragraph) for paragraph in (command.help or "").split("\n\n")),
        "",
        "```text",
        f"{path} [OPTIONS]{values}{below}",
        "```",
        "",
    ]
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        panel = getattr(parameter, "rich_help_panel", None) or (
            "Arguments" if parameter.param_type_name == "argument" else "Options"
        )
        panels.setdefault(panel, []).append(parameter_row(parameter))
    for panel, rows in panels.items():
        lines += [f"| {panel} | |", "|---|---|", *rows, ""]
    for name in getattr(command, "commands", {}):
        lines += command_entry(f"{path} {name}", command.commands[name])
    return lines


def parameter_row(parameter: Any) -> str:
    """Return a table row: the names of an option and of its value, and its help."""
    value = parameter.metavar or parameter.name.upper()
    if parameter.param_type_name == "argument":
        names = f"`{value}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        names += "" if parameter.is_flag else f" `{value}`"
    text = plain(getattr(parameter, "help", None) or "") + (" Required." if parameter.required else "")
    return f"| {names} | {text.strip().replace('|', chr(92) + '|')} |"


def plain(text: str) -> str:
    """Return a help text without the markup of Rich, as one paragraph."""
    return re.sub(r"\[/?[a-z ]+\]", "", " ".join(text.split()))
