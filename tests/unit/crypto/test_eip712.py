"""EIP-712 digests: against eth-account, the examples of the EIP and of eth_signTypedData_v4, and what is refused."""

import copy
import json
import threading
import tracemalloc

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings

from dan_async.crypto import eip712
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.hashes import takes_long
from dan_async.errors import InvalidFieldError
from dan_async.wallets import LocalWallet
from tests.unit.crypto.typed_data import typed_data
from tests.unit.crypto.vectors import WALLET_CASES, name

ADDRESS = "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"


def one(kind, value, **types):
    """Typed data with one member *a* of that type."""
    return {
        "types": {"Main": [{"name": "a", "type": kind}], **types},
        "primaryType": "Main",
        "domain": {"name": "test"},
        "message": {"a": value},
    }


MAIL = {
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ],
        "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
        "Mail": [
            {"name": "from", "type": "Person"},
            {"name": "to", "type": "Person"},
            {"name": "contents", "type": "string"},
        ],
    },
    "primaryType": "Mail",
    "domain": {"name": "Ether Mail", "version": "1", "chainId": 1, "verifyingContract": ADDRESS},
    "message": {
        "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
        "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
        "contents": "Hello, Bob!",
    },
}


def test_the_example_of_the_eip():
    """The mail of EIP-712 has the digest that the EIP gives."""
    assert typed_data_digest(MAIL).hex() == "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"


def test_arrays_as_in_eth_sign_typed_data_v4():
    """The mail with arrays, whose digest MetaMask's own tests give."""
    data = copy.deepcopy(MAIL)
    data["types"]["Person"][1] = {"name": "wallets", "type": "address[]"}
    data["types"]["Mail"][1] = {"name": "to", "type": "Person[]"}
    data["message"] = {
        "from": {
            "name": "Cow",
            "wallets": [
                "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826",
                "0xDeaDbeefdEAdbeefdEadbEEFdeadbeEFdEaDbeeF",
            ],
        },
        "to": [
            {
                "name": "Bob",
                "wallets": [
                    "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB",
                    "0xB0BdaBea57B0BDABeA57b0bdABEA57b0BDabEa57",
                    "0xB0B0b0b0b0b0B000000000000000000000000000",
                ],
            }
        ],
        "contents": "Hello, Bob!",
    }
    assert typed_data_digest(data).hex() == "a85c2e2b118698e88db68a8105b794a8cc7cec074e89ef991cb4f5f533819cc2"


def test_a_recursive_type_as_in_eth_sign_typed_data_v4():
    """The family tree, whose digest MetaMask's own tests give: a missing parent is null there."""
    person = [
        {"name": "name", "type": "string"},
        {"name": "mother", "type": "Person"},
        {"name": "father", "type": "Person"},
    ]

    def member(name, mother=None, father=None):
        return {"name": name, "mother": mother, "father": father}

    data = {
        "types": {"EIP712Domain": MAIL["types"]["EIP712Domain"], "Person": person},
        "primaryType": "Person",
        "domain": {"name": "Family Tree", "version": "1", "chainId": 1, "verifyingContract": ADDRESS},
        "message": member(
            "Jon",
            mother=member("Lyanna", father=member("Rickard")),
            father=member("Rhaegar", father=member("Aeris II")),
        ),
    }
    assert typed_data_digest(data).hex() == "807773b9faa9879d4971b43856c4d60c2da15c6f8c062bd9d33afefb756de19c"


@pytest.mark.parametrize("case", WALLET_CASES, ids=name)
def test_the_digests_of_the_wire_vectors(case):
    """Every keygen, add and revoke authorisation has the recorded digest."""
    assert "0x" + typed_data_digest(case["wallet"]["typed_data"]).hex() == case["wallet"]["digest"]


@settings(max_examples=60)
@given(typed_data())
def test_the_digest_is_eth_accounts(data):
    """Over generated types and values, eth-account arrives at the same digest."""
    theirs = _hash_eip191_message(encode_typed_data(full_message=copy.deepcopy(data)))
    assert typed_data_digest(data) == bytes(theirs)


def test_a_domain_type_left_out_is_derived():
    """Without EIP712Domain the digest is that of the members the domain has."""
    data = copy.deepcopy(MAIL)
    del data["types"]["EIP712Domain"]
    assert typed_data_digest(data) == typed_data_digest(MAIL)


