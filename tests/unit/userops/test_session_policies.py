"""Sessions as bytes: everything that @biconomy/account 4.5.4 made of fixed inputs, and the contracts' ranges and rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dan_async import EphemeralKey, LocalWallet, Threshold
from dan_async._values import to_hex
from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.hashes import keccak256
from dan_async.crypto.signature import recover_address
from dan_async.errors import ConfigurationError, InvalidFieldError, PermissionDeniedError
from dan_async.permissions import parse_permissions
from dan_async.protocols.exchange import keygen_exchange, signgen_exchange
from dan_async.protocols.gateway_0_3 import REVISION_0_1
from dan_async.protocols.setups import EphemeralClaim
from dan_async.protocols.sign_request import RequestType, SignRequest, sign_request_digest
from dan_async.user_operation import Call, UserOperationV06, user_operation_hash
from dan_async.userops import BiconomyV2, create_smart_account_client
from dan_async.userops.session_policies import (
    DUMMY_SESSION_SIGNATURE,
    AbiPolicy,
    AbiRule,
    Erc20Policy,
    MerkleTree,
    SessionContracts,
    SessionLeaf,
    batch_session_signature,
    dan_message,
    node_permissions,
    read_sessions,
    session_signature,
    write_sessions,
)

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS = json.loads((FOLDER / "biconomy_sessions.json").read_text())
KEY = VECTORS["inputs"]["sessionKey"]["address"]
ENTRY_POINT = VECTORS["inputs"]["entryPoint"]
CHAIN_ID = VECTORS["inputs"]["chainId"]
CONTRACTS = SessionContracts()
TOKEN, NFT = "0x" + "11" * 20, "0x" + "22" * 20
RECIPIENT = "0x" + "33" * 20
ACCOUNT = VECTORS["accounts"][0]["address"]
TRANSFER = "transfer(address,uint256)"


def python_value(value: Any) -> Any:
    """A value of the vectors, as a caller of ours writes it."""
    if isinstance(value, dict):
        return bytes.fromhex(value["raw"][2:])
    return int(value[:-1]) if value.endswith("n") else value


def abi_policy(given: Any, **validity: int) -> AbiPolicy:
    """A policy of the vectors."""
    return AbiPolicy(
        target=given["contractAddress"],
        function=python_value(given["functionSelector"]),
        rules=[
            AbiRule(r["offset"], r["condition"], python_value(r["referenceValue"])) for r in given["rules"]
        ],
        value_limit=python_value(given["valueLimit"]),
        **validity,
    )


def policies() -> list[AbiPolicy | Erc20Policy]:
    """The five policies of the vectors, in the order of the tree."""
    found: list[AbiPolicy | Erc20Policy] = []
    for entry in VECTORS["policies"]:
        interval = entry["policy"].get("interval", {"validUntil": 0, "validAfter": 0})
        validity = {"valid_until": interval["validUntil"], "valid_after": interval["validAfter"]}
        found.append(abi_policy(entry["policy"], **validity))
    permission, datum = VECTORS["erc20"]["permission"], VECTORS["erc20"]["datum"]
    found.append(
        Erc20Policy(
            token=permission["token"],
            recipient=permission["recipient"],
            max_amount=python_value(permission["maxAmount"]),
            valid_until=datum["validUntil"],
            valid_after=datum["validAfter"],
        )
    )
    found.append(AbiPolicy(target=NFT, function=bytes.fromhex("052b898a")))
    return found


LEAVES = [SessionLeaf.of(policy, KEY, CONTRACTS) for policy in policies()]
DATA = [entry["datum"] for entry in [*VECTORS["policies"], VECTORS["erc20"]]] + [VECTORS["lastLeaf"]]


@pytest.mark.parametrize("position", range(5))
def test_policies_make_the_published_leaves(position: int) -> None:
    """Validity, module, key data (to the letter), and the leaf's hash."""
    leaf, datum = LEAVES[position], DATA[position]
    assert (leaf.valid_until, leaf.valid_after) == (datum["validUntil"], datum["validAfter"])
    assert (leaf.module, leaf.session_key) == (datum["sessionValidationModule"], datum["sessionPublicKey"])
    assert leaf.key_data == datum["sessionKeyData"]
    assert to_hex(leaf.hash) == VECTORS["trees"][4]["leaves"][position]


@pytest.mark.parametrize("position", range(5))
def test_a_policy_is_read_back_from_its_leaf(position: int) -> None:
    """A leaf that somebody else granted can be checked here."""
    assert LEAVES[position].policy(CONTRACTS) == policies()[position]
    assert evolve(LEAVES[position], module=TOKEN).policy(CONTRACTS) is None


