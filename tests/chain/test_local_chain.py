"""Where the chain cannot be run: skipped on a user's machine, a failure in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chain import local_chain


@pytest.mark.parametrize("missing", ["ANVIL", "ALTO"])
def test_a_missing_chain_is_skipped_at_home_and_fails_in_ci(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the command that helps."""
    monkeypatch.setattr(local_chain, missing, Path("/nowhere"))
    with pytest.raises(pytest.skip.Exception, match="npm ci"):
        local_chain.require_chain({})
    with pytest.raises(pytest.fail.Exception, match="npm ci"):
        local_chain.require_chain({"CI": "true"})