def test_the_order_of_the_domains_members_does_not_matter():
    """A domain is hashed in the order of the EIP, however its JSON is ordered."""
    data = dict(MAIL, domain=dict(reversed(MAIL["domain"].items())))
    assert typed_data_digest(data) == typed_data_digest(MAIL)


def test_the_domain_alone_can_be_signed():
    """With EIP712Domain as the primary type the message is not hashed."""
    data = dict(MAIL, primaryType="EIP712Domain")
    assert typed_data_digest(data) == typed_data_digest(dict(data, message={}))
    assert typed_data_digest(data) != typed_data_digest(dict(data, domain={**MAIL["domain"], "chainId": 2}))


def test_members_that_the_type_does_not_declare_are_not_covered():
    """A message may have more members than its type, as wallets allow."""
    data = one("uint8", 1)
    more = dict(data, message={"a": 1, "b": 2})
    assert typed_data_digest(more) == typed_data_digest(data)


def test_types_that_differ_only_in_a_member_name_differ():
    """The cache of compiled types does not mix up similar types."""
    data = one("uint8", 1)
    other = {**data, "types": {"Main": [{"name": "b", "type": "uint8"}]}, "message": {"b": 1}}
    assert typed_data_digest(other) != typed_data_digest(data)


def test_true_is_not_found_in_the_domain_cache_as_one():
    """A domain whose chainId is true is refused even when one with chainId 1 is cached."""
    typed_data_digest(MAIL)
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(MAIL, domain={**MAIL["domain"], "chainId": True}))
    assert caught.value.field == "domain.chainId"


def test_an_equal_domain_is_checked_against_its_own_spelled_out_type():
    """A cached domain does not excuse an EIP712Domain that says something else."""
    typed_data_digest(MAIL)
    types = {**MAIL["types"], "EIP712Domain": MAIL["types"]["EIP712Domain"][:3]}
    with pytest.raises(InvalidFieldError, match="EIP712Domain must list exactly"):
        typed_data_digest(dict(MAIL, types=types))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("uint8", "256"),
        ("uint8", "-1"),
        ("uint8", "0x100"),
        ("uint8", True),
        ("uint8", 1.0),
        ("uint8", "1.0"),
        ("uint8", ""),
        ("uint8", "0x"),
        ("uint8", "١"),
        ("uint8", " 1"),
        ("uint8", None),
        ("uint256", 2**256),
        ("uint256", "9" * 5000),
        ("int8", 128),
        ("int8", -129),
        ("int8", False),
        ("int8", "-0x1"),
        ("bool", 1),
        ("bool", 0),
        ("bool", "true"),
        ("bool", None),
        ("string", 5),
        ("string", None),
        ("string", b"bytes"),
        ("string", "\ud800"),
        ("bytes", "text"),
        ("bytes", "0x1"),
        ("bytes", "0xzz"),
        ("bytes", "00"),
        ("bytes", b"\x00"),
        ("bytes", 0),
        ("bytes3", "0x0102"),
        ("bytes3", "0x01020304"),
        ("bytes3", None),
        ("address", "0x" + "ab" * 19),
        ("address", "ab" * 20),
        ("address", 5),
        ("address", "0xcd2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"),
        ("uint8[]", 1),
        ("uint8[]", None),
        ("uint8[]", "0x"),
        ("uint8[]", {"0": 1}),
        ("uint8[2]", [1]),
        ("uint8[2]", [1, 2, 3]),
        ("uint8[2][]", [[1]]),
        ("Main[]", [[]]),
        ("Main[]", 1),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_refused(kind, value):
    """What wallets refuse, or would only take under a guess, is refused with its path."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(one(kind, value))
    assert caught.value.field.startswith("message.a")


def test_the_error_names_the_path():
    """An error deep inside says where."""
    inner = [{"name": "tag", "type": "uint16"}]
    data = one("Inner[][2]", [[{"tag": 1}], [{"tag": 1}, {"tag": -1}]], Inner=inner)
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "message.a[1][1].tag"


def test_a_missing_member_is_refused():
    """A member that its type declares must be there."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(one("uint8", 1), message={}))
    assert str(caught.value) == "message.a is missing"


def test_a_missing_struct_is_refused():
    """Leaving a struct out is no way of writing null."""
    data = dict(one("Inner", None, Inner=[{"name": "x", "type": "bool"}]), message={})
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "message.a"