@pytest.mark.parametrize(
    "tree", [*VECTORS["trees"], *json.loads((FOLDER / "merkle_trees.json").read_text())["trees"]]
)
def test_trees_and_proofs_are_the_published_ones(tree: Any) -> None:
    """Trees of one to nine leaves."""
    leaves = [bytes.fromhex(leaf[2:]) for leaf in tree["leaves"]]
    found = MerkleTree(leaves)
    assert to_hex(found.root) == tree["root"]
    assert [list(map(to_hex, found.proof(leaf))) for leaf in leaves] == tree["proofs"]
    if "setMerkleRoot" in tree:
        assert to_hex(encode_call("setMerkleRoot(bytes32)", found.root)) == tree["setMerkleRoot"]


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True))
def test_every_proof_leads_to_the_root(leaves: list[bytes]) -> None:
    """As the contract folds it; and no other leaf's proof does."""
    tree = MerkleTree(leaves)
    for leaf in leaves:
        node = leaf
        for sibling in tree.proof(leaf):
            node = keccak256(b"".join(sorted((node, sibling))))
        assert node == tree.root


def test_a_tree_without_leaves_proves_nothing() -> None:
    """Its root is zero, the root of an account that never had a session."""
    assert MerkleTree([]).root == bytes(32)
    with pytest.raises(ValueError, match="tuple"):
        MerkleTree([b"a" * 32]).proof(b"b" * 32)


@pytest.mark.parametrize("account", VECTORS["accounts"], ids=lambda a: f"{a['owner'][:6]}-{a['index']}")
def test_accounts_and_their_init_code(account: Any) -> None:
    """Address, module set-up, factory call."""
    found = BiconomyV2().deployment(account["owner"], int(account["index"]))
    assert found.address == account["address"]
    assert to_hex(found.data) == account["factoryCallData"]
    assert found.factory + found.data.hex() == account["initCode"]
    assert account["moduleSetupData"][2:] in found.data.hex()


def operation(name: str) -> UserOperationV06:
    """An operation of the vectors, unsigned."""
    return UserOperationV06.from_dict(VECTORS["operations"][name]["unsigned"])


@pytest.mark.parametrize("name", VECTORS["operations"])
def test_operations_have_the_published_hash(name: str) -> None:
    """The hash that owner and session sign."""
    found = user_operation_hash(operation(name), entry_point=ENTRY_POINT, chain_id=CHAIN_ID, version="v0.6.0")
    assert to_hex(found) == VECTORS["operations"][name]["hash"]


@pytest.mark.parametrize("name", [n for n, o in VECTORS["operations"].items() if "dan" in o])
def test_dan_signs_the_published_text(name: str) -> None:
    """To the letter: bytes without 0x, the factory in mixed case."""
    found = dan_message(operation(name), entry_point=ENTRY_POINT, chain_id=CHAIN_ID)
    assert found == VECTORS["operations"][name]["dan"]["message"]


def raw(name: str, member: str = "signature") -> bytes:
    return bytes.fromhex(VECTORS["operations"][name][member][2:])


def signed_by(name: str) -> bytes:
    """The 65 bytes at the end of a published signature."""
    return raw(name)[-96:-31]


PROVEN = [(leaf, MerkleTree([one.hash for one in LEAVES]).proof(leaf.hash)) for leaf in LEAVES]


@pytest.mark.parametrize("name", ["owner", "ownerBatch", "ownerDeployOnly"])
def test_owners_signatures_are_wrapped_as_published(name: str) -> None:
    """With the ECDSA module; the dummy is the one that gas was always estimated with."""
    kind = BiconomyV2()
    assert kind.wrap_signature(signed_by(name)) == raw(name)
    assert kind.dummy_signature == raw(name, "dummySignature")


def test_calls_are_encoded_as_published() -> None:
    """Single calls, batches, and the account's calls to its list of modules."""
    kind, found = BiconomyV2(), VECTORS["calls"]
    single, batch, setup = found["execute"], found["executeBatch"], found["setupAndEnableModule"]
    calls = [Call(*call) for call in zip(batch["to"], map(int, batch["value"]), batch["data"], strict=True)]
    assert (
        to_hex(kind.encode_calls([Call(single["to"], single["value"], single["data"])])) == single["callData"]
    )
    assert to_hex(kind.encode_calls(calls)) == batch["callData"]
    assert to_hex(kind.enable_module(ACCOUNT, CONTRACTS.manager).data) == found["enableModule"]
    set_up = kind.set_up_module(ACCOUNT, setup["module"], bytes.fromhex(setup["setup"][2:]))
    assert to_hex(set_up.data) == setup["data"]
    disable = kind.disable_module(ACCOUNT, CONTRACTS.manager)
    assert to_hex(disable.data) == found["disableModule"]["data"]
    assert (disable.target, disable.value) == (ACCOUNT, 0)
    root = bytes.fromhex(found["setMerkleRoot"]["root"][2:])
    assert to_hex(encode_call("setMerkleRoot(bytes32)", root)) == found["setMerkleRoot"]["data"]


