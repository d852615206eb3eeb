"""Tests of recipes and adapters that need packages of the extra ``recipes``: collected only where they are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dan_async import DanClient, DanSessionKeyPayload, LocalWallet
from dan_async.devnet import Devnet
from tests.chain.local_chain import LocalChain, running_bundler, running_chain
from tests.unit.wallets.anvil import running_anvil

OWNER_KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ANVIL_CHAIN_ID = 31337


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these files alone unless the marker is asked for: importing them takes the packages."""
    return None if "recipes" in str(config.option.markexpr).replace("not recipes", "") else True


@pytest.fixture
async def dan() -> AsyncIterator[DanClient]:
    """A client of a 2-of-3 network."""
    async with DanClient(Devnet(2, 3)) as client:
        yield client


@pytest.fixture
async def session(dan: DanClient) -> DanSessionKeyPayload:
    """A session on Anvil's chain."""
    return await dan.generate_session_key(wallet=LocalWallet(OWNER_KEY), chain_id=ANVIL_CHAIN_ID)


@pytest.fixture(scope="session")
def anvil_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A chain."""
    with running_anvil(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalChain]:
    """A chain with the entry points, and SimpleAccount's factory where everybody expects it."""
    with running_chain(tmp_path_factory.mktemp("chain")) as running:
        running.put_well_known_factory("v0.7.0")
        yield running


@pytest.fixture(scope="session")
def bundler_url(chain: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bundler for the chain."""
    with running_bundler(chain, tmp_path_factory.mktemp("bundler")) as url:
        yield url
