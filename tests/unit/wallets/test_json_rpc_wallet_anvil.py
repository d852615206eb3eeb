"""JsonRpcWallet against a real Ethereum node: what it signs is what we hash."""

import pytest

from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.signature import recover_address
from dan_async.errors import WalletError, WalletRefusedError
from dan_async.wallets import JsonRpcWallet
from dan_async.wallets.base import EoaAuth
from tests.unit.crypto.vectors import WALLET_CASES, name
from tests.unit.wallets.anvil import require_anvil, running_anvil

#: Anvil's first development accounts, known to everyone.
FIRST = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
SECOND = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"

KEYGEN = [case for case in WALLET_CASES if case["operation"] == "keygen"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A running Anvil."""
    with running_anvil(tmp_path_factory.mktemp("anvil")) as address:
        yield address


@pytest.mark.parametrize("case", WALLET_CASES, ids=name)
async def test_anvil_signs_our_typed_data(url, case):
    """Every recorded kind of authorisation is accepted, and the signature recovers to the account over our digest."""
    async with JsonRpcWallet(url, address=SECOND, interactive=False) as wallet:
        typed_data = case["wallet"]["typed_data"]
        signature = await wallet.sign_typed_data(typed_data)
    assert recover_address(typed_data_digest(typed_data), signature) == SECOND


async def test_anvils_first_account_authorises_a_keygen(url):
    """connect() finds the account, and the whole authorisation goes through."""
    typed_data = KEYGEN[0]["wallet"]["typed_data"]
    async with await JsonRpcWallet.connect(url, interactive=False) as wallet:
        assert wallet.address == FIRST
        auth = EoaAuth(wallet, timeout_s=20)
        signature = await auth.authorise(challenge=typed_data["message"]["challenge"], typed_data=typed_data)
    assert recover_address(typed_data_digest(typed_data), signature) == FIRST


MEMBERS = [
    {"name": "flag", "type": "bool"},
    {"name": "small", "type": "int8"},
    {"name": "large", "type": "uint256"},
    {"name": "text", "type": "string"},
    {"name": "data", "type": "bytes"},
    {"name": "word", "type": "bytes5"},
    {"name": "who", "type": "address"},
    {"name": "grid", "type": "uint8[2][]"},
    {"name": "parts", "type": "Part[]"},
]
MESSAGE = {
    "flag": True,
    "small": "-128",
    "large": str(2**256 - 1),
    "text": "Grüße 👋",
    "data": "0x",
    "word": "0x0102030405",
    "who": FIRST,
    "grid": [[1, 2], [3, 4]],
    "parts": [{"tag": 1}, {"tag": "0xff"}],
}
FULL_DOMAIN = {
    "name": "n",
    "version": "1",
    "chainId": 80002,
    "verifyingContract": SECOND,
    "salt": "0x" + "5a" * 32,
}


@pytest.mark.parametrize("domain", [{}, {"name": "n"}, {"chainId": "1"}, FULL_DOMAIN], ids=len)
@pytest.mark.parametrize("primary", ["Main", "EIP712Domain"])
async def test_anvil_hashes_every_kind_of_value_as_we_do(url, domain, primary):
    """All types and domains, the domain derived, and the domain alone."""
    typed_data = {
        "types": {"Main": MEMBERS, "Part": [{"name": "tag", "type": "uint16"}]},
        "primaryType": primary,
        "domain": domain,
        "message": MESSAGE,
    }
    async with JsonRpcWallet(url, address=FIRST, interactive=False) as wallet:
        signature = await wallet.sign_typed_data(typed_data)
    assert recover_address(typed_data_digest(typed_data), signature) == FIRST


async def test_an_account_that_anvil_does_not_have_is_an_error_of_the_wallet(url):
    """In Anvil's words; it is no refusal by a person."""
    async with JsonRpcWallet(url, address="0x" + "12" * 20, interactive=False) as wallet:
        with pytest.raises(WalletError, match="No Signer available") as caught:
            await wallet.sign_typed_data(KEYGEN[0]["wallet"]["typed_data"])
    assert not isinstance(caught.value, WalletRefusedError)


def test_without_anvil_the_test_is_skipped(tmp_path):
    """With a reason that says what to run."""
    with pytest.raises(pytest.skip.Exception, match="npm ci"):
        require_anvil(tmp_path / "anvil", {})


def test_without_anvil_ci_fails(tmp_path):
    """CI never leaves the real wallet out unnoticed."""
    with pytest.raises(pytest.fail.Exception, match="npm ci"):
        require_anvil(tmp_path / "anvil", {"CI": "true"})
