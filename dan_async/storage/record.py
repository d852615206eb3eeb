"""One record of a session store: what was asked for, and the session that came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias, get_args

from attrs import asdict, evolve, field, frozen

from dan_async._hex import from_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import DanError, InvalidFieldError, RecordConflictError
from dan_async.models._fields import (
    check_algorithm,
    check_int,
    check_private_key_hex,
    check_text,
    optional,
    required,
)
from dan_async.models.session import DanSessionKeyPayload
from dan_async.models.threshold import Threshold
from dan_async.types import Address, KeyAlgorithm, RequestId, new_request_id

__all__ = ["STATES", "KeygenIntent", "SessionState", "StoredSession", "check_state"]

#: pending: asked for, not known what came of it; active: usable; failed: no key was made.
SessionState: TypeAlias = Literal["pending", "active", "revoked", "expired", "failed"]
STATES: tuple[SessionState, ...] = get_args(SessionState)

#: Which state may follow which.
_NEXT: Mapping[SessionState, frozenset[SessionState]] = {
    "pending": frozenset({"pending", "active", "failed", "expired"}),
    "active": frozenset({"active", "revoked", "expired"}),
    "revoked": frozenset({"expired"}),
    "expired": frozenset(),
    "failed": frozenset(),
}

_MOST_INT = 2**53 - 1


def check_state(name: str, value: object) -> SessionState:
    """Check the name of a state."""
    if value not in STATES:
        raise InvalidFieldError(name, f"must be one of {', '.join(STATES)}")
    return value


@frozen(kw_only=True)
class KeygenIntent:
    """
    What is needed to find out later what came of a key generation.

    Args:
        hex_eph_sk: The ephemeral private key: 64 hex digits. Secret; masked in repr.
        eph_id: Its name on the nodes.
        eph_alg: Its algorithm.
        owner_id: Who authorises: the EOA's address, or the passkey's credential id.
        threshold: t.
        parties_number: n.
        min_parties: The smallest n that was allowed, if any.
        permissions: What the session may sign, as JSON text; None for no limits.
        key_label: The label that the network keeps with the key.
    """

    hex_eph_sk: str = field(repr=lambda _: "'***'", validator=required(check_private_key_hex))
    eph_id: str = field(validator=required(check_text, most=256))
    eph_alg: KeyAlgorithm = field(validator=required(check_algorithm))
    owner_id: str = field(validator=required(check_text))
    threshold: int = field()
    parties_number: int = field()
    min_parties: int | None = field(default=None, validator=optional(check_int, least=2, most=20))
    permissions: str | None = field(default=None, validator=optional(check_text, most=64 * 1024))
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))

    def __attrs_post_init__(self) -> None:
        Threshold(self.threshold, self.parties_number)


@frozen(kw_only=True)
class StoredSession:
    """
    A record.

    Args:
        record_id: The id of the request that made it, under which the nodes know it; 0x and 64 hex digits.
        owner: The owner's address, EIP-55.
        chain_id: The chain it is meant for.
        state: Where it stands.
        expires_at: When the ephemeral key ends, in Unix seconds.
        created_at: When the record was made, in Unix milliseconds.
        updated_at: When it was changed last, in Unix milliseconds.
        reference: The caller's own name for it, unique within the store; at most 200 characters. Not encrypted.
        intent: What was asked for; None for a session that was made elsewhere.
        session: What came of it; None before.
        problem: Why it failed, or why it is not known what came of it; never a secret.

    Raises:
        InvalidFieldError: A field is wrong; its value is not repeated.
    """

    record_id: RequestId = field()
    owner: Address = field(validator=required(parse_address))
    chain_id: int = field(validator=required(check_int, least=1, most=_MOST_INT))
    state: SessionState = field()
    expires_at: int = field(validator=required(check_int, least=0, most=_MOST_INT))
    created_at: int = field(validator=required(check_int, least=0, most=_MOST_INT))
    updated_at: int = field(validator=required(check_int, least=0, most=_MOST_INT))
    reference: str | None = field(default=None, validator=optional(check_text, most=200))
    intent: KeygenIntent | None = None
    session: DanSessionKeyPayload | None = None
    problem: str = field(default="", validator=required(check_text, least=0, most=2000))

    def __attrs_post_init__(self) -> None:
        from_hex(self.record_id, field="record_id", length=32, prefix=True)
        check_state("state", self.state)
        if self.session is None and self.state in ("active", "revoked"):
            raise InvalidFieldError("session", f"is missing, and the record is {self.state}")
        if self.state == "pending" and self.intent is None:
            raise InvalidFieldError("intent", "is missing, and the record is pending")

    @classmethod
    def of(
        cls,
        session: DanSessionKeyPayload,
        *,
        now: float,
        record_id: RequestId | None = None,
        reference: str | None = None,
    ) -> Self:
        """
        Make the record of a session that was made elsewhere.

        Args:
            session: The session; its *expires_at* must be known.
            now: The time, in Unix seconds.
            record_id: Its name in the store; a random one if None.
            reference: The caller's own name for it.

        Raises:
            InvalidFieldError: The session does not say when it ends.
        """
        if session.expires_at is None:
            raise InvalidFieldError("expires_at", "is not known, so the session cannot be kept")
        moment = int(now * 1000)
        return cls(
            record_id=record_id or new_request_id(),
            owner=session.eoa_address,
            chain_id=session.chain_id,
            state="active",
            expires_at=session.expires_at,
            created_at=moment,
            updated_at=moment,
            reference=reference,
            session=session,
        )

    def check_next(self, state: SessionState) -> None:
        """
        Check that a state may follow this one.

        Raises:
            RecordConflictError: It may not.
        """
        if state not in _NEXT[self.state]:
            raise RecordConflictError(
                f"the record is {self.state}, and cannot become {state}", request_id=self.record_id
            )

    def changed(
        self,
        state: SessionState,
        *,
        now: float,
        session: DanSessionKeyPayload | None = None,
        problem: str | None = None,
    ) -> Self:
        """
        Give the record in another state.

        Args:
            state: The state that follows.
            now: The time, in Unix seconds.
            session: What came of it, if that is new.
            problem: What to note, if that is new.

        Raises:
            RecordConflictError: The one state does not follow the other.
        """
        self.check_next(state)
        return evolve(
            self,
            state=state,
            # Never earlier than before, so that a clock that was set back shows.
            updated_at=max(int(now * 1000), self.updated_at),
            session=session or self.session,
            problem=self.problem if problem is None else problem,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON members, secrets included."""
        found = asdict(self, recurse=False)
        found["intent"] = None if self.intent is None else asdict(self.intent)
        found["session"] = None if self.session is None else self.session.to_dict(extended=True)
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """
        Read what ``to_dict`` gave.

        Raises:
            InvalidFieldError: It is not that.
        """
        try:
            found = dict(value)
            if found["intent"] is not None:
                found["intent"] = KeygenIntent(**found["intent"])
            if found["session"] is not None:
                found["session"] = DanSessionKeyPayload.from_dict(found["session"])
            return cls(**found)
        except DanError:
            raise
        except (KeyError, TypeError, ValueError):
            raise InvalidFieldError("record", "has other members than this version knows") from None
