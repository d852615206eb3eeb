"""
A batch on a Dask cluster: rows in partitions, one client for each worker, one store. Needs the extra ``dask``.

Rows are encrypted on their way: a partition goes to its worker under the store's key, which each worker reads for itself,
and the results hold no secret. A worker that dies is replaced by Dask; its rows are resumed by another one under their
references, so that none gets a second key.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from attrs import define, field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dan_async._values import check_instance, check_int, check_list, in_seconds
from dan_async.batch import ItemStatus, WorkStream
from dan_async.config import NodeEndpoint, Threshold, Timeouts
from dan_async.errors import (
    BatchInterruptedError,
    ClientClosedError,
    ConfigurationError,
    DanError,
    InvalidFieldError,
    StoreKeyError,
    require_extra,
)
from dan_async.storage.keys import KeySource, keys_from_environment, keys_from_file
from dan_async.types import Address, MpcKeyId

__all__ = ["RemoteResult", "WorkerSetup", "generate_session_keys_on"]

_ASSOCIATED = b"dan-async partition 1"
_ON_WORKER, _ENDED = "dan_async_batches", "dan_async_ended"

#: For how long the workers are waited for when a batch ends, in seconds.
_LEAVE_S = 10.0

_log = logging.getLogger(__name__)


def _to_nodes(nodes: Any) -> tuple[str, ...]:
    return check_list("nodes", nodes)


@frozen(kw_only=True)
class WorkerSetup:
    """
    The settings of a worker. They cross the wire, so they name secrets and hold none.

    Args:
        nodes: The nodes, as ``URL=OPERATOR``.
        threshold: t and n.
        store_url: The store, as the workers reach it. With a password in it, TLS is required on the cluster.
        key_file: The file with the store's key on the workers, and here.
        key_variable: Or the environment variable that holds it.
        concurrency: How many rows a worker works on at a time, for each partition.
        total_s: Seconds for one key.

    Raises:
        InvalidFieldError: A value is wrong, or not exactly one key is named.
    """

    nodes: tuple[str, ...] = field(converter=_to_nodes)
    threshold: Threshold
    store_url: str = field(repr=False)
    key_file: str | None = None
    key_variable: str | None = None
    concurrency: int = 16
    total_s: float = field(default=30.0, converter=in_seconds)

    def __attrs_post_init__(self) -> None:
        check_instance("threshold", self.threshold, Threshold)
        for node in self.nodes:
            NodeEndpoint.of(node)
        check_int("concurrency", self.concurrency, least=1, most=100_000)
        Timeouts(total_s=self.total_s)
        if (self.key_file is None) == (self.key_variable is None):
            raise InvalidFieldError("key_file", "or key_variable must name the store's key, not both")

    def keys(self) -> KeySource:
        """
        Return the store's keys, read from where they are named, the current one first.

        Raises:
            ConfigurationError: They cannot be read; see ``keys_from_file`` and ``keys_from_environment``.
        """
        if self.key_file is not None:
            return keys_from_file(self.key_file)
        return keys_from_environment(self.key_variable or "")


@frozen(kw_only=True)
class RemoteResult:
    """
    The result of one row. The session itself is in the store, under its reference.

    Args:
        index: The row's place, from 0.
        reference: The row's reference.
        status: How it came to its session, or that it failed.
        session_key_eoa: The address of the distributed key; None if it failed.
        mpc_key_id: The key's id.
        error: The kind of error, if it failed.
        problem: The error's message.
    """

    index: int
    reference: str
    status: ItemStatus
    session_key_eoa: Address | None = None
    mpc_key_id: MpcKeyId | None = None
    error: str = ""
    problem: str = ""


async def generate_session_keys_on(
    cluster: Any,
    rows: Iterable[Mapping[str, Any]],
    setup: WorkerSetup,
    *,
    partition: int = 64,
    in_flight: int = 8,
    retry_failed: bool = False,
) -> AsyncIterator[RemoteResult]:
    """
    Make a session key for each row on the workers of a Dask cluster, and yield its result when its partition is done.

    Args:
        cluster: A ``distributed.Client`` that was made with ``asynchronous=True``.
        rows: JSON values each: a *reference*, the *private_key* of the owner as hex, and parameters of
            ``generate_session_key``. Read no further ahead than *in_flight* partitions.
        setup: The settings of the workers.
        partition: How many rows go to a worker together, 1 to 10 000.
        in_flight: How many partitions are with the workers at a time.
        retry_failed: Whether to try rows again that have failed before.

    Returns:
        The results, in the order in which the partitions are done.

    Raises:
        ConfigurationError: A parameter is wrong, or the store's URL holds a password and the cluster has no TLS.
        StoreKeyError: A worker has another key than is used here.
        BatchInterruptedError: The cluster failed; the error has the references of the rows whose outcome is not known.
        MissingExtraError: The extra is not installed.
    """
    require_extra("distributed", extra="dask", purpose="A batch on a Dask cluster")
    check_int("partition", partition, least=1, most=10_000)
    if not getattr(cluster, "asynchronous", False):
        raise InvalidFieldError("cluster", "must be a distributed.Client with asynchronous=True")
    _check_wire(cluster, setup)
    keys, batch_id = setup.keys(), secrets.token_hex(8)
    settled, sent = 0, dict[int, str]()

    async def work(numbered: list[tuple[int, Mapping[str, Any]]]) -> list[RemoteResult]:
        sealed = await _seal(keys, {"rows": numbered, "retryFailed": retry_failed})
        sent.update((index, str(row.get("reference", ""))) for index, row in numbered)
        try:
            future = cluster.submit(_run_partition, setup, batch_id, sealed, pure=False, retries=2)
            try:
                return [RemoteResult(**members) for members in await future]
            finally:
                await future.cancel()  # lets the cluster forget it, and stop it if it is still at work
        except DanError:
            raise
        except Exception as error:
            raise BatchInterruptedError(
                f"the Dask cluster failed with {type(error).__name__}; {settled} rows are settled",
                hint="Run the same rows again when the cluster works: no row gets a second key",
                pending=tuple(sent.values()),
            ) from error

    numbered = enumerate(rows)
    parts = iter(lambda: list(itertools.islice(numbered, partition)), [])  # until there are no more
    stream = WorkStream(parts, work, concurrency=in_flight)
    try:
        async for done in stream:
            if done.error is not None:
                raise done.error
            for result in done.value or ():
                settled += 1
                sent.pop(result.index, None)
                yield result
    finally:
        await stream.aclose()
        try:
            async with asyncio.timeout(_LEAVE_S):
                await cluster.run(_leave, setup, batch_id)
        except Exception as error:  # noqa: BLE001 - the batch has ended, well or with an error of its own
            _log.warning("the workers' clients could not be closed: %s", type(error).__name__)


def _check_wire(cluster: Any, setup: WorkerSetup) -> None:
    address = str(getattr(cluster.scheduler, "address", ""))
    _, _, rest = setup.store_url.partition("://")
    has_password = ":" in rest.partition("@")[0] if "@" in rest else False
    if has_password and not address.startswith(("tls://", "inproc://")):
        raise ConfigurationError(
            "the store's URL holds a password, and the cluster's connections have no TLS",
            hint="Give the cluster a distributed.Security, or let the workers log in without a password in the URL",
        )


async def _seal(keys: KeySource, value: object) -> tuple[str, bytes]:
    try:
        text = json.dumps(value).encode()
    except (TypeError, ValueError):
        raise InvalidFieldError("rows", "must be JSON values: they go to another process") from None
    key = await keys.current(None)
    nonce = secrets.token_bytes(12)
    return key.id, nonce + AESGCM(key.secret).encrypt(nonce, text, _ASSOCIATED + key.id.encode())


async def _unseal(keys: KeySource, sealed: tuple[str, bytes]) -> Any:
    key_id, body = sealed
    key = await keys.by_id(key_id)
    try:
        if key is None:
            raise InvalidTag
        return json.loads(AESGCM(key.secret).decrypt(body[:12], body[12:], _ASSOCIATED + key_id.encode()))
    except InvalidTag:
        raise StoreKeyError(
            "the worker's store key is not the one that the batch was sent under",
            hint="Give every worker the same key file or variable",
        ) from None


# --- on the workers ---------------------------------------------------------------------------------------------------


async def _run_partition(
    setup: WorkerSetup, batch_id: str, sealed: tuple[str, bytes]
) -> list[dict[str, Any]]:
    """Run one partition with the worker's client; return the members of each ``RemoteResult``."""
    asked = await _unseal(setup.keys(), sealed)
    numbered: list[tuple[int, dict[str, Any]]] = asked["rows"]
    dan = _client_of_worker(setup, batch_id)
    requests = [_request(row) for _, row in numbered]
    found: list[dict[str, Any]] = []
    run = dan.generate_session_keys(
        requests, resume=True, retry_failed=asked["retryFailed"], concurrency=setup.concurrency
    )
    async with run:
        async for item in run:
            index, row = numbered[item.index]
            members: dict[str, Any] = {
                "index": index,
                "reference": str(row.get("reference", "")),
                "status": item.status,
            }
            if item.session is not None:
                members["session_key_eoa"] = item.session.session_key_eoa
                members["mpc_key_id"] = item.session.mpc_key_id
            else:
                members["error"] = type(item.error).__name__
                members["problem"] = item.error.message if isinstance(item.error, DanError) else ""
            found.append(members)
    return found


