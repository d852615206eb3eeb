"""Targets that need no network: decoders of everything that strangers send, the command line, the public surface."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dan_async._json import dump, load
from dan_async.cli.__main__ import main as cli
from dan_async.cli.batch import read_rows
from dan_async.config import check_url
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.gateway import accept, detect_revision
from dan_async.devnet.mpc import dkg, pairwise_setup, threshold_ecdsa
from dan_async.devnet.mpc.framing import Message, join_parts, split_parts
from dan_async.devnet.node.checks import read_messages, read_request, read_setup, read_sign
from dan_async.devnet.node.rpc import RefusalError, parse_request
from dan_async.devnet.peers.links import Dialler, accept_hello, check_finish
from dan_async.devnet.peers.sessions import AbortNotice, PeerMessage
from dan_async.errors import DanError, InvalidFieldError, ProtocolError
from dan_async.permissions import decode_calls, parse_permissions
from dan_async.permissions.checking import find_refusal
from dan_async.protocols import fields, node
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway import Operation, Revision
from dan_async.protocols.results import decode_keygen_results, decode_signgen_results
from dan_async.protocols.setups import decode_passkey_signature
from dan_async.protocols.sign_request import SignRequest
from dan_async.session import DanModuleInfo
from dan_async.storage import StoredSession
from dan_async.transport.connecting import parse_retry_after
from dan_async.transport.rpc import decode_reply
from dan_async.user_operation import user_operation_from_dict, user_operation_hash
from tests.fuzz.engine import Check, Target, blobs, outcome, register, rows, texts
from tests.stored import active, session
from tests.unit import test_public_surface as surface

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wire.json").read_text())["cases"]

ADDRESS = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
ENTRY_POINT = "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"


def pure(
    name: str,
    check: Check,
    seeds: Callable[[], list[Any]] = list,
    inputs: Callable[[Sequence[Any]], Any] = texts,
    *,
    is_kept: bool = True,
) -> None:
    """Register a target that needs nothing open."""
    register(Target(name, inputs, lambda: contextlib.nullcontext(check), seeds, is_kept))


def refused(call: Callable[[], Any], *kinds: type[DanError]) -> str:
    """Call it; only these errors of ours may come out, by default those of decoders."""
    try:
        call()
    except DanError as error:
        if not isinstance(error, kinds or (ProtocolError, InvalidFieldError)):
            raise
        return outcome(error)
    return outcome(None)


# --- decoders ---------------------------------------------------------------------------------------------------------


def _json(text: str) -> str:
    def twice() -> None:
        value = load(text)
        assert load(dump(value)) == value

    return (
        refused(twice)
        + refused(lambda: decode_reply(text))
        + refused(lambda: parse_request(text), RefusalError)
    )


def _setups(text: str) -> str:
    said = set()
    for revision in Revision:
        protocol = protocol_for(revision)
        for operation in protocol.methods:

            def twice(protocol: Any = protocol, operation: Any = operation) -> None:
                setup = protocol.decode_setup(operation, text)
                written = protocol.encode_setup(setup)
                assert protocol.decode_setup(operation, written) == setup

            said.add(refused(twice))
    return " ".join(sorted(said))[:200]


def _frames(row: list[str]) -> str:
    """A client's frames, read as a gateway reads them, and used as it uses them."""
    operation, version, first, *others = [*row, "", "", ""][:5]

    def use() -> None:
        exchange = accept(operation, first, api_version=version)  # type: ignore[arg-type]
        if exchange.authentications is None:
            exchange = exchange.read_authentications(others[0])
        for slot, entry in exchange.setups.items():
            auth = (exchange.authentications or {})[slot]
            if exchange.operation is Operation.SIGNGEN:
                exchange.protocol.ephemeral_proof(entry.setup, auth)
                exchange.protocol.sign_requests(entry.setup)
            elif exchange.operation is not Operation.REGISTER_PASSKEY:
                exchange.protocol.owner_claim(entry.setup, auth)
                typed_data_digest(exchange.protocol.typed_data(exchange.operation, entry.setup, "00" * 32))

    if operation in set(Operation):
        refused(lambda: detect_revision(operation, first))
    return refused(use)


def _frame_seeds() -> list[Any]:
    return [
        [case["operation"], case["inputs"].get("api_version", "v1"), *case["frames"]]
        for case in VECTORS
        if sum(map(len, case["frames"])) < 4000
    ]


def _gateway_replies(text: str) -> str:
    said = set()
    for has_names in (False, True):
        said.add(refused(lambda has_names=has_names: decode_keygen_results(text, has_names=has_names)))
        said.add(refused(lambda has_names=has_names: decode_signgen_results(text, has_names=has_names)))
    for revision in Revision:
        protocol = protocol_for(revision)
        for operation in protocol.methods:
            said.add(refused(partial(protocol.decode_challenges, operation, text, ["secp256k1"])))
    return " ".join(sorted(said))[:200]


