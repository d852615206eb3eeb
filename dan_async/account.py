"""
DanAccount: a session's key as an account for users of eth-account and web3.py (extra ``eth-account``).

The methods are those of eth-account's ``LocalAccount`` and return the same objects, but they are coroutines: signatures are
made by t nodes. Transactions are encoded by eth-account itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dan_async._values import check_instance, check_mapping, from_hex, number_of
from dan_async.client import DanClient
from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.hashes import keccak256, takes_long
from dan_async.crypto.signature import personal_message_digest
from dan_async.errors import DanError, InvalidFieldError, require_extra
from dan_async.jobs.sign_message import check_chain
from dan_async.session import DanModuleInfo, session_of
from dan_async.types import Address, TimeSpan, TypedData

if TYPE_CHECKING:
    from eth_account.datastructures import SignedMessage, SignedSetCodeAuthorization, SignedTransaction
    from eth_account.messages import SignableMessage

__all__ = ["DanAccount"]

_PERSONAL, _TYPED = b"E", b"\x01"

#: The type of a transaction with blobs (EIP-4844), whose gas has a price of its own.
_BLOBS = 3

_LONGEST_PROBLEM = 300
_read_quantity = number_of(256)


class DanAccount:
    """
    An account whose key is distributed over the nodes.

    Args:
        client: An open client. It is not closed.
        session: The session, in any form that ``sign_message`` takes.
        timeout: Seconds for each signature, instead of the client's.

    Raises:
        MissingExtraError: eth-account is not installed.
        InvalidFieldError: A parameter is wrong.

    Example::

        account = DanAccount(dan, session)
        signed = await account.sign_transaction(transaction)
        await w3.eth.send_raw_transaction(signed.raw_transaction)
    """

    __slots__ = ("_client", "_session", "_timeout")

    def __init__(
        self,
        client: DanClient,
        session: DanModuleInfo | Mapping[str, Any],
        *,
        timeout: TimeSpan | None = None,
    ) -> None:
        require_extra("eth_account", extra="eth-account", purpose="DanAccount")
        self._client = check_instance("client", client, DanClient, "a DanClient")
        self._session = session_of(session)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"DanAccount({self.address})"

    @property
    def address(self) -> Address:
        """The account's address, EIP-55: the session's."""
        return self._session.session_key_eoa

    async def sign_message(self, signable_message: SignableMessage) -> SignedMessage:
        """
        Sign an EIP-191 message.

        Args:
            signable_message: The result of eth-account's ``encode_defunct``. That of ``encode_typed_data`` holds only
                hashes and is refused, unless the session has no chain: give ``sign_typed_data`` the data itself.

        Returns:
            The same as eth-account's: message_hash, r, s, v and signature.

        Raises:
            InvalidFieldError: It is not such a message, or typed data whose chain cannot be read.
            DanError: As for ``DanClient.sign_message``.
        """
        try:
            version, header, body = (bytes(part) for part in signable_message)
            (_,) = version  # one byte, or the same digest could be cut into other parts
        except (TypeError, ValueError):
            raise InvalidFieldError(
                "signable_message",
                "must be a SignableMessage of eth-account",
                hint="encode_defunct(text=…) makes one; DanClient.sign_message takes plain text",
            ) from None
        digest = keccak256(b"\x19" + version + header + body)
        if version == _TYPED and self._session.chain_id is not None:
            raise InvalidFieldError(
                "signable_message",
                "is typed data as hashes, from which the chain cannot be read",
                hint="sign_typed_data() checks it; unsafe_sign_hash() signs any digest",
            )
        if version == _PERSONAL and digest == personal_message_digest(body):
            return _signed_message(digest, await self._sign(body, "EIP191"))
        return await self.unsafe_sign_hash(digest)

    async def sign_typed_data(
        self,
        domain_data: Mapping[str, Any] | None = None,
        message_types: Mapping[str, Any] | None = None,
        message_data: Mapping[str, Any] | None = None,
        full_message: TypedData | None = None,
        *,
        chain_id: int | None = None,
    ) -> SignedMessage:
        """
        Sign EIP-712 typed data: as three parts, or whole.

        Args:
            domain_data: The domain.
            message_types: The types, without EIP712Domain.
            message_data: The message.
            full_message: types, primaryType, domain and message, instead of the other three.
            chain_id: The chain that its domain may name instead of the session's; 0 for the chain 0.

        Returns:
            The same as eth-account's.

        Raises:
            InvalidFieldError: It is not well-formed typed data, and the field is named; or it is for another chain.
            DanError: As for ``DanClient.sign_message``.
        """
        parts = (domain_data, message_types, message_data)
        if full_message is None:
            if not all(isinstance(part, Mapping) for part in parts):
                raise InvalidFieldError("typed_data", "must be full_message, or all three parts of it")
            full_message = {
                "types": message_types,
                "primaryType": _primary_type(message_types),
                "domain": domain_data,
                "message": message_data,
            }
        elif any(part is not None for part in parts):
            raise InvalidFieldError("full_message", "is given as well as a part of it")
        if takes_long(full_message):
            digest = await asyncio.to_thread(typed_data_digest, full_message)
        else:
            digest = typed_data_digest(full_message)
        return _signed_message(digest, await self._sign(full_message, "EIP712", chain_id))

    async def unsafe_sign_hash(self, message_hash: bytes | str) -> SignedMessage:
        """
        Sign 32 bytes as they are. They may stand for anything, such as a transaction that empties the account.

        Args:
            message_hash: The bytes, or their hex.

        Returns:
            The signature, as eth-account returns it.

        Raises:
            InvalidFieldError: They are not 32 bytes.
            DanError: As for ``DanClient.sign_message``.
        """
        if isinstance(message_hash, str):
            message_hash = from_hex(message_hash, field="message_hash")
        if not isinstance(message_hash, bytes) or len(message_hash) != 32:
            raise InvalidFieldError("message_hash", "must be 32 bytes or their hex")
        raw = bytes(message_hash)
        return _signed_message(raw, await self._sign(raw, "rawBytes"))

    async def sign_transaction(
        self, transaction_dict: Mapping[str, Any], *, chain_id: int | None = None
    ) -> SignedTransaction:
        """
        Sign a transaction of any type that eth-account encodes without blobs: legacy, 2930, 1559, 7702.

        Args:
            transaction_dict: As for eth-account. ``from`` may be there if it is this account's address.
            chain_id: The chain that it may be for instead of the session's; 0 for a legacy transaction that names none
                and is valid on every chain.

        Returns:
            The same as eth-account's: raw_transaction, hash, r, s and v.

        Raises:
            InvalidFieldError: eth-account does not take it, or it is for another chain; nothing was sent.
            DanError: As for ``DanClient.sign_message``.
        """
        from eth_account._utils.legacy_transactions import (
            Transaction,
            encode_transaction,
            serializable_unsigned_transaction_from_dict,
        )
        from eth_account._utils.signing import to_eth_v
        from eth_account.datastructures import SignedTransaction
        from eth_account.typed_transactions.typed_transaction import TypedTransaction
        from hexbytes import HexBytes

        unsigned = self._encoded(transaction_dict, serializable_unsigned_transaction_from_dict)
        is_typed = isinstance(unsigned, TypedTransaction)
        if is_typed and unsigned.transaction_type == _BLOBS:
            raise InvalidFieldError("type", "is 3: a transaction with blobs is not signed here")
        # EIP-155: a legacy transaction may name its chain, in place of v.
        legacy_chain = unsigned.v if isinstance(unsigned, Transaction) else None
        chain = unsigned.as_dict()["chainId"] if is_typed else legacy_chain or 0
        check_chain(chain, self._session, chain_id)
        signed = _signed_message(bytes(unsigned.hash()), await self._sign(bytes(unsigned.hash()), "rawBytes"))
        parity = signed.v - 27
        v = parity if is_typed else to_eth_v(parity, legacy_chain)
        raw = encode_transaction(unsigned, vrs=(v, signed.r, signed.s))
        return SignedTransaction(
            raw_transaction=HexBytes(raw), hash=HexBytes(keccak256(raw)), r=signed.r, s=signed.s, v=v
        )

    async def sign_authorization(
        self, authorization: Mapping[str, Any], *, chain_id: int | None = None
    ) -> SignedSetCodeAuthorization:
        """
        Sign an EIP-7702 authorisation: that this account runs the code of another.

        Args:
            authorization: chainId, address and nonce, as for eth-account.
            chain_id: The chain that it may be for instead of the session's; 0 for one that holds on every chain.

        Returns:
            The same as eth-account's, for a transaction's ``authorizationList``.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong, or it is for another chain; nothing was sent.
            DanError: As for ``DanClient.sign_message``.
        """
        from eth_account.datastructures import SignedSetCodeAuthorization
        from eth_account.typed_transactions.set_code_transaction import Authorization
        from eth_keys.datatypes import Signature
        from hexbytes import HexBytes

        if not isinstance(authorization, Mapping) or set(authorization) != {"chainId", "address", "nonce"}:
            raise InvalidFieldError("authorization", "must have chainId, address and nonce")
        chain, nonce = (_read_quantity(name, authorization[name]) for name in ("chainId", "nonce"))
        check_chain(chain, self._session, chain_id)
        given = authorization["address"]
        address = from_hex(
            parse_address("address", given if isinstance(given, str) else "0x" + bytes(given).hex()),
            field="address",
        )
        digest = bytes(Authorization(chain, address, nonce).hash())
        signed = _signed_message(digest, await self._sign(digest, "rawBytes"))
        return SignedSetCodeAuthorization(
            chain_id=chain,
            address=address,
            nonce=nonce,
            y_parity=signed.v - 27,
            r=signed.r,
            s=signed.s,
            signature=Signature(vrs=(signed.v - 27, signed.r, signed.s)),
            authorization_hash=HexBytes(digest),
        )

    async def _sign(self, message: Any, request_type: str, chain_id: int | None = None) -> bytes:
        signature = await self._client.sign_message(
            message, self._session, request_type=request_type, chain_id=chain_id, timeout=self._timeout
        )
        return bytes.fromhex(signature[2:])

    def _encoded(self, transaction_dict: Mapping[str, Any], encode: Any) -> Any:
        check_mapping("transaction_dict", transaction_dict, "a dict")
        if "from" in transaction_dict and transaction_dict["from"] != self.address:
            raise InvalidFieldError("from", f"must be this account's address, {self.address}")
        try:
            return encode({name: value for name, value in transaction_dict.items() if name != "from"})
        except DanError:
            raise
        except Exception as error:  # eth-account raises many kinds for a wrong transaction
            problem = f"{type(error).__name__}: {error}"[:_LONGEST_PROBLEM]
            raise InvalidFieldError(
                "transaction_dict", f"is not one that eth-account encodes ({problem})"
            ) from error


def _signed_message(digest: bytes, signature: bytes) -> SignedMessage:
    from eth_account.datastructures import SignedMessage
    from hexbytes import HexBytes

    return SignedMessage(
        message_hash=HexBytes(digest),
        r=int.from_bytes(signature[:32], "big"),
        s=int.from_bytes(signature[32:64], "big"),
        v=signature[64],
        signature=HexBytes(signature),
    )


def _primary_type(types: Any) -> str:
    """Find the one type that no other refers to, as eth-account does."""
    try:
        used = {
            member["type"].split("[")[0]
            for name, members in types.items()
            for member in members
            if member["type"].split("[")[0] != name
        }
    except (TypeError, KeyError, AttributeError):
        raise InvalidFieldError(
            "message_types", "must be lists of objects with name and type, by name"
        ) from None
    roots = [name for name in types if name not in used and name != "EIP712Domain"]
    if len(roots) != 1:
        raise InvalidFieldError("message_types", "must have one type that no other refers to")
    return str(roots[0])
