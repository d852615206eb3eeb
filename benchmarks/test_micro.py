"""
Micro benchmarks, for pytest-benchmark: ``python -m pytest benchmarks/test_micro.py``.

Each times one step of a keygen by itself, with values as they occur. Where all nodes send equal claims, what the client
checks once per keygen and what it checks per node are timed together, as ``KeygenTally`` does it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stub_nodes import DealtKey, StubNode
from dan_async import LocalWallet
from dan_async._values import to_hex
from dan_async.config import Threshold
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.nodes.acknowledgements import KeygenTally
from dan_async.protocols import fields
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import Acknowledgement, KeygenParams
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication
from dan_async.transport.rpc import decode_reply
from dan_async.types import RequestId

REQUEST_ID = RequestId("0x" + "ab" * 32)
OWNER = LocalWallet("11" * 32)

#: What a new interpreter runs.
STATEMENTS = {
    "python alone": "pass",
    "import dan_async": "import dan_async",
    "client and network": "from dan_async import DanClient, LocalWallet, NodeNetwork",
    "all the libraries": "import aiohttp, attrs, coincurve, cryptography, tenacity, eth_hash.backends.pysha3",
    "client and both networks": "from dan_async import DanClient, GatewayNetwork, LocalWallet, NodeNetwork",
    "up to the first endpoint": (
        "from dan_async import DanClient, LocalWallet, NodeEndpoint, NodeNetwork\n"
        "NodeEndpoint('wss://node.example/v1/rpc', '0x' + '11' * 20)"
    ),
}

thresholds = pytest.mark.parametrize(
    ("t", "n"), [(2, 3), (3, 5), (11, 20)], ids=["2-of-3", "3-of-5", "11-of-20"]
)


def _claim() -> EphemeralClaim:
    key = EphemeralKey.generate()
    return EphemeralClaim(eph_id=key.default_id, eph_pk=key.public_key, expiry=2**31, sign_alg=key.algorithm)


def _keygen_params(key: DealtKey) -> KeygenParams:
    setup = REVISION_1.keygen_setup(threshold=key.threshold, claim=_claim())
    return KeygenParams(
        request_id=REQUEST_ID,
        revision="1",
        setup=REVISION_1.encode_setup(setup),
        participants=key.participants,
        nonces=tuple(os.urandom(32) for _ in key.participants),
        user_authentication=UserAuthentication(
            method="eoa", id=OWNER.address, credentials="{}", signature=to_hex(bytes(65))
        ),
    )


def _replies(key: DealtKey) -> list[str]:
    """What n nodes answer to one dan_keygen."""
    params = fields.encode(_keygen_params(key))
    request = '{"jsonrpc":"2.0","id":1,"method":"dan_keygen","params":' + params + "}"
    return [StubNode(key, operator).answer(request) for operator in key.participants]


def test_typed_data_digest(benchmark):
    """The EIP-712 digest of a keygen's authorisation."""
    setup = REVISION_1.keygen_setup(threshold=Threshold(3, 5), claim=_claim())
    typed_data = REVISION_1.typed_data("keygen", setup, "cd" * 32)
    digest = benchmark(typed_data_digest, typed_data)
    assert len(digest) == 32


@thresholds
def test_encode_keygen(benchmark, t, n):
    """The parameters of dan_keygen, made once for all nodes."""
    text = benchmark(fields.encode, _keygen_params(DealtKey(t, n)))
    assert text.startswith('{"requestId":')


@thresholds
def test_decode_acknowledgement(benchmark, t, n):
    """One reply, from its text to the acknowledgement."""
    reply = _replies(DealtKey(t, n))[0]

    def decode() -> Any:
        return Acknowledgement.read(decode_reply(reply).result)

    assert benchmark(decode).party_index == 1


@thresholds
def test_tally(benchmark, t, n):
    """All n acknowledgements of one keygen, read, checked and counted."""
    key = DealtKey(t, n)
    results = [decode_reply(reply).result for reply in _replies(key)]

    def count() -> KeygenTally:
        tally = KeygenTally(
            request_id=REQUEST_ID,
            threshold=key.threshold,
            participants=key.participants,
            owner_id=OWNER.address,
        )
        for operator, result in zip(key.participants, results, strict=True):
            tally.record(operator, Acknowledgement.read(result))
        return tally

    assert benchmark(count).verdict().public_key == key.public_key


def _start(what: str, cache: Path) -> float:
    """Run a statement in a new interpreter, with compiled files in *cache*; return its CPU seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", STATEMENTS[what]]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parent.parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("what", STATEMENTS)
def test_import_time(benchmark, tmp_path, what):
    """A new interpreter, from start to end, with compiled files in place; one of them imports nothing."""
    assert benchmark.pedantic(_start, args=(what, tmp_path), rounds=7, warmup_rounds=1) > 0


@pytest.mark.timeout(300)
def test_import_beside_the_libraries(benchmark, tmp_path):
    """The import of client and both networks, in CPU time and by turns with that of the libraries; aim: 1.3 times."""
    ratios = []

    def take_turns() -> None:
        libraries = _start("all the libraries", tmp_path)
        ratios.append(_start("client and both networks", tmp_path) / libraries)

    benchmark.pedantic(take_turns, rounds=7, warmup_rounds=1)
    benchmark.extra_info["ratio"] = round(statistics.median(ratios[1:]), 2)
    print(f"\nimport: {benchmark.extra_info['ratio']} times that of the libraries")