def test_a_null_message_is_refused():
    """Only a struct within a message may be null."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(one("uint8", 1), message=None))
    assert caught.value.field == "message"


def test_the_error_does_not_repeat_the_value():
    """A refused value may be a secret."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(one("bytes32", "0xdeadbeef"))
    assert "deadbeef" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        "uint",
        "int",
        "uint7",
        "uint264",
        "uint08",
        "uint0",
        "int512",
        "bytes0",
        "bytes33",
        "bytes01",
        "byte",
        "fixed128x18",
        "function",
        "Missing",
        "uint8 ",
        "uint8[",
        "uint8[-1]",
        "uint8[01]",
        "uint8[x]",
        "uint8]",
        "[]",
        "",
        "String",
        "bool()",
    ],
)
def test_a_type_that_is_none_is_refused(kind):
    """Aliases, unknown and misspelled types are refused, with the member's place."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(one(kind, 1))
    assert caught.value.field == "types.Main[0]"


@pytest.mark.parametrize("name", ["", "a b", "a,uint8 b", "a)", "1a", "a-b", None, 5])
def test_a_member_name_that_is_no_identifier_is_refused(name):
    """A name with syntax in it could make one type look like another."""
    data = dict(one("uint8", 1), types={"Main": [{"name": name, "type": "uint8"}]}, message={name: 1})
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "types.Main[0]"


@pytest.mark.parametrize(
    "name",
    ["", "A B", "A(uint8 x)", "uint8", "uint256", "bytes", "bytes5", "string", "bool", "address", "int", 7],
)
def test_a_struct_name_that_is_no_identifier_is_refused(name):
    """A struct must not be called like a type of EIP-712's own."""
    data = one("uint8", 1)
    data["types"][name] = [{"name": "x", "type": "bool"}]
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "types"


def test_two_members_of_one_name_are_refused():
    """Which of the two a wallet shows would be its own choice."""
    data = dict(one("uint8", 1), types={"Main": [{"name": "a", "type": "uint8"}] * 2})
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "types.Main"


@pytest.mark.parametrize(
    "types",
    [
        None,
        [],
        {"Main": None},
        {"Main": [1]},
        {"Main": [{"name": "a"}]},
        {"Main": [{"type": "uint8"}]},
        {"Main": [["a", "uint8"]]},
        {"Main": [{"name": "a", "type": ["uint8"]}]},
        {"Main": 5},
        {"Main": "text"},
    ],
)
def test_types_of_another_shape_are_refused(types):
    """Types are lists of objects with name and type."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(one("uint8", 1), types=types))
    assert caught.value.field == "types"


def test_a_type_that_is_not_text_is_refused():
    """A member's type is a name."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(one(5, 1))
    assert caught.value.field == "types.Main[0]"


@pytest.mark.parametrize("primary", ["Other", "", "uint8", "Main[]"])
def test_a_primary_type_that_is_not_defined_is_refused(primary):
    """The primary type is one of the types."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(one("uint8", 1), primaryType=primary))
    assert caught.value.field == "primaryType"


def test_a_primary_type_that_is_not_text_is_refused():
    """The primary type is a name."""
    with pytest.raises(InvalidFieldError, match="primaryType must be text, not list"):
        typed_data_digest(dict(one("uint8", 1), primaryType=["Main"]))


@pytest.mark.parametrize("missing", ["types", "primaryType", "domain", "message"])
def test_all_four_parts_are_needed(missing):
    """Typed data has types, primaryType, domain and message."""
    data = one("uint8", 1)
    del data[missing]
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "typed_data"


@pytest.mark.parametrize("data", [None, "{}", [], 5])
def test_typed_data_is_an_object(data):
    """Anything but a mapping is refused."""
    with pytest.raises(InvalidFieldError):
        typed_data_digest(data)


@pytest.mark.parametrize(
    ("domain", "field"),
    [
        ({"title": "x"}, "domain"),
        ({"name": "x", "chainid": 1}, "domain"),
        ({5: 1}, "domain"),
        (None, "domain"),
        ({"name": 5}, "domain.name"),
        ({"name": None}, "domain.name"),
        ({"chainId": -1}, "domain.chainId"),
        ({"chainId": "one"}, "domain.chainId"),
        ({"chainId": 1.0}, "domain.chainId"),
        ({"verifyingContract": "0x"}, "domain.verifyingContract"),
        ({"salt": "0x00"}, "domain.salt"),
        ({"salt": []}, "domain.salt"),
    ],
)
def test_a_malformed_domain_is_refused(domain, field):
    """A domain has the five members of the EIP and no others, each of its type."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(one("uint8", 1), domain=domain))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "spelled",
    [
        [],
        [{"name": "name", "type": "string"}, {"name": "version", "type": "string"}],
        [{"name": "name", "type": "bytes"}],
        [{"name": "title", "type": "string"}],
    ],
)
def test_a_domain_type_that_says_something_else_is_refused(spelled):
    """Some wallets hash by EIP712Domain, others by the members present: they must agree."""
    data = one("uint8", 1, EIP712Domain=spelled)
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(data)
    assert caught.value.field == "types.EIP712Domain"


