"""Hypothesis strategies: valid models of everything that goes over the wire, and foreign input of every kind."""

import json

from hypothesis import strategies as st

from dan_async.config import Threshold
from dan_async.crypto import curve
from dan_async.crypto.address import to_checksum_address
from dan_async.protocols.exchange import (
    Exchange,
    ephemeral_key_exchange,
    keygen_exchange,
    passkey_exchange,
    protocol_for,
    signgen_exchange,
)
from dan_async.protocols.gateway import Operation, Revision
from dan_async.protocols.results import KeygenResult, SigngenResult
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication
from dan_async.protocols.sign_request import SignRequest

#: What UTF-8 can carry: everything but surrogates.
_CHARACTERS = st.characters(exclude_categories=["Cs"])

#: Texts that JSON writers and hand-made splitters trip over.
_AWKWARD = [
    '"',
    "\\",
    "\x00",
    "\x1f\x7f",
    "a\nb",
    "\u2028\u2029",
    "€𝄞",
    ":;=,",
    '{"a":[1]}',
    "0x",
    "</",
    "\ufeff",
]

_TOKEN_CHARACTERS = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in ":;="]


def texts(*, least: int = 1, most: int = 40) -> st.SearchStrategy[str]:
    """Text that UTF-8 can carry."""
    return st.sampled_from(_AWKWARD) | st.text(_CHARACTERS, min_size=least, max_size=most)


def tokens() -> st.SearchStrategy[str]:
    """Opaque values that the grammar of results can carry: key ids, transaction ids."""
    return st.text(st.sampled_from(_TOKEN_CHARACTERS), min_size=1, max_size=20)


def challenges() -> st.SearchStrategy[str]:
    """64 hex digits, no 0x."""
    return st.binary(min_size=32, max_size=32).map(bytes.hex)


def addresses() -> st.SearchStrategy[str]:
    """Checksummed Ethereum addresses."""
    return st.binary(min_size=20, max_size=20).map(to_checksum_address)


def thresholds(*, most: int = 20) -> st.SearchStrategy[Threshold]:
    """Every allowed t of n, up to so many parties."""
    return st.integers(2, most).flatmap(lambda n: st.integers(2, n).map(lambda t: Threshold(t, n)))


def public_keys() -> st.SearchStrategy[bytes]:
    """Compressed points of secp256k1."""
    return st.integers(1, curve.ORDER - 1).map(lambda secret: curve.encode(curve.base_multiply(secret)))


def claims(revision: str = "1") -> st.SearchStrategy[EphemeralClaim]:
    """Ephemeral claims that a revision can carry. In 0.1 the key's text is its id."""
    expiry = st.integers(0, 2**53 - 1)
    ed25519 = st.binary(min_size=32, max_size=32)
    if revision == Revision.V0_1:
        return st.builds(
            lambda key, expiry: EphemeralClaim(
                eph_id="0x" + key.hex(), eph_pk=key, expiry=expiry, sign_alg="ed25519"
            ),
            ed25519,
            expiry,
        )
    found = st.builds(
        EphemeralClaim,
        eph_id=texts(),
        eph_pk=ed25519,
        expiry=expiry,
        sign_alg=st.just("ed25519"),
    )
    if revision == Revision.V0_3:
        return found
    return found | st.builds(
        EphemeralClaim,
        eph_id=texts(),
        eph_pk=st.binary(min_size=64, max_size=64).map(lambda raw: b"\x04" + raw),
        expiry=expiry,
        sign_alg=st.just("secp256k1"),
    )


def permissions() -> st.SearchStrategy[str | None]:
    """Permissions texts, or none; the codecs do not look into them."""
    return st.none() | texts()


def sign_requests(*, named: bool, algorithm: str = "secp256k1") -> st.SearchStrategy[SignRequest]:
    """Messages to sign; those of an ed25519 key are bare."""
    name = tokens() if named else st.none()
    if algorithm == "ed25519":
        return st.builds(SignRequest, request_type=st.just("eddsa"), message=texts(), transaction_id=name)
    hexed = st.binary(max_size=40).filter(bool).map(bytes.hex)
    return st.one_of(
        user_operation_requests(named=named),
        st.builds(SignRequest, request_type=st.just("EIP191"), message=hexed, transaction_id=name),
        st.builds(SignRequest, request_type=st.just("rawBytes"), message=challenges(), transaction_id=name),
        st.builds(
            SignRequest,
            request_type=st.just("EIP712"),
            message=texts().map(
                lambda text: json.dumps(
                    {"types": {}, "domain": {"name": text}, "primaryType": text, "message": {}},
                    ensure_ascii=False,
                )
            ),
            transaction_id=name,
        ),
    )


def user_operation_requests(*, named: bool) -> st.SearchStrategy[SignRequest]:
    """Messages that hold a user operation."""
    message = st.builds(
        lambda data, version, chain_id: json.dumps(
            {
                "userOperation": {"callData": data.hex()},
                "entryPointVersion": version,
                "entryPointAddress": "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789",
                "chainId": chain_id,
            }
        ),
        st.binary(max_size=40),
        st.sampled_from(["v0.6.0", "v0.7.0"]),
        st.integers(1, 2**53 - 1),
    )
    return st.builds(
        SignRequest,
        request_type=st.just("accountAbstractionTx"),
        message=message,
        transaction_id=tokens() if named else st.none(),
    )


