"""One chain and one bundler for all tests of this folder; each test has an account of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain.biconomy_contracts import BiconomyContracts
from tests.chain.local_chain import LocalChain, running_chain
from tests.chain.nexus_contracts import NexusContracts


@pytest.fixture(scope="session")
def chain() -> Iterator[LocalChain]:
    """A chain with the entry points, and SimpleAccount's factory where everybody expects it."""
    with running_chain() as running:
        yield running


@pytest.fixture(scope="session")
def bundler_url(chain: LocalChain) -> str:
    """A bundler for the chain."""
    return chain.bundler_url


@pytest.fixture(scope="session")
def contracts(chain: LocalChain) -> BiconomyContracts:
    """Biconomy's contracts, and a token."""
    return BiconomyContracts(chain)


@pytest.fixture(scope="session")
def nexus(chain: LocalChain) -> NexusContracts:
    """Nexus's contracts, and a token."""
    return NexusContracts(chain)
