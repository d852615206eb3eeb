"""
Makes node_1.json, the test vectors of docs/reference/node-protocol.md: ``python tests/vectors/make_node_1.py > tests/vectors/node_1.json``.

It is written from the specification and imports nothing of dan_async: hashes with hashlib, signatures and EIP-712 with
eth-account, so that the package's own code is checked against another implementation. All keys are fixed, and worthless.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_defunct, encode_typed_data
from eth_keys import keys

T, N = 2, 3
REQUEST_ID = "0x" + "a1" * 32
#: Opaque: any bytes will do.
CERTIFICATE = "0x" + "ce" * 65 * N
OWNER_KEY = "0x" + "0b" * 32
OPERATOR_KEYS = ["0x" + f"{i:02x}" * 32 for i in (0x11, 0x22, 0x33)]
EPHEMERAL_KEY = "0x" + "0e" * 32
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def h(tag: str, *parts: bytes) -> bytes:
    """H of the specification."""
    whole = b""
    for part in (tag.encode(), *parts):
        whole += len(part).to_bytes(4, "big") + part
    return hashlib.sha256(whole).digest()


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def sign(private_key: str, digest: bytes) -> str:
    """r, s and v = 27 or 28, deterministic (RFC 6979), low s."""
    signed = Account.unsafe_sign_hash(digest, private_key)
    return "0x" + bytes(signed.signature).hex()


def point(scalar: int) -> str:
    return "0x" + keys.PrivateKey((scalar % ORDER).to_bytes(32, "big")).public_key.to_compressed_bytes().hex()


operators = sorted(
    ((Account.from_key(key).address, key) for key in OPERATOR_KEYS), key=lambda pair: int(pair[0], 16)
)
participants = [address for address, _ in operators]
addresses = [raw(address) for address in participants]
owner = Account.from_key(OWNER_KEY).address

# --- identity
identity_nonce = bytes(range(32))
identity_time = 1_800_000_000_123
identity_digest = h("dan-node/1 identity", addresses[0], identity_nonce, identity_time.to_bytes(8, "big"))

# --- setup, challenge, the owner's signature
ephemeral_public = b"\x04" + keys.PrivateKey(raw(EPHEMERAL_KEY)).public_key.to_bytes()
claim = compact(
    {
        "ephId": "ephemeral ключ",
        "ephPK": "0x" + ephemeral_public.hex(),
        "expiry": 1_900_000_000,
        "signAlg": "secp256k1",
    }
)
permissions = compact({"chains": [80002], "note": "é"})
metadata = [{"tag": 1, "value": permissions}, {"tag": 2, "value": claim}]
setup = compact({"t": T, "n": N, "metadata": metadata, "signAlg": "secp256k1"})
setup_hash = h("dan-node/1 setup", b"keygen", b"1", setup.encode())
nonces = [bytes([0x40 + i]) * 32 for i in range(N)]
pairs = [part for address, nonce in zip(addresses, nonces, strict=True) for part in (address, nonce)]
final_challenge = h("dan-node/1 challenge", b"keygen", raw(REQUEST_ID), setup_hash, u32(N), *pairs)
typed_data = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "version", "type": "string"}],
        "Request": [{"name": "setup", "type": "KeygenSetupOpts"}, {"name": "challenge", "type": "string"}],
        "KeygenSetupOpts": [
            {"name": "t", "type": "uint32"},
            {"name": "n", "type": "uint32"},
            {"name": "metadata", "type": "TaggedValue[]"},
        ],
        "TaggedValue": [{"name": "tag", "type": "uint16"}, {"name": "value", "type": "string"}],
    },
    "domain": {"name": "SilentShard authentication", "version": "0.1.0"},
    "primaryType": "Request",
    "message": {"setup": {"t": T, "n": N, "metadata": metadata[1:]}, "challenge": final_challenge.hex()},
}
message = encode_typed_data(full_message=typed_data)
signed = Account.sign_message(message, OWNER_KEY)
owner_signature = "0x" + bytes(signed.signature).hex()

# --- the key, dealt here from a polynomial 5 + 7x
shares = [5 + 7 * i for i in range(1, N + 1)]
public_key = point(5)
public_shares = [point(share) for share in shares]
transcript_hash = hashlib.sha256(b"a transcript").digest()
key_id = h(
    "dan-node/1 key", raw(public_key), u32(T), u32(N), *addresses, owner.lower().encode(), raw(REQUEST_ID)
)


def signed_claims(tag: str, claims: dict[str, object], index: int) -> dict[str, object]:
    """Claims as their one text, signed by the operator of that index."""
    text = compact(claims)
    digest = h(tag, raw(str(claims["requestId"])), addresses[index - 1], u32(index), text.encode())
    result = {
        "claims": text,
        "operator": participants[index - 1],
        "partyIndex": index,
        "signature": sign(operators[index - 1][1], digest),
    }
    return {"requestId": claims["requestId"], "digest": "0x" + digest.hex(), "result": result}


key_claims = {
    "requestId": REQUEST_ID,
    "keyId": key_id.hex(),
    "t": T,
    "n": N,
    "publicKey": public_key,
    "publicShares": public_shares,
    "participants": participants,
    "transcriptHash": "0x" + transcript_hash.hex(),
}


# --- one-shot, restart, change of an ephemeral key
oneshot_id = h("dan-node/1 one-shot", setup_hash)
oneshot_challenge = hashlib.sha256(hashlib.sha256(setup.encode()).digest()).digest()
change_claims = {
    "requestId": REQUEST_ID,
    "keyId": key_id.hex(),
    "t": T,
    "n": N,
    "publicKey": public_key,
    "participants": participants,
    "keygenId": REQUEST_ID,
    "operation": "addEphemeralKey",
    "ephId": "ephemeral ключ",
}
passkey_claims = {"requestId": REQUEST_ID, "credentialId": "Y3JlZGVudGlhbC1pZC0xMjM0"}

# --- a presignature and a signature by the first two operators: nonce and mask are fixed here, and not secret
SIGN_ID = "0x" + "a3" * 32
NONCE = 14
MASK = 987654321
eph_id = "ephemeral ключ"
signers = participants[:2]
presign_hash = h(
    "dan-node/1 presign",
    raw(SIGN_ID),
    key_id,
    eph_id.encode(),
    u32(2),
    *addresses[:2],
    u32(1_800_000_060),
)
nonce_point = point(NONCE)
presignature = h("dan-node/1 presignature", b"\x5e" * 32, raw(nonce_point))
inner = compact({"message": "0x" + "Привет".encode().hex(), "requestType": "EIP191"})
message_text = base64.b64encode(compact({"tx-1": inner}).encode()).decode()
sign_setup = compact({"t": T, "key_id": key_id.hex(), "message": message_text, "signAlg": "secp256k1"})
sign_setup_hash = h("dan-node/1 setup", b"signgen", b"1", sign_setup.encode())
sign_challenge = h("dan-node/1 sign", raw(SIGN_ID), sign_setup_hash, u32(2), *addresses[:2], presignature)
payload = '{"setup":' + sign_setup + ',"challenge":"' + sign_challenge.hex() + '"}'


def ephemeral_signature(data: bytes) -> str:
    return "0x" + bytes(Account.sign_message(encode_defunct(data), EPHEMERAL_KEY).signature).hex()


digest = _hash_eip191_message(encode_defunct("Привет".encode()))
masks = [123123123, MASK - 123123123]
us = [123456789, (NONCE * MASK - 123456789) % ORDER]
vs = [192837465, (5 * MASK - 192837465) % ORDER]
shift = (
    int.from_bytes(
        h("dan-node/1 nonce shift", presignature, raw(public_key), digest, u32(2), *addresses[:2]), "big"
    )
    % ORDER
)
shifted_point = point(NONCE + shift)
r = int(shifted_point[4:], 16)
denominators = [(u + shift * mask) % ORDER for u, mask in zip(us, masks, strict=True)]
numerators = [
    (int.from_bytes(digest, "big") * mask + r * v) % ORDER for v, mask in zip(vs, masks, strict=True)
]
s = sum(numerators) * pow(sum(denominators), -1, ORDER) % ORDER
parity = int(shifted_point[2:4], 16) & 1
low_s, recovery_id = (s, parity) if s <= ORDER // 2 else (ORDER - s, parity ^ 1)
combined = r.to_bytes(32, "big") + low_s.to_bytes(32, "big") + bytes([27 + recovery_id])
assert keys.Signature(combined[:64] + bytes([recovery_id])).recover_public_key_from_msg_hash(
    digest
).to_compressed_bytes() == raw(public_key)


def commitments(index: int) -> str:
    """phi, u and v as points; what is left of u and v without the nonce's and the key's multiple; the proof."""
    mask, u, v = (numbers[index - 1] for numbers in (masks, us, vs))
    points = b"".join(raw(point(number)) for number in (mask, u, v, u - mask * NONCE, v - mask * 5))
    k = 1000 + index
    announcements = [raw(point(number)) for number in (k, k * NONCE, k * 5)]
    challenge = h(
        "dan-node/1 commitments proof",
        presignature,
        raw(public_key),
        raw(nonce_point),
        points,
        *announcements,
    )
    response = (k + int.from_bytes(challenge, "big") * mask) % ORDER
    return "0x" + (points + challenge + response.to_bytes(32, "big")).hex()


def commitment(index: int) -> str:
    return "0x" + h("dan-node/1 commitments", presignature, raw(commitments(index))).hex()


def signature_shares(index: int) -> dict[str, object]:
    u, w = (value[index - 1].to_bytes(32, "big") for value in (denominators, numerators))
    share = {
        "presignatureId": "0x" + presignature.hex(),
        "noncePoint": nonce_point,
        "commitments": commitments(index),
        "digest": "0x" + digest.hex(),
        "u": "0x" + u.hex(),
        "w": "0x" + w.hex(),
    }
    claims = {"requestId": SIGN_ID, "keyId": key_id.hex(), "publicKey": public_key, "shares": [share]}
    return signed_claims("dan-node/1 signature shares", claims, index)


def acknowledgement(index: int) -> dict[str, object]:
    made = signed_claims("dan-node/1 acknowledgement", key_claims, index)
    return {**made, "result": {**made["result"], "certificate": CERTIFICATE}}


vectors = {
    "note": "Test vectors of docs/reference/node-protocol.md, made by make_node_1.py. The keys are worthless.",
    "operators": [{"privateKey": key, "operator": address} for address, key in operators],
    "hash": [
        {"tag": "tag", "parts": [], "hash": "0x" + h("tag").hex()},
        {"tag": "tag", "parts": ["0x", "0x00", "0x0102"], "hash": "0x" + h("tag", b"", b"\0", b"\1\2").hex()},
        {"tag": "tág", "parts": ["0x0001", "0x02"], "hash": "0x" + h("tág", b"\0\1", b"\2").hex()},
    ],
    "identity": {
        "operator": participants[0],
        "nonce": "0x" + identity_nonce.hex(),
        "time": identity_time,
        "digest": "0x" + identity_digest.hex(),
        "signature": sign(operators[0][1], identity_digest),
    },
    "setup": {"operation": "keygen", "revision": "1", "setup": setup, "hash": "0x" + setup_hash.hex()},
    "challenge": {
        "operation": "keygen",
        "requestId": REQUEST_ID,
        "setupHash": "0x" + setup_hash.hex(),
        "participants": participants,
        "nonces": ["0x" + nonce.hex() for nonce in nonces],
        "finalChallenge": final_challenge.hex(),
    },
    "owner": {
        "privateKey": OWNER_KEY,
        "address": owner,
        "typedData": typed_data,
        "digest": "0x" + bytes(signed.message_hash).hex(),
        "signature": owner_signature,
    },
    "request": {
        "requestId": REQUEST_ID,
        "revision": "1",
        "setup": setup,
        "participants": participants,
        "nonces": ["0x" + nonce.hex() for nonce in nonces],
        "userAuthentication": {
            "method": "eoa",
            "id": owner,
            "credentials": claim,
            "signature": owner_signature,
        },
    },
    "key": {
        "secretShares": shares,
        "publicKey": public_key,
        "t": T,
        "participants": participants,
        "ownerId": owner,
        "requestId": REQUEST_ID,
        "keyId": key_id.hex(),
    },
    "acknowledgements": [acknowledgement(index) for index in range(1, N + 1)],
    "certify": {"requestId": REQUEST_ID, "certificate": CERTIFICATE},
    "restart": [
        {
            "requestId": REQUEST_ID,
            "restart": restart,
            "next": "0x" + h("dan-node/1 restart", raw(REQUEST_ID), u32(restart)).hex(),
        }
        for restart in (1, 2)
    ],
    "oneShot": {
        "setupHash": "0x" + setup_hash.hex(),
        "requestId": "0x" + oneshot_id.hex(),
        "challenge": oneshot_challenge.hex(),
    },
    "receipt": signed_claims("dan-node/1 receipt", change_claims, 1),
    "passkeyReceipt": signed_claims("dan-node/1 passkey receipt", passkey_claims, 2),
    "presign": {
        "digest": "0x" + presign_hash.hex(),
        "session": "0x" + "5e" * 32,
        "params": {
            "requestId": SIGN_ID,
            "keyId": key_id.hex(),
            "ephId": eph_id,
            "signers": signers,
            "expiresAt": 1_800_000_060,
            "signature": ephemeral_signature(presign_hash),
        },
        "results": [
            {
                "presignatureId": "0x" + presignature.hex(),
                "noncePoint": nonce_point,
                "publicKey": public_key,
                "commitment": commitment(index),
                "expiresAt": 1_800_000_060,
            }
            for index in (1, 2)
        ],
    },
    "sign": {
        "ephemeralKey": EPHEMERAL_KEY,
        "setupHash": "0x" + sign_setup_hash.hex(),
        "challenge": sign_challenge.hex(),
        "payload": payload,
        "params": {
            "requestId": SIGN_ID,
            "revision": "1",
            "setup": sign_setup,
            "signers": signers,
            "presignatureIds": ["0x" + presignature.hex()],
            "participants": [],
            "nonces": [],
            "userAuthentication": {
                "method": "ephemeral",
                "id": eph_id,
                "credentials": claim,
                "signature": compact(
                    {"base64Message": message_text, "signature": ephemeral_signature(payload.encode())}
                ),
            },
        },
    },
    "signatureShares": [signature_shares(index) for index in (1, 2)],
    "nonceShift": {"shift": "0x" + shift.to_bytes(32, "big").hex(), "noncePoint": shifted_point},
    "combined": {"signature": "0x" + combined.hex(), "wasHigh": s > ORDER // 2},
}

sys.stdout.write(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")
