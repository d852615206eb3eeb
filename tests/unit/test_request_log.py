"""The convention for log records that belong to a request."""

from __future__ import annotations

import logging

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.errors import ConnectError, QuorumError
from dan_async.events import RequestLog
from tests.fake_nodes import FakeNetwork

WALLET = LocalWallet("0x" + "00" * 31 + "01")
LOG = logging.getLogger("dan_async.test")


def test_the_id_stands_in_the_message_and_on_the_record(caplog: pytest.LogCaptureFixture) -> None:
    """For people and for formatters."""
    with caplog.at_level(logging.INFO, logger="dan_async"):
        RequestLog(LOG, "0x01").info("%d nodes", 3, extra={"node": "0xab"})
    (record,) = caplog.records
    assert record.getMessage() == "request 0x01: 3 nodes"
    assert (record.__dict__["request_id"], record.__dict__["node"]) == ("0x01", "0xab")


def test_what_belongs_to_no_request_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """The attribute is there all the same, so that a format with it works."""
    with caplog.at_level(logging.INFO, logger="dan_async"):
        RequestLog(LOG, None).info("hello")
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["request_id"]) == ("hello", None)


def test_an_id_is_not_a_format(caplog: pytest.LogCaptureFixture) -> None:
    """Ids of relayed requests come from outside."""
    with caplog.at_level(logging.INFO, logger="dan_async"):
        RequestLog(LOG, "%s%d").info("%s", "x")
    assert caplog.records[0].getMessage() == "request %s%d: x"


async def test_everything_that_a_keygen_logs_has_its_request(caplog: pytest.LogCaptureFixture) -> None:
    """Retries, outcomes, verdict and result: one id, in both places."""
    fake = FakeNetwork(2, 4)

    async def refuse(method: str, params: object) -> None:
        raise ConnectError("nobody listens")

    fake.misbehaviour[fake.operator(1)] = refuse
    async with DanClient(fake.network()) as dan:
        with caplog.at_level(logging.DEBUG, logger="dan_async"):
            await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
    ids = {record.__dict__.get("request_id") for record in caplog.records if "node " not in record.msg}
    assert len(ids) == 1
    (request_id,) = ids
    assert isinstance(request_id, str)
    messages = [record.getMessage() for record in caplog.records]
    assert any("attempt 1 of dan_challenge" in message for message in messages)
    assert any(
        message.startswith(f"request {request_id}: keygen: 3 nodes agree, 2 must") for message in messages
    )
    assert any(f"node {fake.operator(1)} failed and rests" in message for message in messages)
    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_a_keygen_that_starts_again_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Under the id of the attempt that failed; the nodes' failures are warnings as well."""
    fake = FakeNetwork(2, 3)

    async def lose(method: str, params: object) -> None:
        if method == "dan_keygen":
            raise ConnectError("gone")

    fake.misbehaviour = {fake.operator(i): lose for i in (1, 2, 3)}
    async with DanClient(fake.network()) as dan:
        with caplog.at_level(logging.WARNING, logger="dan_async"), pytest.raises(QuorumError):
            await dan.generate_session_key(wallet=WALLET, chain_id=1)
    assert any("starting again" in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        assert record.getMessage().startswith(f"request {record.__dict__['request_id']}: ")