_PARAMS = (
    node.IdentifyParams,
    node.ChallengeParams,
    node.KeygenParams,
    node.SettleParams,
    node.PresignParams,
    node.SignParams,
)


def _params(text: str) -> str:
    """A node's parameters: read, written and read again; and what a node reads in them before it asks who it was."""
    said = []
    for kind in _PARAMS:

        def twice(kind: Any = kind) -> None:
            found = fields.decode(kind, load(text))
            assert fields.decode(kind, load(fields.encode(found))) == found
            if kind is node.SignParams:
                read_messages(read_sign(found))
            elif kind is node.KeygenParams:
                for operation in ("keygen", "addEphemeralKey", "revokeEphemeralKey", "registerPasskey"):
                    with contextlib.suppress(RefusalError):
                        read_setup(found, operation)

        said.append(refused(twice, ProtocolError, InvalidFieldError, RefusalError))
    with contextlib.suppress(ProtocolError):
        value = load(text)
        if isinstance(value, dict):
            refused(lambda: read_request(value), RefusalError)
    return " ".join(sorted(set(said)))[:200]


_RESULTS = (
    node.Identity,
    node.ChallengeResult,
    node.Acknowledgement,
    node.Settlement,
    node.ChangeReceipt,
    node.PasskeyReceipt,
    node.PresignatureOffer,
    node.SignatureShares,
)


def _results(text: str) -> str:
    try:
        value = load(text)
    except ProtocolError as error:
        return outcome(error)
    said = set()
    for kind in _RESULTS:
        said.add(refused(partial(kind.read, value), ProtocolError))
        if issubclass(kind, node.SignedClaims):
            said.add(refused(partial(kind.read_whole, value), ProtocolError))
    return " ".join(sorted(said))[:200]


