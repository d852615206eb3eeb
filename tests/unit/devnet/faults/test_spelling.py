"""Faults as text: what the command line takes, and what it says of everything else."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.devnet import (
    Accuse,
    AccuseInSigning,
    AcknowledgeOtherKey,
    CheatInSigning,
    ClaimOtherThreshold,
    ContradictInSigning,
    Crash,
    CrashInSigning,
    DealBadOpening,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    ForgeCommitments,
    ForgeShares,
    ForgeSignature,
    HttpError,
    RefuseConnections,
    SendGarbage,
    SilentInSigning,
    SquatSession,
    Trickle,
    WithholdEcho,
    WrongSignatureShare,
)
from dan_async.devnet.faults.kinds import GARBAGE_FORMS, KINDS, RPC_METHODS
from dan_async.devnet.faults.spelling import FAULT_NAMES, parse_fault, parse_node_fault, spell_fault
from dan_async.devnet.node.server import NodeMethods
from dan_async.errors import ConfigurationError
from dan_async.protocols.node import SETTLE_KEYGEN
from tests.unit.devnet.node_context import node_context


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("delay:2s", Delay(seconds=2)),
        ("delay:2", Delay(seconds=2)),
        ("delay:250ms", Delay(seconds=0.25)),
        ("delay:1m", Delay(seconds=60)),
        ("delay:2s±500ms", Delay(seconds=2, jitter_s=0.5)),
        ("delay:2s+-500ms", Delay(seconds=2, jitter_s=0.5)),
        ("delay:2s,jitter=0.5s,methods=dan_keygen", Delay(seconds=2, jitter_s=0.5, methods=["dan_keygen"])),
        ("delay:seconds=2s,times=3", Delay(seconds=2, times=3)),
        (" delay : 2s , times=3 ", Delay(seconds=2, times=3)),
        ("drop-request", DropRequest()),
        ("drop-request:methods=dan_keygen+dan_health", DropRequest(methods=["dan_keygen", "dan_health"])),
        ("drop-reply:1", DropReply(times=1)),
        ("disconnect:2", Disconnect(times=2)),
        ("refuse", RefuseConnections()),
        ("crash", Crash()),
        ("crash:round=2,restart=1s", Crash(at_round=2, restart_after=1)),
        ("crash:1,restart=100ms", Crash(times=1, restart_after=0.1)),
        ("garbage", SendGarbage()),
        ("garbage:binary", SendGarbage(form="binary")),
        ("trickle", Trickle()),
        ("trickle:10ms", Trickle(seconds=0.01)),
        ("http", HttpError()),
        ("http:429,retry-after=2s", HttpError(status=429, retry_after=2)),
        ("http:503,retry-after=none", HttpError(retry_after=None)),
        ("expired-nonces:1", ExpireNonces(times=1)),
        ("forged-signature", ForgeSignature()),
        ("forged-shares", ForgeShares()),
        ("other-key", AcknowledgeOtherKey()),
        ("other-threshold:1", ClaimOtherThreshold(times=1)),
        ("wrong-share:1", DealWrongShare(times=1)),
        ("bad-opening", DealBadOpening()),
        ("squat-session:1", SquatSession(times=1)),
        ("withhold-echo:2", WithholdEcho(reach=2)),
        ("equivocate", Equivocate()),
        ("silent:2", FallSilent(round=2)),
        ("silent:round=2", FallSilent(round=2)),
        ("accuse:2", Accuse(round=2)),
        ("signing-accuse:round=2,times=1", AccuseInSigning(round=2, times=1)),
        ("signing-crash:2,restart=1s", CrashInSigning(at_round=2, restart_after=1)),
        ("signing-silent:2", SilentInSigning(round=2)),
        ("signing-cheat:1", CheatInSigning(times=1)),
        ("signing-contradiction:1", ContradictInSigning(times=1)),
        ("forged-commitments", ForgeCommitments()),
        ("wrong-signature-share", WrongSignatureShare()),
    ],
)
def test_what_a_text_means(text, fault):
    """Each fault, with and without its options."""
    assert parse_fault(text) == fault


def test_every_method_of_a_node_can_be_named():
    """As those that faults can be limited to, and no others."""
    methods = NodeMethods(node_context(), MagicMock(), MagicMock())
    assert {*methods._handlers, SETTLE_KEYGEN} == set(RPC_METHODS)


def test_every_fault_has_a_name():
    """What can be set in a program can be set on the command line."""
    assert {type(parse_fault("delay:1" if name == "delay" else name)) for name in FAULT_NAMES} == set(KINDS)


def documented():
    """The table of docs/how-to/testing-with-the-devnet.md: each fault in Python and as text, and whether it takes methods."""
    text = (Path(__file__).parents[4] / "docs" / "how-to" / "testing-with-the-devnet.md").read_text()
    rows = re.findall(r"^\| `([A-Z]\w+\(.*?\))` \| `([^`]+)`( \*)? \|", text, re.MULTILINE)
    return [(python, spelt, bool(star)) for python, spelt, star in rows]


@pytest.mark.parametrize(("python", "spelt", "takes_methods"), documented())
def test_the_documentation_spells_it_right(python, spelt, takes_methods):
    """What is said to be the same is the same, and takes methods if it is said to."""
    known = {kind.__name__: kind for kind in KINDS}
    fault = eval(python, known)
    parsed = parse_fault(spelt)
    assert type(parsed) is type(fault)
    assert parsed == fault or parse_fault(spelt.partition(":")[0]) == fault
    can_take = fault.takes_methods and "round" not in spelt
    assert can_take is takes_methods


def test_every_fault_is_documented():
    """In the table."""
    assert {spelt.partition(":")[0] for _, spelt, _ in documented()} == set(FAULT_NAMES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dely:2s", r"no fault of that name \(did you mean delay\?\)\. The faults are delay, drop-request, "),
        ("", "no fault of that name. The faults are "),
        ("Delay:2s", "no fault of that name"),
        ("delay", "delay: must say for how long"),
        ("delay:", "delay: must say for how long"),
        ("delay:jitter=1s", "delay: must say for how long"),
        ("delay:soon", "delay: seconds must be a time span"),
        ("delay:-2s", "delay: seconds must be a time span"),
        ("delay:0s", "delay: seconds must be a number of seconds greater than 0"),
        ("delay:2h", "delay: seconds must be a time span"),
        ("delay:1s±2s", "delay: jitter must not be greater than seconds"),
        ("delay:1s±x", "delay: jitter must be a time span"),
        ("delay:2s,dan_keygen", "delay: takes seconds, jitter, methods, times and nothing else"),
        ("delay:2s,retry=1", "delay: takes seconds, jitter, methods, times and nothing else"),
        ("delay:2s,timse=1", r"delay: takes .* and nothing else \(did you mean times\?\)"),
        ("delay:2s,methods=", "delay: methods must be names of RPC methods"),
        (
            "delay:2s,methods=dan_keygn",
            "delay: methods has a method that nodes do not .* dan_challenge, dan_keygen, ",
        ),
        ("drop-reply:0", "drop-reply: times must be from 1"),
        ("drop-reply:often", "drop-reply: times must be a whole number"),
        ("refuse:1", "refuse: takes no options"),
        ("crash:round=4", "crash: round must be from 1 to 3"),
        ("crash:round=1,methods=dan_keygen", "crash: methods are not for a Crash at a round"),
        ("garbage:rubbish", "garbage: form must be one of json, binary, raw"),
        ("http:200", "http: status must be from 400 to 599"),
        ("http:503,retry-after=500ms", "http: retry-after must be whole seconds"),
        ("http:503,methods=dan_keygen", "http: takes status, retry-after, times and nothing else"),
        ("silent:0", "silent: round must be from 1 to 3"),
        ("drop-request:" + "9" * 600, "must be at most 500 characters"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    """In one line that names the fault and the option."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_fault(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["delay:2s", "x=delay:2s", "-1=delay:2s", "=delay:2s", "²=crash", ""])