@pytest.mark.parametrize(
    ("name", "leaf"), [("dan", 0), ("danOtherLeaf", 3), ("danLane", 0), ("localSession", 0)]
)
def test_session_signatures_are_wrapped_as_published(name: str, leaf: int) -> None:
    """For DAN and local keys alike; the dummy has the same form."""
    assert session_signature(signed_by(name), *PROVEN[leaf], CONTRACTS) == raw(name)
    dummy = session_signature(DUMMY_SESSION_SIGNATURE, *PROVEN[leaf], CONTRACTS)
    assert dummy == raw(name, "dummySignature")


def test_batches_are_wrapped_as_published() -> None:
    """A leaf for each call, one signature."""
    proven = [PROVEN[0], PROVEN[3]]
    assert batch_session_signature(signed_by("localBatch"), proven, CONTRACTS) == raw("localBatch")
    dummy = batch_session_signature(DUMMY_SESSION_SIGNATURE, proven, CONTRACTS)
    assert dummy == raw("localBatch", "dummySignature")


def test_the_published_store_is_read_and_written() -> None:
    """Byte for byte, sessions and root."""
    root = VECTORS["trees"][4]["root"]
    text = json.dumps({"merkleRoot": root, "leafNodes": VECTORS["store"]}, separators=(",", ":"))
    found_root, leaves = read_sessions(text)
    assert found_root == bytes.fromhex(root[2:])
    assert [leaf.hash for leaf in leaves] == [leaf.hash for leaf in LEAVES]
    assert leaves[0].session is not None
    assert leaves[0].session.mpc_key_id == VECTORS["inputs"]["keyId"]
    assert write_sessions(leaves) == text
    assert VECTORS["inputs"]["ephemeralPrivateKey"] not in repr(leaves)
    assert (read_sessions('{"merkleRoot":"","leafNodes":[]}'), write_sessions([])) == (
        (None, ()),
        '{"merkleRoot":"","leafNodes":[]}',
    )


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "{}",
        '{"merkleRoot":"0x12","leafNodes":[]}',
        '{"merkleRoot":"","leafNodes":[{}]}',
        '{"merkleRoot":"","leafNodes":[7]}',
        json.dumps({"merkleRoot": "", "leafNodes": [VECTORS["store"][0] | {"extra": 1}]}),
        json.dumps({"merkleRoot": "", "leafNodes": [VECTORS["store"][0] | {"validUntil": 2**48}]}),
        json.dumps({"merkleRoot": "", "leafNodes": [VECTORS["store"][0] | {"sessionKeyData": "0xf"}]}),
        json.dumps({"merkleRoot": "", "leafNodes": [VECTORS["store"][0] | {"danModuleInfo": []}]}),
    ],
)
def test_another_store_is_refused(text: str) -> None:
    """With an error of ours, which repeats no secret."""
    with pytest.raises(InvalidFieldError) as caught:
        read_sessions(text)
    assert VECTORS["inputs"]["ephemeralPrivateKey"] not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: AbiRule(-1, "==", 0), "offset"),
        (lambda: AbiRule(2**16, "==", 0), "offset"),
        (lambda: AbiRule(True, "==", 0), "offset"),
        (lambda: AbiRule(0, "~", 0), "condition"),
        (lambda: AbiRule(0, 6, 0), "condition"),
        (lambda: AbiRule(0, "==", -1), "value"),
        (lambda: AbiRule(0, "==", 2**256), "value"),
        (lambda: AbiRule(0, "==", 1.0), "value"),
        (lambda: AbiRule(0, "==", b"\x01"), "value"),
        (lambda: AbiRule(0, "==", "0x"), "value"),
        (lambda: AbiRule(0, "==", "0x" + "00" * 33), "value"),
        (lambda: AbiRule(0, "==", "12"), "value"),
        (lambda: AbiPolicy(target="0x1", function=TRANSFER), "target"),
        (lambda: AbiPolicy(target=TOKEN, function="transfer"), "function"),
        (lambda: AbiPolicy(target=TOKEN, function=b"abc"), "function"),
        (lambda: AbiPolicy(target=TOKEN, function=TRANSFER, value_limit=2**128), "value_limit"),
        (lambda: AbiPolicy(target=TOKEN, function=TRANSFER, value_limit=-1), "value_limit"),
        (lambda: AbiPolicy(target=TOKEN, function=TRANSFER, rules=["x"]), "rules"),
        (lambda: AbiPolicy(target=TOKEN, function=TRANSFER, valid_until=2**48), "valid_until"),
        (lambda: AbiPolicy(target=TOKEN, function=TRANSFER, valid_after=5, valid_until=4), "valid_until"),
        (lambda: Erc20Policy(token=TOKEN, recipient=RECIPIENT, max_amount=0), "max_amount"),
        (lambda: Erc20Policy(token=TOKEN, recipient=RECIPIENT, max_amount=2**256), "max_amount"),
        (lambda: Erc20Policy(token=TOKEN, recipient="x", max_amount=1), "recipient"),
        (lambda: SessionContracts(manager="0x1"), "manager"),
    ],
)
def test_values_out_of_the_contracts_range_are_named(make: Any, field: str) -> None:
    """Nothing is cut off to fit."""
    with pytest.raises(InvalidFieldError) as caught:
        make()
    assert caught.value.field == field


