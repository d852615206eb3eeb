"""NodeLimits: checked when made."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from dan_async.devnet import NodeLimits
from dan_async.errors import InvalidFieldError


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(NodeLimits)])
@pytest.mark.parametrize("value", [0, -1, "1", None, True])
def test_every_limit_is_checked(name, value):
    """Zero, negative numbers and what is no number are refused by name."""
    with pytest.raises(InvalidFieldError, match=name):
        NodeLimits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, timedelta(seconds=1)])
def test_requests_are_no_seconds(value):
    """What is wrong with a rate is said of a rate."""
    with pytest.raises(InvalidFieldError, match="requests_per_s must be a number per second, greater than 0"):
        NodeLimits(requests_per_s=value)
