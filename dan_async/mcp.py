"""
Sessions as an agent's tools, over the Model Context Protocol (extra ``mcp``).

The agent asks for signatures and user operations; keys, and the right to make more of them, stay on this side. Imported by
its full path only; ``dan-async mcp`` serves it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from attrs import frozen

from dan_async._values import (
    MAX_SAFE_INT,
    check_int,
    check_list,
    check_mapping,
    check_text,
    duration_s,
    from_hex,
)
from dan_async._version import __version__
from dan_async.batch import in_a_thread
from dan_async.client import DanClient
from dan_async.errors import (
    ConfigurationError,
    DanError,
    DeadlineExceededError,
    DuplicateUserOperationError,
    EphemeralKeyRefusedError,
    InvalidFieldError,
    OverloadedError,
    PermissionDeniedError,
    RecordConflictError,
    SessionExpiredError,
    StoreError,
    UserOperationCostError,
    UserOperationError,
    UserOperationInDoubtError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
    WalletError,
    require_extra,
)
from dan_async.request import DEFAULT_DURATION_S
from dan_async.session import DanSessionKeyPayload
from dan_async.storage.base import SessionFilter, StoredSession, find_record
from dan_async.types import Clock, RequestId
from dan_async.wallets.base import Wallet

if TYPE_CHECKING:
    from dan_async.userops import SessionSigner, SmartAccountClient

__all__ = ["OpenAccount", "SessionTools"]

_log = logging.getLogger(__name__)

#: Makes the smart account that a session acts for; whoever called closes it.
OpenAccount: TypeAlias = Callable[["SessionSigner"], Awaitable["SmartAccountClient"]]

#: Calls that may wait for each one that is worked on.
_WAITING_FOR_EACH = 16

#: Sessions that ``session_status`` lists, at most.
_MOST_LISTED = 100

#: Longest line of standard input, in bytes.
_LONGEST_LINE = 4 * 1024 * 1024

_INSTRUCTIONS = (
    "Signs with session keys of a DAN network, within what the keys' owner allowed. session_status lists the sessions. "
    "A refusal is an object with a code, a message and whatToDo; what was refused for a rule is refused again."
)


class _NotActiveError(DanError):
    """A session is in another state than active."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the session is {state}, not active", hint="Nothing was signed")
        self.state = state


#: What an agent is to do about an error, and its code; the first class that fits counts.
_REFUSALS: Sequence[tuple[type[DanError], str, str]] = (
    (
        PermissionDeniedError,
        "permission_denied",
        "Do not repeat it. Stay within the session's permissions, which session_status shows, or ask the owner for others",
    ),
    (_NotActiveError, "session_not_active", "Use another session, or make one"),
    (SessionExpiredError, "session_expired", "Use another session, or make one"),
    (EphemeralKeyRefusedError, "session_refused", "The session was revoked or has expired: use another one"),
    (OverloadedError, "overloaded", "Wait until other calls have ended, then repeat it"),
    (
        UserOperationInDoubtError,
        "in_doubt",
        "It may have been executed: do not send it again before that is known",
    ),
    (
        UserOperationTimeoutError,
        "not_yet",
        "The operation with this userOperationHash was sent and may still be executed: do not send that one again",
    ),
    (
        UserOperationCostError,
        "too_expensive",
        "Nothing was sent. Wait for a lower price, or ask the operator",
    ),
    (UserOperationRevertedError, "reverted", "Its gas is paid. Look at the reason before another attempt"),
    (
        DuplicateUserOperationError,
        "duplicate",
        "The operation with this userOperationHash makes these calls: repeat them only if they are meant to be made twice",
    ),
    (UserOperationError, "user_operation_failed", "Read the message; change the calls, or ask the operator"),
    (DeadlineExceededError, "deadline_exceeded", "The network was too slow. Repeat it later"),
    (WalletError, "not_authorised", "The owner's wallet did not authorise it. Ask the owner"),
    (RecordConflictError, "conflict", "Choose another reference"),
    (StoreError, "store_failed", "Tell the operator of this server"),
    (ConfigurationError, "invalid_input", "Correct the argument"),
    (DanError, "network_failed", "Repeat it later if it is retryable, or tell the operator of this server"),
)

#: Attributes of errors that an agent can use, and their names on the wire.
_FACTS = {
    "field": "field",
    "rule": "rule",
    "state": "state",
    "user_operation_hash": "userOperationHash",
    "transaction_hash": "transactionHash",
    "reason": "reason",
}


