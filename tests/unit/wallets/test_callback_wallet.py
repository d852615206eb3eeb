"""A wallet reached through a coroutine function."""

import pytest

from dan_async.errors import InvalidFieldError, WalletError, WalletRefusedError
from dan_async.wallets import CallbackWallet, Wallet

ADDRESS = "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"
TYPED_DATA = {"types": {}, "primaryType": "", "domain": {}, "message": {}}


async def signed(typed_data):
    """A callback."""
    return f"signed {len(typed_data)}"


async def test_the_callback_gets_the_typed_data_and_its_answer_is_returned():
    """Nothing is added and nothing taken away."""
    assert await CallbackWallet(ADDRESS, signed).sign_typed_data(TYPED_DATA) == "signed 4"


def test_it_is_a_wallet_in_front_of_a_person():
    """It has what the protocol asks for, and a person is assumed unless told otherwise."""
    wallet = CallbackWallet(ADDRESS, signed)
    assert isinstance(wallet, Wallet)
    assert wallet.interactive is True
    assert CallbackWallet(ADDRESS, signed, interactive=False).interactive is False


def test_the_address_is_checksummed():
    """Whatever case it was given in."""
    assert CallbackWallet(ADDRESS.lower(), signed).address == ADDRESS


@pytest.mark.parametrize("error", [WalletRefusedError("no"), LookupError("the page was closed")])
async def test_the_callbacks_exceptions_pass(error):
    """The one who wrote the callback sees them as they are."""

    async def fails(_):
        raise error

    with pytest.raises(type(error)) as caught:
        await CallbackWallet(ADDRESS, fails).sign_typed_data(TYPED_DATA)
    assert caught.value is error


async def test_a_plain_function_is_refused_when_it_is_called():
    """A callback that returns text instead of an awaitable is a mistake with a plain message."""
    with pytest.raises(WalletError, match="returned str instead of an awaitable"):
        await CallbackWallet(ADDRESS, lambda _: "0x").sign_typed_data(TYPED_DATA)


@pytest.mark.parametrize(
    ("address", "sign", "field"), [("0x12", signed, "address"), (ADDRESS, "signed", "sign")]
)
def test_wrong_arguments_are_refused(address, sign, field):
    """Before anything is asked."""
    with pytest.raises(InvalidFieldError) as caught:
        CallbackWallet(address, sign)
    assert caught.value.field == field


def test_its_repr_says_whose_wallet_it_is():
    """The address, and whether a person is asked."""
    assert repr(CallbackWallet(ADDRESS, signed)) == f"CallbackWallet(address='{ADDRESS}', interactive=True)"
