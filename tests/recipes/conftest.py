"""Tests of recipes and adapters that need packages of the extra ``recipes``: collected only where they are asked for."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dan_async import DanClient, DanSessionKeyPayload, LocalWallet
from dan_async.devnet import Devnet
from tests.chain.local_chain import LocalChain, running_chain
from tests.unit.wallets.anvil import running_anvil

DOCS = Path(__file__).parents[2] / "docs"
OWNER_KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ANVIL_CHAIN_ID = 31337


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these files alone unless the marker is asked for: importing them takes the packages."""
    return None if "recipes" in str(config.option.markexpr).replace("not recipes", "") else True


async def run_sample(page: str, names: dict[str, Any]) -> None:
    """Run a page's Python sample as it is printed, with the names that it takes for granted; keep those that it makes."""
    (file,) = DOCS.rglob(f"{page}.md")
    (sample,) = re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL)
    await eval(compile(sample, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)


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
def chain() -> Iterator[LocalChain]:
    """A chain with the entry points, and SimpleAccount's factory where everybody expects it."""
    with running_chain() as running:
        yield running


@pytest.fixture(scope="session")
def bundler_url(chain: LocalChain) -> str:
    """A bundler for the chain."""
    return chain.bundler_url
