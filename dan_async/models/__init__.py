"""Frozen payloads, one subject per file: no I/O, no sockets, no clock."""

from __future__ import annotations

from dan_async.errors import NodeOutcome
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.authentication import UserAuthentication
from dan_async.models.call import Call
from dan_async.models.claim import EphemeralClaim
from dan_async.models.keygen import KeygenReport, KeygenRequest, KeygenTimings
from dan_async.models.request_params import DanSessionKeyRequestParams, HardcodedValues, SmartAccount
from dan_async.models.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.models.setup import EphemeralKeySetup, KeygenSetup, SigngenSetup, TaggedValue
from dan_async.models.threshold import Threshold
from dan_async.models.user_operation import PackedUserOperation, UserOperationV06, UserOperationV07

__all__ = [
    "Acknowledgement",
    "Call",
    "DanModuleInfo",
    "DanSessionKeyPayload",
    "DanSessionKeyRequestParams",
    "EphemeralClaim",
    "EphemeralKeySetup",
    "HardcodedValues",
    "KeygenReport",
    "KeygenRequest",
    "KeygenSetup",
    "KeygenTimings",
    "NodeOutcome",
    "PackedUserOperation",
    "SigngenSetup",
    "SmartAccount",
    "TaggedValue",
    "Threshold",
    "UserAuthentication",
    "UserOperationV06",
    "UserOperationV07",
]
