"""Acknowledgements of another key than the agreed one."""

from __future__ import annotations

from attrs import evolve

from dan_async.errors import AcknowledgementError, NodeOutcome
from dan_async.nodes.acknowledgements import set_dissent_apart
from dan_async.protocols.fields import encode
from dan_async.protocols.node import Acknowledgement, KeygenClaims
from tests.fake_nodes import altered

CLAIMS = KeygenClaims(
    request_id="0x" + "01" * 32,
    key_id="ab" * 32,
    t=2,
    n=2,
    public_key=b"\x02" * 33,
    public_shares=(b"\x02" * 33,) * 2,
    participants=("0x" + "01" * 20, "0x" + "02" * 20),
    transcript_hash=b"\x03" * 32,
)
AGREED = Acknowledgement(
    text=encode(CLAIMS), operator="0x" + "01" * 20, party_index=1, signature=b"\x04" * 65
)
OTHER = altered(AGREED, key_id="cd" * 32, public_key=b"\x03" * 33)
SAID = [
    NodeOutcome(operator="0x" + "01" * 20, answer=AGREED, summary=AGREED.summary),
    NodeOutcome(operator="0x" + "02" * 20, answer=OTHER, attempts=2, elapsed_s=0.5, step="keygen"),
    NodeOutcome(operator="0x" + "03" * 20),
]


def test_another_key_is_a_failure():
    """Of the node that said so, by name; all else of its outcome is as it was."""
    first, second, third = set_dissent_apart(SAID, AGREED)
    assert (first, third) == (SAID[0], SAID[2])
    assert isinstance(second.error, AcknowledgementError)
    assert second.error.node == second.operator
    assert second.error.request_id == AGREED.request_id
    assert "another key (cdcdcdcd…)" in second.describe()
    assert evolve(second, error=None, answer=OTHER) == SAID[1]


def test_an_acknowledgement_says_of_which_key():
    """So that an error over keys that differ shows who says what."""
    assert "acknowledged key abababab… (" in SAID[0].describe()