@frozen(kw_only=True)
class _Tool:
    """A tool: what it does, its arguments as JSON schemas, and the method behind it."""

    description: str
    arguments: Mapping[str, Mapping[str, Any]]
    run: Callable[..., Awaitable[dict[str, Any]]]
    optional: Collection[str] = ()
    is_read_only: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The schema of all arguments together."""
        needed = [name for name in self.arguments if name not in self.optional]
        members = {"type": "object", "properties": dict(self.arguments), "required": needed}
        return members | {"additionalProperties": False}


def _schema(kind: str | list[str], description: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "description": description} | more


class SessionTools:
    """
    The sessions in a client's store as tools of an agent, which never sees a key.

    ``session_status``, ``sign_message`` and ``sign_typed_data`` are always there, ``make_session`` with a *wallet*,
    ``send_user_operation`` with *open_account*. Use it as an async context manager, which closes the accounts it opened.

    Args:
        client: An open client with a store. It is not closed.
        wallet: The owner's wallet, which authorises the sessions that the agent makes.
        chain_id: Their chain; needed with a wallet.
        permissions: Their permissions, as JSON text or an object; None for no limits.
        max_duration: How long they may live: whole seconds, 1 to 31 536 000.
        sessions: Ids or references of the stored sessions that the agent may use, beside those that it makes; None for
            every one in the store.
        open_account: Makes the smart account of a session, given the session's ``SessionSigner``.
        concurrency: How many calls are worked on at a time, 1 to 1000; sixteen times as many may wait.
        clock: The wall clock, in Unix seconds; for tests.

    Raises:
        MissingExtraError: The package mcp is not installed.
        ConfigurationError: The client has no store, or a parameter is wrong.

    Example::

        async with SessionTools(dan, wallet=wallet, chain_id=80002) as tools:
            await tools.serve_stdio()
    """

    def __init__(
        self,
        client: DanClient,
        *,
        wallet: Wallet | None = None,
        chain_id: int | None = None,
        permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
        max_duration: int = DEFAULT_DURATION_S,
        sessions: Collection[str] | None = None,
        open_account: OpenAccount | None = None,
        concurrency: int = 8,
        clock: Clock = time.time,
    ) -> None:
        require_extra("mcp_types", extra="mcp", purpose="SessionTools")
        self._client, self._store, self._clock = client, client.store, clock
        self._wallet, self._permissions = wallet, permissions
        self._chain_id = chain_id
        if wallet is not None:
            check_int("chain_id", chain_id, least=1, most=MAX_SAFE_INT)
        self._max_duration = duration_s(max_duration)
        self._allowed = None if sessions is None else set(sessions)
        self._open_account = open_account
        self._accounts: dict[RequestId, tuple[DanSessionKeyPayload, SmartAccountClient]] = {}
        self._opening = asyncio.Lock()
        self._closing = AsyncExitStack()
        self._slots = asyncio.Semaphore(check_int("concurrency", concurrency, least=1, most=1000))
        self._most = self._free = concurrency * (1 + _WAITING_FOR_EACH)
        self._tools = self._offered()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    # --- serving ------------------------------------------------------------------------------------------------------

    def server(self) -> Any:
        """Return a new server of the package mcp (``mcp.server.lowlevel.Server``), for any of its transports."""
        types: Any = require_extra("mcp_types", extra="mcp", purpose="SessionTools")
        lowlevel: Any = require_extra("mcp.server.lowlevel", extra="mcp", purpose="SessionTools")

        async def list_tools(_context: Any, _params: Any) -> Any:
            return types.ListToolsResult(tools=[shown(name, tool) for name, tool in self._tools.items()])

        def shown(name: str, tool: _Tool) -> Any:
            hints = types.ToolAnnotations(read_only_hint=tool.is_read_only)
            about = tool.description
            return types.Tool(name=name, description=about, input_schema=tool.schema, annotations=hints)

        async def call_tool(_context: Any, params: Any) -> Any:
            answer = await self.call(params.name, params.arguments or {})
            text = types.TextContent(type="text", text=json.dumps(answer))
            return types.CallToolResult(content=[text], structured_content=answer, is_error="error" in answer)

        return lowlevel.Server(
            "dan-async",
            version=__version__,
            instructions=_INSTRUCTIONS,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )

    async def serve_stdio(self) -> None:
        """Serve one client over standard input and output until it closes one of them; calls under way end with it."""
        stdio: Any = require_extra("mcp.server.stdio", extra="mcp", purpose="SessionTools")
        server = self.server()
        try:
            async with stdio.stdio_server(stdin=in_a_thread(_lines)) as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())
        except* BrokenPipeError:
            _log.info("the client closed standard output")

    async def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Run a tool.

        Args:
            name: The tool's name.
            arguments: Its arguments, as its input schema has them.

        Returns:
            The result; or an object whose only member ``error`` has code, message, hint, whatToDo and retryable.
        """
        try:
            tool = self._tools.get(name)
            if tool is None:
                raise InvalidFieldError("name", f"must be one of {', '.join(self._tools)}")
            for given in arguments:
                if given not in tool.arguments:
                    raise InvalidFieldError("arguments", f"must be among {', '.join(tool.arguments)}")
            for needed in tool.arguments:
                if needed not in arguments and needed not in tool.optional:
                    raise InvalidFieldError(needed, "is missing")
            async with self._slot():
                return await tool.run(**arguments)
        except DanError as error:
            return {"error": refusal(error)}
        except Exception as error:  # noqa: BLE001 - the outermost edge: whatever it is, its text may hold anything
            _log.error("the tool %s failed: unexpected %s", name, type(error).__name__)
            bug = DanError(f"unexpected {type(error).__name__}", hint="This is a bug")
            return {"error": _told(bug, "internal", "Tell the operator of this server")}

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if not self._free:
            raise OverloadedError("too many calls are waiting", waiting=self._most, hint="Nothing was done")
        self._free -= 1
        try:
            async with self._slots:
                yield
        finally:
            self._free += 1

    # --- tools --------------------------------------------------------------------------------------------------------

    def _offered(self) -> dict[str, _Tool]:
        session = _schema("string", "The session's id or reference.")
        tools = {
            "session_status": _Tool(
                description="Show a session: address, account, chain, state, time left, permissions. Without one, list all.",
                arguments={"session": session},
                optional=("session",),
                run=self._session_status,
                is_read_only=True,
            ),
            "sign_message": _Tool(
                description="Sign a personal message (EIP-191) with a session's key.",
                arguments={
                    "session": session,
                    "message": {"type": "string"},
                    "encoding": {
                        "enum": ["text", "hex"],
                        "description": "How message is written; text by default.",
                    },
                },
                optional=("encoding",),
                run=self._sign_message,
            ),
            "sign_typed_data": _Tool(
                description="Sign typed data (EIP-712) with a session's key; its chain must be the session's.",
                arguments={
                    "session": session,
                    "typed_data": {
                        "type": "object",
                        "required": ["types", "primaryType", "domain", "message"],
                    },
                },
                run=self._sign_typed_data,
            ),
        }
        if self._wallet is not None:
            tools["make_session"] = _Tool(
                description=f"Make a session key on chain {self._chain_id}, authorised by the owner's wallet.",
                arguments={
                    "duration": _schema(
                        "integer",
                        "How long it lives, in seconds; as long as possible if not given.",
                        minimum=1,
                        maximum=self._max_duration,
                    ),
                    "reference": _schema("string", "A name of your own for it.", maxLength=200),
                },
                optional=("duration", "reference"),
                run=self._make_session,
            )
        if self._open_account is not None:
            call = {
                "type": "object",
                "required": ["to"],
                "additionalProperties": False,
                "properties": {
                    "to": _schema("string", "The address to call."),
                    "value": _schema(["string", "integer"], "Wei to send, 0 if not given."),
                    "data": _schema("string", "The call data as 0x hex."),
                },
            }
            tools["send_user_operation"] = _Tool(
                description="Make calls from the session's smart account, all of them or none, and wait until they are "
                "on the chain.",
                arguments={"session": session, "calls": {"type": "array", "minItems": 1, "items": call}},
                run=self._send_user_operation,
            )
        return tools

    async def _session_status(self, session: object = None) -> dict[str, Any]:
        if session is not None:
            record = await self._record(session)
            shown = self._shown(record)
            if self._open_account is not None and record.state == "active":
                shown["account"] = await (await self._account(record)).get_address()
            return shown
        return {"sessions": [self._shown(record) for record in await self._usable()]}

    async def _make_session(self, duration: object = None, reference: object = None) -> dict[str, Any]:
        seconds = self._max_duration if duration is None else duration_s(duration)  # type: ignore[arg-type]  # it checks
        if seconds > self._max_duration:
            raise InvalidFieldError("duration", f"must be at most {self._max_duration} seconds here")
        name = (
            f"mcp-{secrets.token_hex(8)}"
            if reference is None
            else check_text("reference", reference, most=200)
        )
        await self._client.generate_session_key(
            wallet=self._wallet,
            chain_id=self._chain_id,
            duration=seconds,
            permissions=self._permissions,
            reference=name,
        )
        record = await self._store.get_by_reference(name)
        assert record is not None
        if self._allowed is not None:
            # Not its reference, which the agent chose: it may be another's id.
            self._allowed.add(record.record_id)
        return self._shown(record)

    async def _sign_message(
        self, session: object, message: object, encoding: object = "text"
    ) -> dict[str, Any]:
        if encoding not in ("text", "hex"):
            raise InvalidFieldError("encoding", "must be text or hex")
        text = check_text("message", message, least=0, most=_LONGEST_LINE)
        return await self._sign(
            session, from_hex(text, field="message") if encoding == "hex" else text, "EIP191"
        )

    async def _sign_typed_data(self, session: object, typed_data: object) -> dict[str, Any]:
        return await self._sign(session, check_mapping("typed_data", typed_data), "EIP712")

    async def _sign(self, session: object, message: Any, request_type: str) -> dict[str, Any]:
        key = _session_of(await self._record(session))
        signature = await self._client.sign_message(message, key, request_type=request_type)
        return {"signature": signature, "address": key.session_key_eoa}

    async def _send_user_operation(self, session: object, calls: object) -> dict[str, Any]:
        from dan_async.userops import Call

        wanted = []
        for one in check_list("calls", calls):
            parts = dict(check_mapping("calls", one))
            if not set(parts) <= {"to", "value", "data"} or "to" not in parts:
                raise InvalidFieldError("calls", "must be objects with to, and value and data if needed")
            wanted.append(Call(parts["to"], parts.get("value", 0), parts.get("data", b"")))
        account = await self._account(await self._record(session))
        sent = await account.send_user_operation(wanted)
        answer = {"userOperationHash": sent, "account": await account.get_address()}
        try:
            receipt = await account.wait_for_receipt(sent)
        except UserOperationTimeoutError:
            return answer | {"status": "pending"}
        except asyncio.CancelledError:  # the agent has not heard of it, and may ask for the same calls again
            account.lanes.doubt_again("", sent)
            raise
        return answer | {"status": "executed", "transactionHash": receipt.transaction_hash}

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _may_use(self, record: StoredSession) -> bool:
        return self._allowed is None or bool({record.record_id, record.reference} & self._allowed)

    async def _usable(self) -> Sequence[StoredSession]:
        """Return the active sessions that may be used, oldest first; at most as many as are listed."""
        if self._allowed is None:
            return (await self._store.list_page(SessionFilter(state=("active",)), limit=_MOST_LISTED)).records
        named = [await find_record(self._store, name) for name in self._allowed]
        found = {one.record_id: one for one in named if one and one.state == "active" and self._may_use(one)}
        return sorted(found.values(), key=lambda one: one.created_at)[-_MOST_LISTED:]

    async def _record(self, session: object) -> StoredSession:
        found = await find_record(self._store, check_text("session", session, most=200))
        if found is None or not self._may_use(found):
            raise InvalidFieldError(
                "session", "is not one that may be used here", hint="session_status lists those that may"
            )
        return found

    def _shown(self, record: StoredSession) -> dict[str, Any]:
        session, intent = record.session, record.intent
        permissions: Any = "unknown: the session was made elsewhere"
        if intent is not None:
            permissions = json.loads(intent.permissions) if intent.permissions else None
        return {
            "session": record.record_id,
            "reference": record.reference,
            "address": None if session is None else session.session_key_eoa,
            "owner": record.owner,
            "chainId": record.chain_id,
            "state": record.state,
            "expiresAt": record.expires_at,
            "secondsLeft": max(0, int(record.expires_at - self._clock())),
            "threshold": None if session is None else session.threshold,
            "parties": None if session is None else session.parties_number,
            "permissions": permissions,
        }

    async def _account(self, record: StoredSession) -> SmartAccountClient:
        """Return the session's account, which stays open: it knows the nonces of the operations under way."""
        from dan_async.userops import SessionSigner

        session = _session_of(record)
        assert self._open_account is not None
        async with self._opening:
            known = self._accounts.get(record.record_id)
            if known is None or known[0] != session:
                permissions = None if record.intent is None else record.intent.permissions
                account = await self._open_account(
                    SessionSigner(self._client, session, permissions=permissions)
                )
                self._closing.push_async_callback(account.aclose)
                known = self._accounts[record.record_id] = (session, account)
        return known[1]


def _session_of(record: StoredSession) -> DanSessionKeyPayload:
    if record.state != "active" or record.session is None:
        raise _NotActiveError(record.state)
    return record.session


def refusal(error: DanError) -> dict[str, Any]:
    """Return an error as an agent reads it. The words of nodes stay out of it: an agent might obey them."""
    code, what_to_do = next((code, text) for kind, code, text in _REFUSALS if isinstance(error, kind))
    facts = {name: getattr(error, attribute, None) for attribute, name in _FACTS.items()}
    return _told(error, code, what_to_do) | {name: value for name, value in facts.items() if value}


def _told(error: DanError, code: str, what_to_do: str) -> dict[str, Any]:
    told = {"code": code, "message": error.message, "hint": error.hint, "whatToDo": what_to_do}
    return told | {"retryable": error.retryable}


def _lines() -> Iterator[str]:
    """Yield the lines of standard input."""
    rest = b""
    with suppress(OSError):
        while chunk := os.read(0, 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
            if len(rest) > _LONGEST_LINE:
                _log.warning("a line of standard input is too long: at most %d bytes", _LONGEST_LINE)
                return
