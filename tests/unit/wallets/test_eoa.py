"""Authorisation by the owner's account: what passes, and what each failure is called."""

import asyncio

import pytest

from dan_async.crypto.curve import ORDER
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.errors import (
    ClientClosedError,
    InvalidFieldError,
    WalletError,
    WalletRefusedError,
    WalletSignatureError,
    WalletTimeoutError,
    WrongSignerError,
)
from dan_async.wallets import CallbackWallet, LocalWallet
from dan_async.wallets.base import EoaAuth
from tests.unit.crypto.vectors import WALLET_CASES, name

OWNER = LocalWallet(bytes(range(1, 33)))
OTHER = LocalWallet(bytes(range(2, 34)))
TYPED_DATA = WALLET_CASES[0]["wallet"]["typed_data"]
CHALLENGE = TYPED_DATA["message"]["challenge"]


def answering(answer):
    """Authorisation by a wallet that gives this answer, or raises it."""

    async def sign(typed_data):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return EoaAuth(CallbackWallet(OWNER.address, sign))


async def authorise(auth, typed_data=TYPED_DATA):
    """Run it."""
    return await auth.authorise(challenge=CHALLENGE, typed_data=typed_data)


@pytest.mark.parametrize("case", WALLET_CASES, ids=name)
async def test_recorded_authorisations_come_out_again(case):
    """The signature member of every recorded authentication object."""
    auth = EoaAuth(LocalWallet(case["inputs"]["eoa_private_key"]), timeout_s=5)
    assert await authorise(auth, case["wallet"]["typed_data"]) == case["wallet"]["signature"]
    assert auth.id == case["wallet"]["from"]


def test_it_is_the_method_eoa_and_as_interactive_as_its_wallet():
    """What the wire and the jobs look at."""
    assert EoaAuth(OWNER).method == "eoa"
    assert EoaAuth(OWNER).interactive is False
    assert answering("").interactive is True
    assert repr(EoaAuth(OWNER)) == f"EoaAuth(id='{OWNER.address}', interactive=False)"


def test_the_id_is_checksummed():
    """A wallet of the user's own may give its address in lower case."""

    class LowerCaseWallet:
        address = OWNER.address.lower()
        interactive = False

    assert EoaAuth(LowerCaseWallet()).id == OWNER.address


@pytest.mark.parametrize("address", ["", "0x12", None, "me"])
def test_a_wallet_without_an_address_is_refused(address):
    """Before anything is asked."""

    class Nobody:
        interactive = False

    Nobody.address = address
    with pytest.raises(InvalidFieldError, match=r"wallet\.address must be an address"):
        EoaAuth(Nobody())


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), True, "5"])
def test_a_wrong_timeout_is_refused(timeout_s):
    """Before anything is asked."""
    with pytest.raises(InvalidFieldError, match="timeout_s"):
        EoaAuth(OWNER, timeout_s=timeout_s)


async def high_s_and_recovery_id():
    """The same signature in the form of some hardware keys: high s, v 0 or 1, no 0x, upper case."""
    raw = bytes.fromhex((await OWNER.sign_typed_data(TYPED_DATA))[2:])
    s = ORDER - int.from_bytes(raw[32:64], "big")
    return (raw[:32] + s.to_bytes(32, "big") + bytes([28 - raw[64]])).hex().upper()


async def test_a_signature_in_another_form_is_given_the_one_form():
    """Low s, v 27 or 28, 0x and lower case."""
    auth = answering(await high_s_and_recovery_id())
    assert await authorise(auth) == await OWNER.sign_typed_data(TYPED_DATA)


async def test_a_local_key_signs_what_was_hashed_once(monkeypatch):
    """The typed data of an authorisation is hashed a single time."""
    hashed = []

    def count(typed_data):
        hashed.append(typed_data)
        return typed_data_digest(typed_data)

    monkeypatch.setattr("dan_async.wallets.base.typed_data_digest", count)
    monkeypatch.setattr("dan_async.wallets.local_key.typed_data_digest", count)
    assert await authorise(EoaAuth(OWNER)) == await OWNER.sign_typed_data(TYPED_DATA)
    assert len(hashed) == 2  # one of them by the line above


async def test_a_local_key_is_checked_like_any_wallet():
    """What it signed must be the owner's signature, whoever holds the key."""
    wallet = LocalWallet(bytes(range(1, 33)))
    auth = EoaAuth(wallet)
    wallet._key = OTHER._key
    with pytest.raises(WrongSignerError, match=OTHER.address):
        await authorise(auth)


async def test_a_wallet_derived_from_a_local_key_is_asked():
    """It may ask somebody first; its own method signs, within its limit."""

    class Asking(LocalWallet):
        asked = 0

        async def sign_typed_data(self, typed_data):
            type(self).asked += 1
            return await super().sign_typed_data(typed_data)

    assert await authorise(EoaAuth(Asking(bytes(range(1, 33))))) == await OWNER.sign_typed_data(TYPED_DATA)
    assert Asking.asked == 1


