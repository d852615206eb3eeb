"""What griffe does not read by itself: the constructors that attrs writes, and comments that begin with ``#:``."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DECORATORS = ("attrs.define", "attrs.frozen", "attrs.mutable")
_FIELD = re.compile(r"(?:attrs\.)?field\((?P<options>.*)\)\Z", re.DOTALL)
_OPTION = re.compile(r"\b(?P<name>alias|default|factory|init|kw_only)=(?P<value>\w+\([^()]*\)|[^,()]+)")


class AttrsExtension(griffe.Extension):
    """Give classes of attrs their ``__init__``, and documented constants their text."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take the ``#:`` lines above a constant for its docstring."""
        if attr.docstring or not isinstance(attr.filepath, type(attr.parent.filepath)) or attr.lineno is None:
            return
        above: list[str] = []
        lines = attr.lines_collection[attr.filepath]
        for line in reversed(lines[: attr.lineno - 1]):
            if not line.strip().startswith("#:"):
                break
            above.insert(0, line.strip()[2:].strip())
        if above:
            attr.docstring = griffe.Docstring("\n".join(above), parent=attr)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Write the constructors, base classes first."""
        self._visit(pkg, set())

    def _visit(self, of: griffe.Module | griffe.Class, seen: set[str]) -> None:
        for member in list(of.members.values()):
            if member.is_alias or member.path in seen:
                continue
            if isinstance(member, griffe.Class):
                self._write_constructor(member)
            if isinstance(member, griffe.Module | griffe.Class):
                self._visit(member, seen | {member.path})

    def _write_constructor(self, cls: griffe.Class) -> None:
        if "__init__" in cls.members or not _is_attrs(cls):
            return
        parameters = _parameters(cls)
        # Parameters without a default first, as in a signature; those that are keyword-only come last.
        order = sorted(parameters.values(), key=lambda each: each.kind is griffe.ParameterKind.keyword_only)
        this = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls.set_member(
            "__init__",
            griffe.Function("__init__", parameters=griffe.Parameters(this, *order), returns="None"),
        )


def _is_attrs(cls: griffe.Class) -> bool:
    return any(decorator.callable_path in _DECORATORS for decorator in cls.decorators)


def _parameters(cls: griffe.Class) -> dict[str, griffe.Parameter]:
    """Return the fields of a class and its bases that its constructor takes."""
    found: dict[str, griffe.Parameter] = {}
    for each in (*reversed(_bases(cls)), cls):
        if not _is_attrs(each):
            continue
        all_keywords = any("kw_only=True" in str(decorator.value) for decorator in each.decorators)
        for name, member in each.members.items():
            if not isinstance(member, griffe.Attribute) or "property" in member.labels:
                continue
            if member.annotation is None or str(member.annotation).startswith("ClassVar"):
                continue
            value = str(member.value) if member.value is not None else None
            options: dict[str, str] = {}
            if value and (field := _FIELD.match(value)):
                options = {hit["name"]: hit["value"].strip() for hit in _OPTION.finditer(field["options"])}
                value = options.get("default")
                if "factory" in options:
                    value = f"{options['factory']}()"
            if options.get("init") == "False":
                continue
            is_keyword = all_keywords or options.get("kw_only") == "True"
            found[name] = griffe.Parameter(
                options.get("alias", name.lstrip("_")).strip("'\""),
                annotation=member.annotation,
                kind=griffe.ParameterKind.keyword_only
                if is_keyword
                else griffe.ParameterKind.positional_or_keyword,
                default=value,
            )
    return found


def _bases(cls: griffe.Class) -> list[griffe.Class]:
    try:
        return [base for base in cls.mro() if isinstance(base, griffe.Class)]
    except ValueError:
        return []