def _request(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row a request; one that cannot be made stays as it is, and fails as such."""
    from dan_async.wallets.local_key import LocalWallet

    request = dict(row)
    key = request.pop("private_key", None)
    if key is not None:
        try:
            request["wallet"] = LocalWallet(key)
        except DanError:
            request["wallet"] = None
    return request


@define
class _Shared:
    """A client of a worker, and the batches that use it."""

    client: Any
    stack: AsyncExitStack
    batches: set[str] = field(factory=set)


def _client_of_worker(setup: WorkerSetup, batch_id: str) -> Any:
    """Return the worker's client for a set-up, made on first use: one for all partitions of all batches that have it."""
    from distributed import get_worker

    from dan_async.client import DanClient
    from dan_async.nodes.network import NodeNetwork
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

    worker = get_worker()
    if batch_id in worker.__dict__.get(_ENDED, ()):
        raise ClientClosedError("the batch has ended", hint="Run the same rows again")
    known: dict[WorkerSetup, _Shared] = worker.__dict__.setdefault(_ON_WORKER, {})
    if setup not in known:
        stack = AsyncExitStack()
        timeouts = Timeouts(total_s=setup.total_s)
        store = SQLAlchemyStore(setup.store_url, setup.keys())
        stack.push_async_callback(store.aclose)
        network = NodeNetwork(setup.nodes, threshold=setup.threshold, timeouts=timeouts)
        client = DanClient(network, store=store, timeouts=timeouts)
        stack.push_async_callback(client.aclose)
        known[setup] = _Shared(client, stack)
    known[setup].batches.add(batch_id)
    return known[setup].client


async def _leave(setup: WorkerSetup, batch_id: str, dask_worker: Any = None) -> None:
    """Close the worker's client, unless another batch uses it. What the cluster still starts of this one gets none."""
    dask_worker.__dict__.setdefault(_ENDED, deque(maxlen=1000)).append(batch_id)
    known = dask_worker.__dict__.get(_ON_WORKER, {})
    shared = known.get(setup)
    if shared is not None:
        shared.batches.discard(batch_id)
        if not shared.batches:
            await known.pop(setup).stack.aclose()