def test_a_node_is_a_number(text):
    """Followed by what is to happen there."""
    with pytest.raises(ConfigurationError, match=r"must have the form NODE=FAULT.*numbered from 0"):
        parse_node_fault(text)


def test_the_node_comes_first():
    """Later signs of equality belong to the fault."""
    assert parse_node_fault("2=delay:seconds=2s") == (2, Delay(seconds=2))


def test_a_value_that_could_be_a_key_is_not_repeated():
    """Nothing of what was typed is, but for names that are ours."""
    with pytest.raises(ConfigurationError) as caught:
        parse_node_fault("0=delay:" + "ab" * 32)
    assert "ab" * 4 not in str(caught.value)


SECONDS = st.integers(1, 10**9).map(lambda n: n / 1000)
SHARED = {"times": st.none() | st.integers(1, 100)}
METHODS = {"methods": st.lists(st.sampled_from(["dan_keygen", "dan_health"]), unique=True)}
FAULTS = st.one_of(
    st.builds(Delay, seconds=SECONDS, **SHARED, **METHODS),
    SECONDS.flatmap(lambda s: st.just(Delay(seconds=s, jitter_s=s))),
    st.builds(Crash, at_round=st.integers(1, 3), restart_after=st.none() | SECONDS, **SHARED),
    st.builds(SendGarbage, form=st.none() | st.sampled_from(GARBAGE_FORMS), **SHARED, **METHODS),
    st.builds(Trickle, seconds=SECONDS, **SHARED, **METHODS),
    st.builds(
        HttpError, status=st.integers(400, 599), retry_after=st.none() | st.integers(0, 86_400), **SHARED
    ),
    st.builds(FallSilent, round=st.integers(1, 3), **SHARED),
    st.builds(CrashInSigning, at_round=st.integers(1, 2), restart_after=st.none() | SECONDS, **SHARED),
    st.builds(SilentInSigning, round=st.integers(1, 2), **SHARED),
    st.builds(Disconnect, **SHARED, **METHODS),
    st.builds(RefuseConnections),
)


@given(FAULTS)
def test_a_spelt_fault_reads_back(fault):
    """parse_fault(spell_fault(f)) == f."""
    assert parse_fault(spell_fault(fault)) == fault