def test_a_domain_type_in_another_order_is_refused():
    """EIP-712 fixes the order of the domain's members."""
    types = {**MAIL["types"], "EIP712Domain": MAIL["types"]["EIP712Domain"][::-1]}
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(dict(MAIL, types=types))
    assert caught.value.field == "types.EIP712Domain"


def nested(levels):
    """A recursive message of so many structs."""
    message = {"a": []}
    for _ in range(levels - 1):
        message = {"a": [message]}
    return dict(one("Main[]", []), message=message)


def test_a_message_of_32_levels_has_a_digest():
    """Recursive messages may be deeper than any person reads."""
    assert len(typed_data_digest(nested(32))) == 32


@pytest.mark.parametrize("levels", [34, 20_000])
def test_a_message_nested_too_deeply_is_refused(levels):
    """A message of any depth ends in our error, whatever the recursion limit of the process."""
    with pytest.raises(InvalidFieldError, match="is nested too deeply") as caught:
        typed_data_digest(nested(levels))
    assert caught.value.field.startswith("message.a[0].a[0]")


def test_an_array_of_too_many_dimensions_is_refused():
    """A type with thousands of brackets is no type."""
    with pytest.raises(InvalidFieldError) as caught:
        typed_data_digest(one("uint8" + "[]" * 5_000, []))
    assert caught.value.field == "types.Main[0]"


def test_many_types_do_not_fill_the_memory():
    """The cache of compiled types is bounded."""
    from dan_async.crypto.eip712 import _kept_encoder

    for number in range(200):
        typed_data_digest(
            dict(
                one("uint8", 1),
                types={"Main": [{"name": f"a{number}", "type": "bool"}]},
                message={f"a{number}": True},
            )
        )
    assert _kept_encoder.cache_info().currsize <= 64


# --- bounds: types come from strangers ---------------------------------------------------------------------------------


def chain(types, padding=""):
    """So many types, each of which refers to the next."""
    names = [f"T{number}{padding}" for number in range(types)]
    kinds = [*names[1:], "uint8"]
    return {
        "types": {name: [{"name": "a", "type": kind}] for name, kind in zip(names, kinds, strict=True)},
        "primaryType": names[0],
        "domain": {},
        "message": {"a": None if types > 1 else 1},
    }


@pytest.fixture
def hashed(monkeypatch):
    """The lengths of what is hashed."""
    lengths = []
    keccak256 = eip712.keccak256

    def count(data):
        lengths.append(len(data))
        return keccak256(data)

    monkeypatch.setattr(eip712, "keccak256", count)
    return lengths


@pytest.mark.parametrize("types", [2_000, 17_000])
def test_thousands_of_types_are_refused_before_any_work(hashed, types):
    """A document of 80 KB held a loop for 6 s, one of 720 KB for 49 s: now nothing of it is even read."""
    data = chain(types)
    assert len(json.dumps(data)) > 40 * types
    with pytest.raises(InvalidFieldError, match="at most 128, not") as caught:
        typed_data_digest(data)
    assert caught.value.field == "types"
    assert not hashed


def test_as_many_types_as_are_allowed_have_a_digest(hashed):
    """A chain of 128, the longest: each encodes all that follow, and half a million characters are not reached."""
    assert len(typed_data_digest(chain(eip712.MAX_TYPES))) == 32
    assert sum(hashed) < eip712.MAX_ENCODED_TYPES