async def test_another_signer_is_named():
    """Both addresses stand in the error."""
    auth = answering(await OTHER.sign_typed_data(TYPED_DATA))
    with pytest.raises(WrongSignerError) as caught:
        await authorise(auth)
    assert OTHER.address in str(caught.value)
    assert OWNER.address in str(caught.value)
    assert caught.value.phase == "wallet"


async def test_a_signature_over_something_else_is_refused():
    """The owner's signature over another challenge is not this authorisation."""
    other = {**TYPED_DATA, "message": {**TYPED_DATA["message"], "challenge": "00" * 32}}
    assert typed_data_digest(other) != typed_data_digest(TYPED_DATA)
    with pytest.raises(WrongSignerError):
        await authorise(answering(await OWNER.sign_typed_data(other)))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "0x",
        "0x" + "11" * 64,
        "0x" + "11" * 66,
        "0x" + "11" * 65,
        "0x" + "00" * 64 + "1b",
        "0x" + "ff" * 64 + "1b",
        "0x" + "zz" * 65,
        "signature",
        None,
        5,
        b"\x11" * 65,
        {"signature": "0x"},
    ],
)
async def test_what_is_no_signature_is_refused(answer):
    """The compact form of EIP-2098, the answers of contract wallets, and everything else."""
    with pytest.raises(WalletSignatureError, match="the wallet's answer is not a signature") as caught:
        await authorise(answering(answer))
    assert caught.value.phase == "wallet"
    assert "11" * 20 not in str(caught.value)


async def test_a_signature_as_bytes_is_refused():
    """A wallet answers with text, as its protocol says; a valid signature in another type is still a mistake."""
    with pytest.raises(WalletSignatureError, match="must be hex text, not bytes"):
        await authorise(answering(bytes.fromhex((await OWNER.sign_typed_data(TYPED_DATA))[2:])))


async def test_a_signature_of_no_key_is_refused():
    """65 bytes whose r is no x coordinate."""
    answer = "0x" + (5).to_bytes(32, "big").hex() + "11" * 32 + "1b"
    with pytest.raises(WalletSignatureError, match="belongs to no public key"):
        await authorise(answering(answer))


@pytest.mark.parametrize(
    "error", [WalletRefusedError("no"), WalletTimeoutError("late"), ClientClosedError("shut")]
)
async def test_our_own_errors_pass(error):
    """A wallet that says what is wrong is believed."""
    with pytest.raises(type(error)) as caught:
        await authorise(answering(error))
    assert caught.value is error


@pytest.mark.parametrize(
    "error", [LookupError("secret words"), OSError(5, "secret words"), RuntimeError("secret words")]
)
async def test_a_wallet_that_fails_is_an_error_of_the_wallet(error):
    """Named by its type; its words are left to its own traceback."""
    with pytest.raises(WalletError, match=type(error).__name__) as caught:
        await authorise(answering(error))
    assert type(caught.value) is WalletError
    assert caught.value.__cause__ is error
    assert "secret words" not in str(caught.value)


async def test_a_wallet_that_gives_up_by_itself_is_a_timeout():
    """Its TimeoutError is ours, without a limit that we did not set."""
    with pytest.raises(WalletTimeoutError, match="did not sign") as caught:
        await authorise(answering(TimeoutError()))
    assert "within" not in str(caught.value)


async def test_a_wallet_that_hangs_times_out_and_is_ended():
    """The limit is named, and the wallet's coroutine has ended when the error comes."""
    ended = asyncio.Event()

    async def hangs(typed_data):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    auth = EoaAuth(CallbackWallet(OWNER.address, hangs), timeout_s=0.01)
    with pytest.raises(WalletTimeoutError, match=r"within 0\.01 s"):
        await authorise(auth)
    assert ended.is_set()


async def test_cancelling_passes():
    """A cancelled job is cancelled, not failed, and the wallet's coroutine has ended."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def reads(typed_data):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(authorise(EoaAuth(CallbackWallet(OWNER.address, reads), timeout_s=60)))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_a_wallet_waited_for_was_cancelled():
    """As when its page went away: the wallet has failed, and the job was not cancelled."""

    async def waits(typed_data):
        page = asyncio.get_running_loop().create_future()
        page.cancel()
        return await page

    task = asyncio.create_task(authorise(EoaAuth(CallbackWallet(OWNER.address, waits), timeout_s=60)))
    await asyncio.wait([task])
    assert not task.cancelled()
    assert type(task.exception()) is WalletError
    assert "CancelledError" in str(task.exception())


async def test_malformed_typed_data_never_reaches_the_wallet():
    """It is hashed before the wallet is asked."""
    asked = []

    async def sign(typed_data):
        asked.append(typed_data)

    broken = {**TYPED_DATA, "message": {}}
    with pytest.raises(InvalidFieldError, match=r"message\.setup is missing"):
        await authorise(EoaAuth(CallbackWallet(OWNER.address, sign)), broken)
    assert asked == []
