"""The names that samples of the documentation take for granted, with their types; see tests/test_samples.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from dan_async import DanClient, DanSessionKeyPayload, NodeEndpoint, NodeNetwork
from dan_async.protocols.sign_request import SignRequest
from dan_async.storage import MemorySessionStore
from dan_async.types import Address, RequestId
from dan_async.userops import SmartAccountClient
from dan_async.wallets import Wallet


class Page(Protocol):
    async def ask(self, options: Mapping[str, Any]) -> dict[str, Any]: ...
    async def send_json(self, message: Mapping[str, Any]) -> None: ...
    async def receive_json(self) -> dict[str, Any]: ...


class Account(Protocol):
    signer: Wallet
    bundler_url: str
    chain_id: int

    async def get_address(self) -> str: ...


class Chain(Protocol):
    eth: Any


dan: DanClient
nodes: list[NodeEndpoint]
network: NodeNetwork
store: MemorySessionStore
session: DanSessionKeyPayload
record_id: RequestId
key: str
owner_key: str
wallet: Wallet
owner_wallet: Wallet
owner: str
address: str
keys: list[str]
orders: list[str]
rows: Iterable[Mapping[str, Any]]
page: Page
websocket: Page
account_id: bytes
account: Account
smart_account: SmartAccountClient
running: bool
w3: Chain
to: str
token: Address
target: Address
call_data: bytes
shop: Address
tomorrow: int
transfer_data: bytes
fees: dict[str, int]
text: str
request: SignRequest
prepared_elsewhere: dict[str, Any]
stored: dict[str, Any]
key_gen_data: dict[str, str]
requests: list[Mapping[str, Any]]


async def next_order() -> str: ...  # type: ignore[empty-body]
