"""One chain and one bundler for all tests of this folder; each test has an account of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chain.biconomy_contracts import BiconomyContracts
from tests.chain.local_chain import LocalChain, running_bundler, running_chain
from tests.chain.nexus_contracts import NexusContracts


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalChain]:
    """A chain with the entry points."""
    with running_chain(tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture(scope="session")
def bundler_url(chain: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bundler for the chain."""
    with running_bundler(chain, tmp_path_factory.mktemp("bundler")) as url:
        yield url


@pytest.fixture(scope="session")
def contracts(chain: LocalChain) -> BiconomyContracts:
    """Biconomy's contracts, and a token."""
    return BiconomyContracts(chain)


@pytest.fixture(scope="session")
def nexus(chain: LocalChain) -> NexusContracts:
    """Nexus's contracts, and a token."""
    return NexusContracts(chain)
