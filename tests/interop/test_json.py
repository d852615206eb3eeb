"""Our JSON is what JavaScript's JSON.stringify writes, byte for byte: signatures cover it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dan_async._json import dump
from dan_async._values import MAX_SAFE_INT

NODE = shutil.which("node")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(NODE is None and os.environ.get("CI") != "true", reason="needs Node.js"),
]

STRINGIFY = """
const values = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(values.map((value) => JSON.stringify(value))));
"""

#: Any text but lone surrogates, which are refused; names that JavaScript moves to the front (numbers) we never write.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAMES = TEXTS.filter(lambda name: not name.isdecimal() and name != "__proto__")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_SAFE_INT, MAX_SAFE_INT) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, min_size=50, max_size=100))
def test_it_is_the_text_of_json_stringify(values: list[object]) -> None:
    """Read by Node from another encoder's JSON, and written by it."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, "-e", STRINGIFY],
        input=json.dumps(values).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert [dump(value) for value in values] == json.loads(done.stdout)
