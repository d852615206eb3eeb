"""``dan-async sign`` and ``dan-async demo``: from the files that keygen writes to signatures on standard output."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data

from dan_async.crypto.signature import personal_message_digest, recover_address
from tests.cli.conftest import Run, command

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
TYPED_DATA: dict[str, Any] = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Order": [{"name": "amount", "type": "uint256"}],
    },
    "domain": {"name": "é"},
    "primaryType": "Order",
    "message": {"amount": 5},
}
OPERATION: dict[str, Any] = {
    "userOperation": {
        "sender": "0x9c5754De1443984659E1b3a8d1931D83475ba29C",
        "nonce": "0x7",
        "callData": "0xb61d27f6",
        "callGasLimit": "0x186a0",
        "verificationGasLimit": "0x186a0",
        "preVerificationGas": "0xc350",
        "maxFeePerGas": "0x3b9aca00",
        "maxPriorityFeePerGas": "0x3b9aca00",
        "signature": "0x",
    },
    "entryPointVersion": "v0.7.0",
    "entryPointAddress": "0x0000000071727De22E5E9d8BAf0edAc6f37da032",
    "chainId": 137,
}


@pytest.fixture
def session(run: Run, nodes: list[str], tmp_path: Path) -> Path:
    """A session file of two of three nodes, as keygen writes it."""
    (key := tmp_path / "key").touch(mode=0o600)
    key.write_text(KEY)
    path = tmp_path / "session.json"
    options = ["--threshold", "2", "--parties", "3", "--chain-id", "137", "--output", str(path)]
    made = run("keygen", *on(nodes), "--private-key-file", str(key), *options)
    assert made.code == 0, made.err
    return path


@pytest.fixture
def dummy(tmp_path: Path) -> Path:
    """A session file that looks like one; nothing is sent for it."""
    path = tmp_path / "dummy.json"
    fields = {"sessionKeyEOA": "0x" + "11" * 20, "mpcKeyId": "22" * 32, "hexEphSKWithout0x": "33" * 32}
    path.write_text(json.dumps(fields))
    return path


def on(nodes: list[str]) -> list[str]:
    """The options that name the nodes."""
    return [part for node in nodes for part in ("--node", node)]


def written(folder: Path, value: Any) -> str:
    """The name of a file with that JSON in it."""
    path = folder / "input.json"
    path.write_text(json.dumps(value))
    return str(path)


def test_every_kind_of_message(run: Run, nodes: list[str], session: Path, tmp_path: Path) -> None:
    """Text, typed data, a digest, a user operation; nothing but the signature on standard output."""
    address = json.loads(session.read_text())["sessionKeyEOA"]

    def sign(*what: str) -> str:
        done = run("sign", "--session", str(session), *on(nodes), *what)
        assert (done.code, done.err) == (0, "")
        (line,) = done.out.splitlines()
        return line

    text = sign("--message", "hello")
    assert Account.recover_message(encode_defunct(text="hello"), signature=text) == address
    typed = sign("--typed-data", written(tmp_path, TYPED_DATA))
    assert Account.recover_message(encode_typed_data(full_message=TYPED_DATA), signature=typed) == address
    assert recover_address(b"\xab" * 32, sign("--digest", "0x" + "ab" * 32)) == address
    said = json.loads(sign("--user-op", written(tmp_path, OPERATION), "--json"))
    assert said["address"] == address
    assert said["requestType"] == "accountAbstractionTx"
    assert len(said["signature"]) == 132


def test_a_message_from_standard_input(
    run: Run, nodes: list[str], session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed as it is, with its byte order mark and its line break; the mark of the session's file means nothing."""
    address = json.loads(session.read_text())["sessionKeyEOA"]
    session.write_text(f"\ufeff{session.read_text()}")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffhé\n".encode())))
    done = run("sign", "--session", str(session), *on(nodes), "--message", "-")
    assert done.code == 0, done.err
    signer = Account.recover_message(encode_defunct(text="\ufeffhé\n"), signature=done.out.strip())
    assert signer == address


