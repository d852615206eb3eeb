"""The RPC methods of a node: parameters in, result out, whatever carries them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from functools import partial

from dan_async._hex import to_hex
from dan_async.devnet.faults import NodeCrashed, NodeFaults, RequestDropped
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_change_service import KeyChangeService
from dan_async.devnet.keygen_service import KeygenService
from dan_async.devnet.node_signing import NodeSigning
from dan_async.devnet.nonce_desk import NonceDesk
from dan_async.devnet.owner_checks import read_request
from dan_async.devnet.passkey_service import PasskeyService
from dan_async.devnet.rpc_errors import RefusalError, invalid_params
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.types import Clock, Json
from dan_async.wire.node_1 import (
    PROTOCOL,
    KeygenParams,
    decode_challenge,
    decode_identify,
    encode_acknowledgement,
    encode_challenge_result,
    identity_digest,
)
from dan_async.wire.node_passkeys import METHOD as REGISTER_PASSKEY
from dan_async.wire.node_passkeys import encode_passkey_receipt
from dan_async.wire.node_receipts import METHODS, encode_receipt
from dan_async.wire.node_settling import METHOD as SETTLE_KEYGEN
from dan_async.wire.node_signing import PRESIGN, SIGN

__all__ = ["NodeMethods"]

_log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Json]], Awaitable[Json]]


class NodeMethods:
    """
    What a node can be asked.

    Args:
        identity: The node.
        nonces: What it gives out.
        keygen: Its key generation.
        changes: Its ephemeral keys.
        passkeys: Its passkeys.
        signing: Its presignatures and signatures.
        faults: What it does wrong on purpose.
        clock: The wall clock.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        *,
        nonces: NonceDesk,
        keygen: KeygenService,
        changes: KeyChangeService,
        passkeys: PasskeyService,
        signing: NodeSigning,
        faults: NodeFaults,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._nonces = nonces
        self._keygen = keygen
        self._changes = changes
        self._passkeys = passkeys
        self._faults = faults
        self._clock = clock
        self._handlers: dict[str, Handler] = {
            "dan_identify": self._identify,
            "dan_challenge": self._challenge,
            "dan_keygen": self._generate,
            "dan_health": self._health,
            REGISTER_PASSKEY: self._register,
            PRESIGN: signing.presign,
            SIGN: signing.sign,
            SETTLE_KEYGEN: keygen.settle,
            **{method: partial(self._change, operation) for operation, method in METHODS.items()},
        }

    async def call(self, method: str, params: dict[str, Json]) -> Json:
        """
        Carry out one request.

        Raises:
            RefusalError: The request is refused.
            RequestDropped: A fault is in force: there is no answer.
            NodeCrashed: A fault is in force: the node is dead.
        """
        handler = self._handlers.get(method)
        if handler is None:
            raise RefusalError(NodeCode.METHOD_NOT_FOUND, "there is no such method")
        try:
            await self._faults.before_work(method)
            result = await handler(params)
            self._faults.before_reply(method)
        except InvalidFieldError as error:
            raise invalid_params(error) from error
        except (RefusalError, RequestDropped, NodeCrashed):
            raise
        except Exception as error:
            # Only where it happened: an unforeseen error's own text might hold anything.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            _log.error("%s: %s at %s", method, type(error).__name__, where)
            raise RefusalError(NodeCode.INTERNAL_ERROR, "the node has failed") from error
        return result

    async def _identify(self, params: dict[str, Json]) -> Json:
        operator = self._identity.operator
        digest = identity_digest(operator=operator, nonce=decode_identify(params))
        return {
            "protocol": PROTOCOL,
            "operator": operator,
            "signature": to_hex(self._identity.sign(digest)),
        }

    async def _challenge(self, params: dict[str, Json]) -> Json:
        return encode_challenge_result(self._nonces.issue(decode_challenge(params)))

    async def _generate(self, params: dict[str, Json]) -> Json:
        request = await self._read(params)
        acknowledgement = await self._keygen.keygen(request)
        owner_id = request.user_authentication.id
        return encode_acknowledgement(self._faults.forge(acknowledgement, self._identity, owner_id=owner_id))

    async def _change(self, operation: str, params: dict[str, Json]) -> Json:
        return encode_receipt(await self._changes.change(operation, await self._read(params)))

    async def _register(self, params: dict[str, Json]) -> Json:
        return encode_passkey_receipt(await self._passkeys.register(await self._read(params)))

    async def _read(self, params: dict[str, Json]) -> KeygenParams:
        request = read_request(params)
        await self._passkeys.prepare(request)
        return request

    async def _health(self, params: dict[str, Json]) -> Json:
        if params:
            raise InvalidFieldError("params", "must be an empty object")
        return {
            "protocol": PROTOCOL,
            "operator": self._identity.operator,
            "time": int(self._clock() * 1000),
        }