def transfer(to: str = RECIPIENT, amount: int = 10, **changes: Any) -> Call:
    return evolve(Call(TOKEN, 0, encode_call(TRANSFER, to, amount)), **changes)


ERC20 = Erc20Policy(token=TOKEN, recipient=RECIPIENT, max_amount=100, valid_after=50, valid_until=90)
ABI = AbiPolicy(
    target=TOKEN,
    function=TRANSFER,
    value_limit=7,
    rules=[AbiRule(0, "==", RECIPIENT), AbiRule(32, "<=", 100)],
    valid_after=50,
    valid_until=90,
)


@pytest.mark.parametrize("policy", [ERC20, ABI], ids=["erc20", "abi"])
def test_a_call_within_the_policy_passes(policy: Any) -> None:
    """To the limits, and in the first and the last second."""
    leaf = SessionLeaf.of(policy, KEY, CONTRACTS)
    for now in (50, 90):
        leaf.check_call(transfer(amount=100), CONTRACTS, now=now)


@pytest.mark.parametrize(
    ("policy", "call", "now", "rule"),
    [
        (ERC20, transfer(amount=101), 60, "max_amount"),
        (ERC20, transfer(to=NFT), 60, "recipient"),
        (ERC20, transfer(target=NFT), 60, "token"),
        (ERC20, transfer(value=1), 60, "token"),
        (ERC20, transfer(data=transfer().data[:-1]), 60, "recipient"),
        (ERC20, transfer(data=b"1234" + b"\x01" + transfer().data[5:]), 60, "recipient"),
        (ERC20, transfer(), 49, "valid_after"),
        (ERC20, transfer(), 91, "valid_until"),
        (ABI, transfer(amount=101), 60, "rules[1]"),
        (ABI, transfer(to=NFT), 60, "rules[0]"),
        (ABI, transfer(target=NFT), 60, "target"),
        (ABI, transfer(value=8), 60, "value_limit"),
        (ABI, transfer(data=b"1234" + transfer().data[4:]), 60, "function"),
        (ABI, transfer(data=b""), 60, "function"),
        (ABI, transfer(data=transfer().data[:-1]), 60, "rules[1]"),
        (ABI, transfer(), 49, "valid_after"),
        (ABI, transfer(), 91, "valid_until"),
    ],
)
def test_a_call_outside_the_policy_is_refused_with_its_rule(
    policy: Any, call: Call, now: int, rule: str
) -> None:
    """The rule that is broken is named."""
    with pytest.raises(PermissionDeniedError) as caught:
        SessionLeaf.of(policy, KEY, CONTRACTS).check_call(call, CONTRACTS, now=now)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ("==", {5}),
        ("<=", {4, 5}),
        ("<", {4}),
        (">=", {5, 6}),
        (">", {6}),
        ("!=", {4, 6}),
        ("=", {5}),
        (5, {4, 6}),
    ],
)
def test_conditions_compare_as_the_contract_does(condition: Any, allowed: set[int]) -> None:
    """The numbers 0 to 5 are the contract's."""
    rule = AbiRule(0, condition, 5)
    assert {n for n in (4, 5, 6) if rule.find_objection(n.to_bytes(32)) is None} == allowed