def test_another_chain_has_to_be_named(run: Run, nodes: list[str], session: Path, tmp_path: Path) -> None:
    """By the option that the refusal names."""
    other = {**TYPED_DATA, "domain": {"name": "é", "chainId": 5}}
    other["types"] = {
        **TYPED_DATA["types"],
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
    }
    sign = ("sign", "--session", str(session), *on(nodes), "--typed-data", written(tmp_path, other))
    refused = run(*sign)
    assert "If that is intended, pass --chain-id=5" in refused.error
    assert run(*sign, "--chain-id=5").code == 0


def test_a_session_over_nodes_signs_over_their_gateway(run: Run, tmp_path: Path) -> None:
    """Its file says which algorithm its ephemeral key has, which is not the gateway's usual one."""
    process = subprocess.Popen(command("devnet", "--nodes", "3", "--json"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        net = json.loads(process.stdout.readline())
        assert (net["threshold"], net["parties"]) == (2, 3)
        named = on([f"{node['url']}={node['operator']}" for node in net["nodes"]])
        (key := tmp_path / "key").touch(mode=0o600)
        key.write_text(KEY)
        owner = ("--private-key-file", str(key), "--chain-id", "137")
        path = tmp_path / "session.json"
        assert run("keygen", *named, *owner, "--output", str(path)).code == 0
        done = run("sign", "--session", str(path), "--gateway", net["gateway"], "--message", "hello")
        assert done.code == 0, done.err
        signer = Account.recover_message(encode_defunct(text="hello"), signature=done.out.strip())
        assert signer == json.loads(path.read_text())["sessionKeyEOA"]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("form", ["a record", "a list of one", "a line"])
def test_every_form_of_a_session_is_taken(
    run: Run, nodes: list[str], session: Path, tmp_path: Path, form: str
) -> None:
    """As sessions show, list and export print them; two are one too many, and a masked one is none."""
    fields = json.loads(session.read_text())
    record = {"id": "0x" + "12" * 32, "state": "active", "session": fields}
    shown = {"a record": record, "a list of one": {"sessions": [record], "next": None}, "a line": fields}[
        form
    ]
    path = tmp_path / "shown"
    sign = ("sign", "--session", str(path), *on(nodes), "--message", "hello")
    path.write_text(json.dumps(shown) + "\n")
    assert run(*sign).code == 0
    path.write_text((json.dumps(shown) + "\n") * 2)
    assert "--session has 2 sessions" in run(*sign).error
    path.write_text(json.dumps(shown).replace(fields["hexEphSKWithout0x"], "***"))
    assert "is masked. --reveal" in run(*sign).error


def test_a_session_that_is_no_file_is_looked_for_in_a_store(run: Run, nodes: list[str]) -> None:
    """And without a store, that is said."""
    done = run("sign", "--session", "agent 7", *on(nodes), "--message", "hello")
    assert "there is no file agent 7. For the id or reference of a record, name the --store" in done.error


def test_through_a_gateway_that_does_not_know_the_key(run: Run, dummy: Path) -> None:
    """A failure of the network is exit code 1, in one line."""
    options = ["--gateway", "ws://127.0.0.1:9/v1", "--revision", "0.3", "--timeout", "1"]
    done = run("sign", "--session", str(dummy), "--message", "hello", *options)
    assert done.code == 1
    assert "error: " in done.error
    done = run("sign", "--session", str(dummy), "--message", "a", "--eph-alg", "secp256k1", *options)
    assert (done.code, done.error.partition(" in revision")[0]) == (
        2,
        "error: --session: eph_alg must be ed25519",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing says what to sign"),
        (["--message", "a", "--digest", "ab"], "--message and --digest both say what to sign"),
        (["--message", "a", "--timeout", "0"], "--timeout"),
        (["--message", "a", "--eph-alg", "rsa"], "--eph-alg must be"),
        (["--digest", "abcd"], "--digest must hold 32 bytes"),
        (["--typed-data", "/nowhere/file"], "--typed-data: cannot read /nowhere/file: No such file"),
        (["--typed-data", __file__], "--typed-data must be JSON text"),
        (["--user-op", "/nowhere/file"], "--user-op: cannot read /nowhere/file: No such file"),
        (["--user-op", "empty.json"], "--user-op: userOperation is missing"),
    ],
)
def test_wrong_options_are_named(
    run: Run, dummy: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    """Exit code 2, one line, nothing sent."""
    dummy.with_name("empty.json").write_text("{}")
    monkeypatch.chdir(dummy.parent)
    nodes = ["ws://127.0.0.1:9/v1/rpc=0x" + "11" * 20, "ws://127.0.0.1:9/v1/rpc=0x" + "22" * 20]
    done = run("sign", "--session", str(dummy), *on(nodes), *options)
    assert done.code == 2
    assert said in done.error


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "", "{", "[]", "{}", '{"hexEphSKWithout0x": "' + "33" * 32 + '"}']
)
def test_a_file_that_is_no_session_is_refused(run: Run, tmp_path: Path, content: str) -> None:
    """Without showing what is in it."""
    path = tmp_path / "session.json"
    path.write_text(content, errors="surrogateescape")
    done = run("sign", "--session", str(path), "--gateway", "wss://gateway.example/v1", "--message", "a")
    assert done.code == 2
    assert "--session" in done.error
    assert "33" * 32 not in done.err


