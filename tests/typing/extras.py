"""What a caller's types see only where an extra is installed: other libraries' classes. Checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

from eth_account.datastructures import SignedMessage, SignedTransaction

from dan_async import DanClient, DanSessionKeyPayload
from dan_async.account import DanAccount


async def account(dan: DanClient, session: DanSessionKeyPayload) -> None:
    """An account for eth-account's users gives what theirs give."""
    signer = DanAccount(dan, session)
    assert_type(await signer.sign_transaction({"nonce": 0}), SignedTransaction)
    assert_type((await signer.sign_transaction({"nonce": 0})).r, int)
    assert_type(await signer.sign_typed_data(full_message={}), SignedMessage)