def _records(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "no JSON"

    def twice(kind: Any) -> None:
        found = kind.from_dict(value)
        assert kind.from_dict(json.loads(json.dumps(found.to_dict()))) == found

    return refused(partial(twice, DanModuleInfo), DanError) + refused(partial(twice, StoredSession), DanError)


def _permissions(text: str) -> str:
    request = SignRequest(request_type="accountAbstractionTx", message=json.dumps(surface._OPERATION))
    assert find_refusal(text, request, now=1.0) is None or True
    return refused(lambda: parse_permissions(text), InvalidFieldError)


def _typed_data(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "no JSON"
    said = refused(lambda: typed_data_digest(value), InvalidFieldError)
    if said == "taken":
        from eth_account.messages import _hash_eip191_message, encode_typed_data

        ours = typed_data_digest(value)
        with contextlib.suppress(Exception):  # it takes less than we do, or more
            theirs = _hash_eip191_message(encode_typed_data(full_message=json.loads(text)))
            if bytes(theirs) != ours:
                return "taken, another digest"
    return said


def _operation(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "no JSON"
    said = ""
    for version in ("v0.6.0", "v0.7.0"):

        def use(version: Any = version) -> None:
            operation = user_operation_from_dict(value, version=version)
            again = user_operation_from_dict(operation.to_dict(), version=version)
            for each in (operation, again):
                user_operation_hash(each, entry_point=ENTRY_POINT, chain_id=1, version=version)
            assert again == operation

        said += refused(use, InvalidFieldError)
    message = json.dumps(
        {
            "userOperation": value,
            "entryPointVersion": "v0.6.0",
            "entryPointAddress": ENTRY_POINT,
            "chainId": 1,
        }
    )
    with contextlib.suppress(InvalidFieldError, UnicodeEncodeError):
        find_refusal("[]", SignRequest(request_type="accountAbstractionTx", message=message), now=1.0)
    return said


def _small(text: str) -> str:
    """Single values: URLs, Retry-After, passkeys' texts, rows of a batch."""
    said = refused(lambda: check_url("url", text, schemes=("wss", "ws")), DanError)
    wait = parse_retry_after({"Retry-After": text})
    assert wait is None or 0 <= wait <= 24 * 3600
    said += refused(lambda: decode_passkey_signature(text))
    for form in ("jsonl", "csv", "wallets"):
        said += refused(partial(_all_rows, text, form), DanError)
    return said


def _all_rows(text: str, form: Any) -> None:
    for row in read_rows(io.StringIO(text), form):
        repr(row)


# --- what nodes send each other ---------------------------------------------------------------------------------------

_MESSAGES = [
    kind
    for module in (dkg, pairwise_setup, threshold_ecdsa)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]
_HERE, _THERE = NodeIdentity.from_hex("01" * 32), NodeIdentity.from_hex("02" * 32)


def _peer(data: bytes) -> str:
    def frame() -> None:
        message = PeerMessage.decode(data)
        assert message.encode() == data

    said = refused(frame) + refused(lambda: AbortNotice.decode(data))
    for kind in _MESSAGES:

        def twice(kind: Any = kind) -> None:
            prefix = data[1:33]
            found = kind.decode(data, prefix)
            assert found.encode(prefix) == data

        said += refused(twice)
    for count in (1, 2, 3):

        def parts(count: int = count) -> None:
            assert join_parts(split_parts(data, count)) == data

        refused(parts)
    refused(lambda: decode_calls(data), DanError)
    return said[:200]


def _handshake(row: list[bytes]) -> str:
    hello, answer, finish = [*row, b"", b"", b""][:3]
    roster = frozenset({_HERE.operator, _THERE.operator})

    def listen() -> None:
        _, accepted = accept_hello(_HERE, hello, roster)
        check_finish(accepted, finish)

    return refused(listen) + refused(lambda: Dialler(_HERE, _THERE.operator).finish(answer))


def _handshake_seeds() -> list[Any]:
    dialler = Dialler(_THERE, _HERE.operator)
    answer, _ = accept_hello(_HERE, dialler.hello(), frozenset({_THERE.operator}))
    return [[dialler.hello(), answer, dialler.finish(answer)[0]]]


# --- the command line, the public surface -----------------------------------------------------------------------------

_NODES = [f"ws://127.0.0.1:1/v1/rpc=0x{i:02x}{'11' * 19}" for i in range(1, 4)]
_QUICK = ["--timeout", "0.2"]


def _cli(row: list[str]) -> str:
    """A file's content, then the arguments: exit codes and one line of error, never a traceback."""
    content, *arguments = row or [""]
    if set(arguments) & {"devnet", "demo", "--devnet"}:
        return "not run"  # these go on until they are ended
    out, err = io.StringIO(), io.StringIO()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        (file := Path(folder) / "file").write_bytes(content.encode("utf-8", "surrogatepass"))
        file.chmod(0o600)
        os.chdir(folder)
        stack.callback(os.chdir, here)
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        code = cli(arguments)
    assert 0 <= code <= 6, code
    assert "Traceback" not in err.getvalue()
    assert err.getvalue() or out.getvalue()
    return f"{code} {outcome(None) if code == 0 else err.getvalue()[:40]}"


def _cli_seeds() -> list[Any]:
    nodes = [option for node in _NODES for option in ("--node", node)]
    network = [*nodes, "--threshold", "2", *_QUICK]
    whole = json.dumps(session().to_dict())
    return [
        ["01" * 32, "keygen", *network, "--parties", "3", "--chain-id", "1", "--private-key-file", "file"],
        [whole, "sign", "--session", "file", "--message", "hello", *network],
        [whole, "sign", "--session", "file", "--typed-data", "file", *network],
        [json.dumps(surface.TYPED_DATA), "sign", "--session", "file", "--typed-data", "file", *network],
        ["{}", "status", *network],
        ['{"reference":"a","chain_id":1}', "batch", "--input", "file", *network, "--output", "out"],
        ["reference,chain_id\na,1\n", "batch", "--input", "file.csv", *network],
        ["", "sessions", "list", "--store", "sqlite:///s.db", "--key-file", "file"],
        ["", "keygen", "--gateway", "ws://127.0.0.1:1/v1", *_QUICK],
        ["", "--help"],
    ]


def _knock(knocked: tuple[str, dict[str, Any]]) -> str:
    name, values = knocked
    asyncio.run(surface.knock(surface.DOORS[name], values))
    return name


@contextlib.contextmanager
def _elsewhere() -> Iterator[Check]:
    """Stores and the like make files where they are told to."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield _knock
        finally:
            os.chdir(here)


pure(
    "json",
    _json,
    lambda: ['{"jsonrpc":"2.0","id":1,"method":"m","params":{}}', '{"jsonrpc":"2.0","id":1,"result":[1]}'],
)
pure("setups", _setups, lambda: [case["frames"][0] for case in VECTORS if len(case["frames"][0]) < 3000])
pure("gateway-frames", _frames, _frame_seeds, rows)
pure(
    "gateway-replies",
    _gateway_replies,
    lambda: [reply for case in VECTORS for reply in case["server_replies"]],
)
pure("node-params", _params)
pure("node-results", _results)
pure("records", _records, lambda: [json.dumps(session().to_dict()), json.dumps(active().to_dict())])
pure("permissions", _permissions, lambda: [json.dumps(surface._PERMISSIONS), "[]"])
pure("typed-data", _typed_data, lambda: [json.dumps(surface.TYPED_DATA)])
pure("user-operations", _operation, lambda: [json.dumps(surface.OPERATION.to_dict())])
pure(
    "small-values",
    _small,
    lambda: ["wss://a.example/v1", "12", "Fri, 31 Dec 1999 23:59:59 GMT", "a,b\n1,2\n"],
)
pure("peer-messages", _peer, list, blobs)
pure("handshakes", _handshake, _handshake_seeds, rows)
pure("command-line", _cli, _cli_seeds, rows, is_kept=False)
register(Target("public-surface", lambda _: surface.several_knocks(), _elsewhere, is_kept=False))
