"""A few inputs for each target of the fuzzer, and everything that its corpus keeps; ``nox -s fuzz`` goes on for longer."""

from __future__ import annotations

import pytest

from tests.fuzz import doors, targets  # noqa: F401 - they register themselves
from tests.fuzz.engine import CORPUS, MOST_KEPT, TARGETS, Target, corpus_of, run


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_holds(name: str) -> None:
    """No error that is not ours, no traceback in a log, and whatever else is its property."""
    found = run(TARGETS[name], number=1, examples=3 if name.startswith("peer-") else 20)
    assert found.failures == []
    assert found.inputs >= 3


def test_the_corpus_belongs_to_targets() -> None:
    """Each file to one; none grows without bound."""
    for path in CORPUS.glob("*.json"):
        target = TARGETS[path.stem]
        assert target.is_kept
        assert len(corpus_of(target)) <= len(target.seeds()) + MOST_KEPT


def test_what_breaks_a_property_is_found() -> None:
    """Made as small as it goes, said once, and kept for the next time."""

    def check(text: str) -> str:
        assert "9" not in text
        return "fine"

    target = Target("nines", targets.texts, lambda: targets.contextlib.nullcontext(check), lambda: ["[1,2]"])
    found = run(target, number=3, examples=2000)
    assert len(found.failures) == 1
    assert any("9" in entry for entry in found.corpus)
