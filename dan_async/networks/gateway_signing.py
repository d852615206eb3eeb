"""Signing at a gateway: the ephemeral key authorises it, so there is nobody to wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import frozen

from dan_async._tasks import Deadline
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.models.authentication import AuthMethod
from dan_async.networks.gateway_failures import Scene
from dan_async.networks.gateway_operation import Gateway, GatewayOperation
from dan_async.networks.signing import SigningOrder
from dan_async.transport.frames import FrameSocket
from dan_async.types import TypedData
from dan_async.wire.codec import ApiVersion, Exchange, Revision, SigngenResult, signgen_exchange

__all__ = ["SigngenOperation"]

R = TypeVar("R")


@frozen
class _EphemeralAuth:
    """Who authorises, as far as an operation wants to know before it begins."""

    id: str
    method: AuthMethod = "ephemeral"
    interactive: bool = False

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        """Nobody asks: an ephemeral key signs the payload of ``Exchange.ephemeral_payload``."""
        raise NotImplementedError


class SigngenOperation(GatewayOperation[tuple[SigngenResult, ...]]):
    """
    Signs the messages of an order, once.

    Args:
        gateway: Where.
        scene: What its errors say about it.
        order: What is to be signed.
        key: The ephemeral key.
        api_version: ``v1`` or ``v2``.
        deadline: The job's deadline.
    """

    def __init__(
        self,
        gateway: Gateway,
        scene: Scene,
        order: SigningOrder,
        key: EphemeralKey,
        *,
        api_version: ApiVersion,
        deadline: Deadline,
    ) -> None:
        self._order = order
        self._key = key
        super().__init__(
            gateway,
            scene,
            _exchanges(order, api_version),
            claim=order.claim,
            auth=_EphemeralAuth(order.claim.eph_id),
            deadline=deadline,
        )

    async def sign(self, *, is_one_shot: bool) -> tuple[bytes, ...]:
        """
        Run it.

        Returns:
            For each message 65 bytes r, s, v, unchecked.

        Raises:
            DanError: As for ``GatewayOperation.run``.
        """
        results = await (self.run_one_shot() if is_one_shot else self.run())
        return tuple(result.signature + bytes((27 + result.recovery_id,)) for result in results)

    async def _authorise(
        self,
        exchange: Exchange[tuple[SigngenResult, ...]],
        challenges: Mapping[str, str],
        socket: FrameSocket | None,
    ) -> str:
        del socket  # it is not watched meanwhile: signing takes less than a millisecond
        self._refuse_if_expired("wallet")
        claim = self._order.claim
        return exchange.authentication_frame(
            {
                slot: exchange.ephemeral_authentication(
                    slot,
                    claim=claim,
                    owner_id=self._order.owner_id or "",
                    signature=self._key.sign_message(exchange.ephemeral_payload(slot, challenge)),
                )
                for slot, challenge in challenges.items()
            }
        )


def _exchanges(
    order: SigningOrder, api_version: ApiVersion
) -> Callable[[Revision], Exchange[tuple[SigngenResult, ...]]]:
    def make(revision: Revision) -> Exchange[tuple[SigngenResult, ...]]:
        return signgen_exchange(
            revision, t=order.t, key_id=order.key_id, requests=order.requests, api_version=api_version
        )

    return make