def test_a_session_may_come_from_standard_input(
    run: Run, dummy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With - for its name; here the gateway that it is for does not answer."""
    stream = io.TextIOWrapper(io.BytesIO(dummy.read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    options = ["--gateway", "ws://127.0.0.1:9/v1", "--revision", "0.3", "--timeout", "1"]
    assert run("sign", "--session", "-", "--message", "hello", *options).code == 1


def test_a_missing_standard_input_is_no_session(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be started without one; Python then has None in its place."""
    monkeypatch.setattr("sys.stdin", None)
    done = run("sign", "--session", "-", "--gateway", "wss://gateway.example/v1", "--message", "a")
    assert done.code == 2
    assert "--session" in done.error


def test_a_file_that_is_too_long_is_refused(run: Run, dummy: Path, tmp_path: Path) -> None:
    """Rather than read to its end."""
    (path := tmp_path / "long").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    options = ["--gateway", "wss://gateway.example/v1", "--typed-data", str(path)]
    done = run("sign", "--session", str(dummy), *options)
    assert done.code == 2
    assert "too long" in done.error


def test_one_node_or_none_is_not_enough(run: Run, dummy: Path) -> None:
    """And the two networks exclude one another."""
    node = "ws://127.0.0.1:9/v1/rpc=0x" + "11" * 20
    base = ["sign", "--session", str(dummy), "--message", "a"]
    assert "at least two nodes" in run(*base, "--node", node).error
    assert "no network is named" in run(*base).error
    assert (
        "both name a network"
        in run(
            *base, *on([node, node.replace("1111", "2222")]), "--gateway", "wss://gateway.example/v1"
        ).error
    )


def test_an_operation_for_another_chain_is_refused(
    run: Run, nodes: list[str], session: Path, tmp_path: Path
) -> None:
    """By the chain in the session."""
    other = written(tmp_path, {**OPERATION, "chainId": 1})
    done = run("sign", "--session", str(session), *on(nodes), "--user-op", other)
    assert done.code == 2
    assert "--user-op: chainId" in done.error


def test_the_demo_explains_itself(run: Run) -> None:
    """Five numbered steps, and a signature that holds."""
    done = run("demo")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line[:2] for line in lines if line[0].isdigit()] == ["1.", "2.", "3.", "4.", "5."]
    (signature,) = (line.strip() for line in lines if len(line.strip()) == 132)
    (address,) = (line.split()[-1] for line in lines if "its address:" in line)
    digest = personal_message_digest(b"hello from a key that nobody holds")
    assert recover_address(digest, signature) == address