def test_policies_become_permissions_of_the_nodes() -> None:
    """The nodes allow the same targets, functions and amounts, at the same times."""
    found = node_permissions([ERC20, ABI], account=ACCOUNT, chain_id=CHAIN_ID)
    permissions = parse_permissions(json.dumps(found))
    assert permissions.accounts == {ACCOUNT}
    assert [type(rule).__name__ for rule in permissions.rules] == ["Erc20Rule", "Erc20Rule", "CallRule"]
    assert {(r.conditions.valid_after, r.conditions.valid_until) for r in permissions.rules} == {(50, 90)}


def test_key_data_of_another_form_are_refused() -> None:
    """A leaf that says it is the ABI module's, and is cut short."""
    with pytest.raises(InvalidFieldError, match="sessionKeyData"):
        evolve(LEAVES[1], key_data=LEAVES[1].key_data[:-2]).policy(CONTRACTS)
    assert encode_arguments("(address)", (KEY,))  # and a whole one is read


INPUTS = VECTORS["inputs"]
OWNER = LocalWallet(INPUTS["owner"]["privateKey"])
CHALLENGE = INPUTS["challenge"]


def claim_of(key: EphemeralKey, expiry: int) -> EphemeralClaim:
    public = to_hex(key.public_key)
    return EphemeralClaim(eph_id=public, eph_pk=key.public_key, expiry=expiry, sign_alg="ed25519")


async def test_a_key_is_made_with_the_published_frames() -> None:
    """The owner's digest, each frame to the letter, and the session that comes of the result."""
    vector, key = VECTORS["keygen"], EphemeralKey.from_hex(INPUTS["ephemeralPrivateKey"], "ed25519")
    sent = [frame["text"] for frame in vector["frames"]]
    claim = claim_of(key, INPUTS["now"] + vector["duration"])
    exchange = keygen_exchange(REVISION_0_1, threshold=Threshold(3, 5), claim=claim)
    assert exchange.setup_frame == sent[0]
    assert exchange.read_challenges(sent[1]) == {"secp256k1": CHALLENGE}
    typed_data = exchange.typed_data("secp256k1", CHALLENGE)
    assert to_hex(typed_data_digest(typed_data)) == vector["ownerDigest"]
    authentication = REVISION_0_1.owner_authentication(
        claim=claim, method="eoa", owner_id=OWNER.address, signature=await OWNER.sign_typed_data(typed_data)
    )
    assert exchange.authentication_frame({"secp256k1": authentication}) == sent[2]
    (result,) = exchange.read_result(sent[3])
    assert result.key_id == vector["result"]["mpcKeyId"]
    assert public_key_to_address(result.public_key) == vector["result"]["sessionKeyEOA"]


@pytest.mark.parametrize("name", [n for n, o in VECTORS["operations"].items() if "dan" in o])
def test_dan_is_asked_with_the_published_frames(name: str) -> None:
    """The text in base64, and the ephemeral key's signature; the answer is the one that was wrapped."""
    sent = [frame["text"] for frame in VECTORS["operations"][name]["dan"]["frames"]]
    key = EphemeralKey.from_hex(INPUTS["ephemeralPrivateKey"], "ed25519")
    message = dan_message(operation(name), entry_point=ENTRY_POINT, chain_id=CHAIN_ID)
    request = SignRequest(request_type=RequestType.USER_OPERATION, message=message)
    exchange = signgen_exchange(REVISION_0_1, t=3, key_id=INPUTS["keyId"], requests=[request])
    assert exchange.setup_frame == sent[0]
    authentication = exchange.ephemeral_authentication(
        "secp256k1",
        claim=claim_of(key, 0),
        owner_id=OWNER.address,
        signature=key.sign_message(exchange.ephemeral_payload("secp256k1", CHALLENGE)),
    )
    assert exchange.authentication_frame({"secp256k1": authentication}) == sent[2]
    (result,) = exchange.read_result(sent[3])
    assert result.signature[:64] == signed_by(name)[:64]
    assert recover_address(sign_request_digest(request), signed_by(name)) == KEY


async def test_a_message_is_signed_for_the_account_as_published() -> None:
    """Wrapped for its module, with the deployment of an account that is not there yet."""
    async with await create_smart_account_client(
        signer=OWNER, bundler_url="https://bundler.example", account=BiconomyV2(), chain_id=CHAIN_ID
    ) as account:
        found = VECTORS["personalMessage"]
        assert await account.sign_message(found["message"]) == found["signature"]
        assert await account.sign_message(found["message"].encode()) == found["signature"]
    async with await create_smart_account_client(
        signer=OWNER, bundler_url="https://bundler.example", chain_id=CHAIN_ID
    ) as account:
        with pytest.raises(ConfigurationError, match="BiconomyV2"):
            await account.sign_message("hello")
