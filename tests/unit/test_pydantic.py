"""The documentation's pydantic model, with the real pydantic."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tests.stored import session

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "generate-session-key.md"


@pytest.fixture
def model() -> type[BaseModel]:
    """The class that the page defines."""
    (sample,) = re.findall(r"```python\n(from typing import Annotated\n.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"session": session(), "__name__": "page"}
    exec(compile(sample, PAGE.name, "exec", dont_inherit=True), names)
    made: type[BaseModel] = names["Agent"]
    return made


@pytest.mark.parametrize(
    "given",
    ["text", 5, None, {**session().to_dict(), "threshold": 9}, {**session().to_dict(), "more": 1}],
    ids=["text", "number", "None", "wrong threshold", "unknown field"],
)
def test_what_is_no_session_is_refused(model: type[BaseModel], given: object) -> None:
    """And no error shows the ephemeral key."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"name": "alice", "session": given})
    assert session().hex_eph_sk_without_0x not in str(caught.value)


def test_a_session_goes_through_json(model: type[BaseModel]) -> None:
    """With all its fields, and only where JSON is asked for."""
    agent = model.model_validate({"name": "alice", "session": session().to_dict(extended=True)})
    assert model.model_validate_json(agent.model_dump_json()) == agent
    assert session().hex_eph_sk_without_0x not in repr(agent)