def api_versions(revision: str) -> st.SearchStrategy[str]:
    """The forms of an exchange that a revision has."""
    return st.sampled_from(protocol_for(revision).api_versions)


@st.composite
def exchanges(draw, revision: str, operation: str) -> Exchange:
    """Operations that a client begins."""
    version = draw(api_versions(revision))
    if operation == Operation.KEYGEN:
        algorithms = [["secp256k1"]]
        if revision == Revision.V1:
            algorithms += [["ed25519"], ["secp256k1", "ed25519"], ["ed25519", "secp256k1"]]
        return keygen_exchange(
            protocol_for(revision),
            threshold=draw(thresholds()),
            claim=draw(claims(revision)),
            permissions=draw(permissions()),
            key_label=draw(st.none() | texts()),
            sign_algs=draw(st.sampled_from(algorithms)),
            api_version=version,
        )
    if operation == Operation.SIGNGEN:
        named = revision == Revision.V1
        algorithm = draw(st.sampled_from(["secp256k1", "ed25519"])) if named else "secp256k1"
        kind = sign_requests(named=named, algorithm=algorithm)
        if revision == Revision.V0_1:
            kind = user_operation_requests(named=False)
        requests = draw(
            st.lists(
                kind, min_size=1, max_size=3 if named else 1, unique_by=lambda request: request.transaction_id
            )
        )
        return signgen_exchange(
            protocol_for(revision),
            t=draw(st.integers(2, 20)),
            key_id=draw(tokens()),
            requests=requests,
            sign_alg=algorithm,
            api_version=version,
        )
    if operation == Operation.REGISTER_PASSKEY:
        return passkey_exchange(
            protocol_for(revision), options=draw(st.none() | texts()), api_version=version
        )
    return ephemeral_key_exchange(
        protocol_for(revision),
        operation,
        claim=draw(claims(revision)),
        key_id=draw(tokens()),
        n=draw(st.integers(2, 20)),
        api_version=version,
    )


@st.composite
def authentications(draw, exchange: Exchange) -> dict[str, UserAuthentication]:
    """An authentication object for each slot of an exchange; the signatures are of the right form only."""
    method = {"signgen": "ephemeral", "registerPasskey": "passkey"}.get(exchange.operation, "eoa")
    claim, owner, found = draw(claims(exchange.protocol.revision)), draw(addresses()), {}
    for slot in tuple(exchange.setups):
        signature = "0x" + draw(st.binary(min_size=65, max_size=65)).hex()
        if method == "ephemeral":
            found[slot] = exchange.ephemeral_authentication(
                slot, claim=claim, owner_id=owner, signature=signature
            )
        else:
            found[slot] = exchange.protocol.owner_authentication(
                claim=None if method == "passkey" else claim,
                method=method,
                owner_id="credential-id" if method == "passkey" else owner,
                signature=signature,
            )
    return found


def keygen_results(algorithm: str = "secp256k1") -> st.SearchStrategy[KeygenResult]:
    """Generated keys, compressed."""
    key = public_keys() if algorithm == "secp256k1" else st.binary(min_size=32, max_size=32)
    return st.builds(KeygenResult, key_id=tokens(), public_key=key, sign_alg=st.just(algorithm))


def signgen_results(transaction_id: str | None = None) -> st.SearchStrategy[SigngenResult]:
    """Signatures of the right form."""
    return st.builds(
        SigngenResult,
        signature=st.binary(min_size=64, max_size=64),
        recovery_id=st.integers(0, 1),
        transaction_id=st.just(transaction_id),
    )


#: Every operation of every revision.
EVERY_OPERATION = [
    (revision, operation)
    for revision in Revision
    for operation in Operation
    if operation in protocol_for(revision).methods
]


# --- foreign input ----------------------------------------------------------------------------------------------------


def json_values() -> st.SearchStrategy[object]:
    """JSON values with all that JSON texts can hold and ours must not: floats, NaN, huge numbers, lone surrogates."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**53, -(2**53), 10**400, 0, 1, 2, 3]),
        st.floats(),
        st.text(st.characters(), max_size=8),
        st.sampled_from(["t", "n", "0x", "secp256k1", "\ud800", "{}", "[]"]),
    )
    keys = st.text(st.characters(), max_size=4) | st.sampled_from(
        ["t", "n", "metadata", "tag", "value", "signAlg", "credentials", "main", "secp256k1", "setupOpts"]
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


def foreign_texts() -> st.SearchStrategy[object]:
    """Whatever a peer may send: text, bytes, JSON of every kind, nested ten thousand deep, cut short, or no text at all."""
    written = json_values().map(json.dumps)
    return st.one_of(
        st.text(st.characters(), max_size=60),
        st.binary(max_size=60),
        written,
        st.builds(lambda text, at: text[:at], written, st.integers(0, 60)),
        st.sampled_from(
            [
                "",
                " ",
                "[" * 10_000,
                "[" * 10_000 + "]" * 10_000,
                '{"t":' * 10_000 + "1" + "}" * 10_000,
                '{"t":1,"t":2}',
                "NaN",
                "[NaN]",
                "-Infinity",
                "1e999",
                "9" * 5_000,
                '"\\ud800"',
                "\ufeff{}",
                "ok",
                "null",
                "keyId=a:publicKey=b",
                None,
                7,
                1.5,
                [],
                {},
            ]
        ),
    )
