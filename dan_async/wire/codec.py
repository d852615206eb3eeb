"""
The gateway's protocol in every revision: the one module that networks and servers need.

A client begins with ``keygen_exchange`` and its siblings, a gateway with ``accept``; nodes check what an owner signed with
``owner_typed_data`` and ``owner_claim``, and what an ephemeral key signed with ``ephemeral_payload`` and
``read_ephemeral_proof``.
"""

from __future__ import annotations

from dan_async.wire.client_exchange import (
    EphemeralKeyExchange,
    Exchange,
    KeygenExchange,
    PasskeyExchange,
    SigngenExchange,
)
from dan_async.wire.client_requests import (
    ephemeral_key_exchange,
    keygen_exchange,
    passkey_exchange,
    signgen_exchange,
)
from dan_async.wire.passkey import (
    PasskeySetup,
    PasskeySignature,
    decode_passkey_signature,
    encode_passkey_signature,
)
from dan_async.wire.results import KeygenResult, SigngenResult
from dan_async.wire.revision_module import RevisionModule
from dan_async.wire.revisions import (
    ApiVersion,
    Operation,
    Revision,
    Setup,
    check_operation,
    decode_setup,
    encode_setup,
    ephemeral_payload,
    module_for,
    oneshot_challenge,
    owner_claim,
    owner_typed_data,
    path_for,
    read_ephemeral_proof,
    sign_requests,
)
from dan_async.wire.server_exchange import ServedExchange, ServedSetup, accept, detect_revision
from dan_async.wire.shown import shown
from dan_async.wire.sign_request import RequestType, SignRequest

__all__ = [
    "ApiVersion",
    "EphemeralKeyExchange",
    "Exchange",
    "KeygenExchange",
    "KeygenResult",
    "Operation",
    "PasskeyExchange",
    "PasskeySetup",
    "PasskeySignature",
    "RequestType",
    "Revision",
    "RevisionModule",
    "ServedExchange",
    "ServedSetup",
    "Setup",
    "SignRequest",
    "SigngenExchange",
    "SigngenResult",
    "accept",
    "check_operation",
    "decode_passkey_signature",
    "decode_setup",
    "detect_revision",
    "encode_passkey_signature",
    "encode_setup",
    "ephemeral_key_exchange",
    "ephemeral_payload",
    "keygen_exchange",
    "module_for",
    "oneshot_challenge",
    "owner_claim",
    "owner_typed_data",
    "passkey_exchange",
    "path_for",
    "read_ephemeral_proof",
    "shown",
    "sign_requests",
    "signgen_exchange",
]