def test_types_that_refer_to_each_other_at_length_are_refused(hashed):
    """What encodeType would write is limited as well: 128 types of 100 characters need 15 times their own size."""
    with pytest.raises(InvalidFieldError, match="longer than 524288 characters"):
        typed_data_digest(chain(eip712.MAX_TYPES, "x" * 100))
    assert sum(hashed) <= eip712.MAX_ENCODED_TYPES + 1_000


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([{"name": f"m{i}", "type": "bool"} for i in range(1025)], "at most 1024 members"),
        ([{"name": f"m{i}" + "x" * 200, "type": "bool"} for i in range(200)], "at most 32768 characters"),
    ],
)
def test_members_are_limited_in_number_and_length(members, problem):
    """Those of a type that nothing refers to count as well."""
    data = one("uint8", 1)
    data["types"]["Other"] = members
    with pytest.raises(InvalidFieldError, match=problem) as caught:
        typed_data_digest(data)
    assert caught.value.field == "types"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("x" * 100, False),
        ("x" * 8192, True),
        (bytes(8192), True),
        ([1] * 1000, False),
        ([1] * 1100, True),
        ({"a": [{"b": "x" * 9000}]}, True),
        (MAIL, False),
        (5, False),
        (None, False),
    ],
)
def test_long_messages_are_told_apart(message, expected):
    """By their characters and values, of which no more are looked at than it takes."""
    assert takes_long(message) is expected


def test_the_walk_over_a_message_ends():
    """However often a list holds itself."""
    loop = []
    loop += [loop, loop]
    assert takes_long(loop)


async def test_a_local_wallet_hashes_long_typed_data_in_a_thread(monkeypatch):
    """The loop goes on meanwhile; the signature is the same."""
    wallet = LocalWallet(b"\x01" * 32)
    long = one("uint8[]", [1] * 5000)
    expected = "0x" + wallet.sign_digest(typed_data_digest(long)).hex()
    threads = []

    def digest(data):
        threads.append(threading.current_thread() is threading.main_thread())
        return typed_data_digest(data)

    monkeypatch.setattr("dan_async.wallets.local_key.typed_data_digest", digest)
    assert await wallet.sign_typed_data(long) == expected
    await wallet.sign_typed_data(MAIL)
    assert threads == [False, True]


@pytest.mark.parametrize(
    "members",
    [
        [{"name": f"m{i}", "type": "uint8"} for i in range(96)],
        [{"name": "m", "type": "uint8" + "[]" * 48}, {"name": "n", "type": "uint8" + "[]" * 48}],
        [{"name": f"{i}".rjust(250, "m"), "type": "bool"} for i in range(17)],
        [{"name": "m", "type": 2**64}],
    ],
    ids=["members", "dimensions", "text", "no text"],
)
def test_large_types_are_not_kept(members):
    """By their members, the dimensions of their arrays, and their text."""
    eip712._kept_encoder.cache_clear()
    typed_data_digest(one("uint8", 1))
    kept = eip712._kept_encoder.cache_info().currsize
    for number in range(5):
        large = one("uint8", number)
        large["types"][f"Other{number}"] = members
        typed_data_digest(large)
    assert eip712._kept_encoder.cache_info().currsize == kept


def test_kept_types_take_little_memory():
    """As many documents as are kept, each as large as one may be."""
    eip712._kept_encoder.cache_clear()
    tracemalloc.start()
    try:
        for number in range(2 * eip712._KEPT_DOCUMENTS):
            data = one("uint8", 1)
            data["types"]["Main"] += [
                {"name": f"m{i}_{number}".ljust(60, "x"), "type": "uint8[]"} for i in range(45)
            ]
            data["message"] |= {member["name"]: [] for member in data["types"]["Main"][1:]}
            typed_data_digest(data)
        assert eip712._kept_encoder.cache_info().currsize == eip712._KEPT_DOCUMENTS
        assert tracemalloc.get_traced_memory()[0] < eip712._KEPT_DOCUMENTS * 64 * 1024
    finally:
        tracemalloc.stop()
        eip712._kept_encoder.cache_clear()


def test_long_domains_are_not_kept():
    """A name of hundreds of characters is hashed anew each time."""
    eip712._cached_hash_domain.cache_clear()
    typed_data_digest(one("uint8", 1))
    kept = eip712._cached_hash_domain.cache_info().currsize
    for number in range(10):
        typed_data_digest(dict(one("uint8", 1), domain={"name": f"{number}" * 300}))
    assert eip712._cached_hash_domain.cache_info().currsize == kept
