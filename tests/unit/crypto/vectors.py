"""The recorded exchanges of tests/vectors/wire.json, as far as keys and signatures are concerned."""

import json
from hashlib import sha256
from pathlib import Path

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "wire.json").read_text())["cases"]

#: Cases in which the owner's wallet signs: keygen, addEphemeralKey, revokeEphemeralKey.
WALLET_CASES = [case for case in CASES if case.get("wallet")]

#: Cases in which the ephemeral key signs.
SIGNGEN_CASES = [case for case in CASES if case["operation"] == "signgen"]


def name(case):
    """A case's name, as the test's id."""
    return case["name"]


def signgen_bytes_and_signature(case):
    """What the ephemeral key signed in a signgen case, and the signature that was sent."""
    if case["path"].startswith("/v2/"):
        frame = json.loads(case["frames"][0])
        setup, signatures = frame["setupOpts"], frame["userSigs"]
        challenge = sha256(sha256(setup.encode()).digest()).hexdigest()
    else:
        setup, signatures = case["frames"][0], json.loads(case["frames"][1])
        challenge = case["server_replies"][0]
    if case["revision"] == "1":
        (authentication,) = signatures.values()
        signature = json.loads(authentication["signature"])["signature"]
    else:
        signature = signatures["signature"]
    return f'{{"setup":{setup},"challenge":"{challenge}"}}'.encode(), signature
