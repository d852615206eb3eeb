"""
The users of a key: ephemeral keys added to it and revoked, passkeys registered to own keys.

A revoked one is refused by the nodes (``EphemeralRegistry.check_usable`` in devnet/node/keys.py); a signature then ends with
the EphemeralKeyRefusedError of ``SignerRace`` in nodes/signing_race.py.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

from attrs import evolve

from dan_async._values import check_instance, check_text, duration_s
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import DeadlineExceededError, InvalidFieldError, RecordConflictError, StoreError
from dan_async.jobs.keeping import SessionKeeper
from dan_async.network import AuthModule, EphemeralKeyChange, EphemeralKeyReport, Network, network_time
from dan_async.protocols.fields import new_request_id
from dan_async.protocols.setups import EphemeralClaim
from dan_async.request import (
    DEFAULT_DURATION_S,
    ClaimOutdatedError,
    WatchedAuth,
    choose_auth,
    choose_ephemeral_key,
    clock_check,
)
from dan_async.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.types import Clock, KeyAlgorithm, RequestId
from dan_async.wallets.base import Wallet
from dan_async.wallets.passkey import PasskeyRegister

if TYPE_CHECKING:
    from dan_async.storage.base import SessionState, StoredSession

S = TypeVar("S", bound=DanModuleInfo)


async def add_ephemeral_key(
    network: Network,
    session: S,
    *,
    wallet: Wallet | None = None,
    auth: AuthModule | None = None,
    duration: int | timedelta = DEFAULT_DURATION_S,
    eph_alg: KeyAlgorithm | None = None,
    ephemeral_key: EphemeralKey | str | None = None,
    eph_id: str | None = None,
    deadline: Deadline,
    timeouts: Timeouts,
    clock: Clock,
) -> S:
    """
    Return the session with a new ephemeral key, which was added over *network*.

    *network* is any open network, *deadline* is the job's, *timeouts* are the limits, *clock* is the wall clock in Unix
    seconds. The other arguments, and the errors, are those of ``DanClient.add_ephemeral_key``.
    """
    lifetime_s = duration_s(duration)
    owner = _owner(session, wallet, auth, timeouts)
    if eph_id is not None:
        check_text("eph_id", eph_id, most=256)
    key = choose_ephemeral_key(ephemeral_key, eph_alg, network.default_eph_alg)
    try:
        check = clock_check(network)

        async def add(owner: AuthModule) -> EphemeralClaim:
            claim = EphemeralClaim(
                eph_id=eph_id or key.default_id,
                eph_pk=key.public_key,
                expiry=math.floor(network_time(network, clock, session.threshold)) + lifetime_s,
                sign_alg=key.algorithm,
            )
            change = _change("add", session, owner, claim)
            async with deadline.enforced("adding the ephemeral key", request_id=change.request_id):
                await network.add_ephemeral_key(change, owner, deadline=deadline)
            return claim

        try:
            claim = await add(WatchedAuth(owner, check=check))
        except ClaimOutdatedError:  # the first answers of a client's nodes said so
            claim = await add(owner)
        return evolve(
            session,
            hex_eph_sk_without_0x=key.to_hex(),
            eph_id=claim.eph_id,
            eph_alg=key.algorithm,
            expires_at=claim.expiry,
        )
    finally:
        if key is not ephemeral_key:
            key.wipe()


async def revoke_ephemeral_key(
    network: Network,
    session: DanModuleInfo,
    *,
    wallet: Wallet | None = None,
    auth: AuthModule | None = None,
    deadline: Deadline,
    timeouts: Timeouts,
    clock: Clock,
) -> EphemeralKeyReport:
    """
    Return who has confirmed, over *network*, that the session's ephemeral key is revoked, and who has not.

    *network* is any open network, *deadline* is the job's, *timeouts* are the limits, *clock* is the wall clock in Unix
    seconds. The other arguments, and the errors, are those of ``DanClient.revoke_ephemeral_key``.
    """
    owner = _owner(session, wallet, auth, timeouts)
    algorithm = session.eph_alg or network.default_eph_alg
    with EphemeralKey.from_hex(session.hex_eph_sk_without_0x, algorithm) as key:
        claim = EphemeralClaim(
            eph_id=session.eph_id or key.default_id,
            eph_pk=key.public_key,
            # The authorisation to revoke is an ephemeral claim as well, and has to be in force itself.
            expiry=math.floor(network_time(network, clock, session.threshold)) + DEFAULT_DURATION_S,
            sign_alg=key.algorithm,
        )
    change = _change("revoke", session, owner, claim)
    async with deadline.enforced("revoking the ephemeral key", request_id=change.request_id):
        return await network.revoke_ephemeral_key(change, owner, deadline=deadline)


async def rotate_stored_session(
    network: Network,
    keeper: SessionKeeper,
    record_id: RequestId,
    *,
    wallet: Wallet | None,
    auth: AuthModule | None,
    duration: int | timedelta,
    deadline: Deadline,
    timeouts: Timeouts,
) -> StoredSession:
    """
    Return the record of a session whose ephemeral key was replaced over *network*.

    *network* is any open network, *keeper* the store as jobs use it, *deadline* the job's, *timeouts* the limits. The other
    arguments, and the errors, are those of ``DanClient.rotate_stored_session``.
    """
    record, session = await _stored(keeper, record_id, deadline, "active", "expired")
    store, now = keeper.store, keeper.clock()
    new = await add_ephemeral_key(
        network,
        session,
        wallet=wallet,
        auth=auth,
        duration=duration,
        eph_alg=session.eph_alg,
        deadline=deadline,
        timeouts=timeouts,
        clock=keeper.clock,
    )
    done = evolve(
        record.changed("active", now=now, session=new), expires_at=new.expires_at or record.expires_at
    )

    async def keep() -> None:
        await _unchanged(keeper, record_id, session, deadline, record.state)
        if record.expires_at > network_time(network, keeper.clock, session.threshold):
            from dan_async.storage.base import StoredSession

            # Until then the old one can be used, so it has to be possible to revoke it.
            await store.save(StoredSession.of(evolve(session, expires_at=record.expires_at), now=now))
        await store.replace(done, expected=record.state)

    try:
        await keeper.in_time(keep(), "storing the session", deadline, record_id)
    except (StoreError, DeadlineExceededError) as error:
        error.add_note(
            "The nodes accept a new ephemeral key, which may not be stored. The old one works as before."
        )
        raise
    return done


async def revoke_stored_session(
    network: Network,
    keeper: SessionKeeper,
    record_id: RequestId,
    *,
    wallet: Wallet | None,
    auth: AuthModule | None,
    deadline: Deadline,
    timeouts: Timeouts,
) -> StoredSession:
    """
    Return the record of a session whose ephemeral key was revoked over *network*.

    *network* is any open network, *keeper* the store as jobs use it, *deadline* the job's, *timeouts* the limits. The other
    arguments, and the errors, are those of ``DanClient.revoke_stored_session``.
    """
    _, session = await _stored(keeper, record_id, deadline, "active", "revoked")
    report = await revoke_ephemeral_key(
        network, session, wallet=wallet, auth=auth, deadline=deadline, timeouts=timeouts, clock=keeper.clock
    )
    # Nodes of the pool that hold no share need not confirm.
    is_complete = not report.failures or len(report.confirmed_by) >= session.parties_number
    problem = "" if is_complete else f"not confirmed by every node: {'; '.join(report.failures)}"[:2000]

    async def keep() -> StoredSession:
        record = await _unchanged(keeper, record_id, session, deadline, "active", "revoked")
        done = record.changed("revoked", now=keeper.clock(), problem=problem)
        await keeper.store.replace(done, expected=record.state)
        return done

    try:
        return await keeper.in_time(keep(), "storing that it is revoked", deadline, record_id)
    except (StoreError, DeadlineExceededError) as error:
        error.add_note("The nodes have revoked the ephemeral key. Call again, so that its record says so.")
        raise


async def _stored(
    keeper: SessionKeeper, record_id: RequestId, deadline: Deadline, *states: SessionState
) -> tuple[StoredSession, DanSessionKeyPayload]:
    reading = keeper.store.get(RequestId(check_text("record_id", record_id)))
    record = await keeper.in_time(reading, "reading the store", deadline, record_id)
    if record is None or record.state not in states or record.session is None:
        found = "is not in the store" if record is None else f"is {record.state}, not {' or '.join(states)}"
        raise RecordConflictError(f"the record {found}", request_id=record_id)
    return record, record.session


async def _unchanged(
    keeper: SessionKeeper,
    record_id: RequestId,
    session: DanSessionKeyPayload,
    deadline: Deadline,
    *states: SessionState,
) -> StoredSession:
    """Return the record as it is now; raise a RecordConflictError if its session has been replaced meanwhile."""
    record, current = await _stored(keeper, record_id, deadline, *states)
    if current != session:
        raise RecordConflictError("the record was changed meanwhile", request_id=record_id)
    return record


async def register_passkey(
    network: Network, passkey: PasskeyRegister, *, deadline: Deadline, timeouts: Timeouts
) -> str:
    """
    Return the credential id of a passkey that was registered over *network*.

    *network* is any open network, *deadline* is the job's, *timeouts* are the limits. The other arguments, and the errors,
    are those of ``DanClient.register_passkey``.
    """
    check_instance("passkey", passkey, PasskeyRegister, "a PasskeyRegister")
    auth = WatchedAuth(passkey, timeout_s=timeouts.wallet_s)
    async with deadline.enforced("registering the passkey"):
        return await network.register_passkey(auth, deadline=deadline)


def _owner(
    session: DanModuleInfo, wallet: Wallet | None, auth: AuthModule | None, timeouts: Timeouts
) -> AuthModule:
    check_instance("session", session, DanModuleInfo, "a session payload")
    owner = choose_auth(auth, wallet=wallet, limit_s=timeouts.wallet_s)
    # A passkey has no address: with one as the owner, the session's is a label, and only the nodes know whose the key is.
    if owner.method == "eoa" and session.eoa_address not in (None, owner.id):
        raise InvalidFieldError(
            "wallet" if auth is None else "auth",
            f"is {owner.id}, and the session belongs to {session.eoa_address}",
            hint="Only the owner can change who uses the key",
        )
    return owner


def _change(
    action: Literal["add", "revoke"], session: DanModuleInfo, owner: AuthModule, claim: EphemeralClaim
) -> EphemeralKeyChange:
    known = session.threshold is not None and session.parties_number is not None
    return EphemeralKeyChange(
        request_id=new_request_id(),
        action=action,
        key_id=session.mpc_key_id,
        owner_id=owner.id,
        claim=claim,
        threshold=Threshold(session.threshold or 0, session.parties_number or 0) if known else None,
    )
