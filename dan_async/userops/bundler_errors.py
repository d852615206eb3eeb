"""
What the codes of entry points, bundlers and paymasters mean, in plain words, and what to do.

The AA codes are those of the EntryPoint contracts v0.6 and v0.7, the numbers those of ERC-7769 and of JSON-RPC. Decided by
code; a text is only searched for the AA code that bundlers put into it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dan_async.errors import BundlerError, PaymasterError, RpcError

__all__ = ["ENTRY_POINT_CODES", "RPC_CODES", "Explanation", "bundler_error", "entry_point_code"]

_CODE = re.compile(r"\bAA[0-9]{2}\b")
_LONGEST_TEXT = 300


class Explanation(NamedTuple):
    """
    What a code means.

    Args:
        meaning: What happened.
        hint: What to do.
    """

    meaning: str
    hint: str


#: Code of the entry point -> what it means.
ENTRY_POINT_CODES: dict[str, Explanation] = {
    "AA10": Explanation(
        "the account is deployed already, and the operation wants to deploy it",
        "Leave initCode (factory and factoryData) away",
    ),
    "AA13": Explanation(
        "the factory failed, or ran out of gas",
        "Check the factory's address and call; give more verificationGasLimit",
    ),
    "AA14": Explanation(
        "the factory made an account at another address than the sender",
        "Check the sender: owner, salt and factory decide about the address",
    ),
    "AA15": Explanation("the factory made no account", "Check the factory's address and call"),
    "AA20": Explanation(
        "the account is not deployed", "Deploy it with the first operation: give factory and factoryData"
    ),
    "AA21": Explanation(
        "the account cannot pay for the gas",
        "Send it some of the chain's currency, deposit for it in the entry point, or have a paymaster pay",
    ),
    "AA22": Explanation(
        "the signature has expired, or is not valid yet",
        "Sign anew; compare the session's validity with the chain's time",
    ),
    "AA23": Explanation(
        "the account's own check failed, or ran out of gas",
        "Look at the signature's form and the account's modules; give more verificationGasLimit",
    ),
    "AA24": Explanation(
        "the account does not accept the signature",
        "Check that the session key is the account's owner, and that chain, entry point and its version are right",
    ),
    "AA25": Explanation(
        "the nonce is not the next one of its lane",
        "Another operation was quicker, or this one is on the chain already; fetch the nonce again",
    ),
    "AA26": Explanation("checking took more gas than allowed", "Give more verificationGasLimit"),
    "AA30": Explanation("the paymaster is not deployed", "Check its address and the chain"),
    "AA31": Explanation("the paymaster's deposit is too low", "Whoever runs the paymaster must refill it"),
    "AA32": Explanation(
        "the paymaster's promise has expired, or is not valid yet", "Ask the paymaster again"
    ),
    "AA33": Explanation(
        "the paymaster's check failed, or ran out of gas",
        "Ask the paymaster again; give more verification gas for it",
    ),
    "AA34": Explanation(
        "the paymaster's signature does not fit the operation",
        "Change nothing after the paymaster has signed; ask it again",
    ),
    "AA36": Explanation(
        "the paymaster's check took more gas than allowed", "Give more paymasterVerificationGasLimit"
    ),
    "AA40": Explanation("checking took more gas than allowed", "Give more verificationGasLimit"),
    "AA41": Explanation("too little gas was left for the check", "Give more verificationGasLimit"),
    "AA50": Explanation(
        "the paymaster failed after the calls were made",
        "The paymaster could not collect what it is owed; look at token balance and allowance",
    ),
    "AA51": Explanation(
        "the gas cost more than was set aside", "Give more preVerificationGas or a higher maxFeePerGas"
    ),
    "AA90": Explanation("the bundler named no beneficiary", "A fault of the bundler: use another one"),
    "AA91": Explanation("the bundler could not be paid", "A fault of the bundler: use another one"),
    "AA92": Explanation("an internal function was called from outside", "A fault of the bundler"),
    "AA93": Explanation(
        "paymasterAndData is too short",
        "It is an address, in v0.7 two gas limits of 16 bytes, then the paymaster's data",
    ),
    "AA94": Explanation("a gas value is too large", "Gas values have at most 120 bits"),
    "AA95": Explanation(
        "the bundle ran out of gas", "Give less callGasLimit, or ask the bundler to try again"
    ),
    "AA96": Explanation("the signature aggregator is not valid", "Use an account without an aggregator"),
}

#: JSON-RPC error code -> what it means.
RPC_CODES: dict[int, Explanation] = {
    -32500: Explanation("the entry point rejects the operation", "Look at the entry point's code"),
    -32501: Explanation("the paymaster rejects the operation", "Ask the paymaster again, or do without one"),
    -32502: Explanation(
        "the account or paymaster does in its check what the rules for bundlers forbid (ERC-7562)",
        "Use other contracts, or a bundler that does not insist",
    ),
    -32503: Explanation(
        "the operation expires too soon, or is not valid yet", "Sign anew, with a longer validity"
    ),
    -32504: Explanation(
        "the bundler has throttled or banned the paymaster, factory or account", "Wait, or use another one"
    ),
    -32505: Explanation("a stake is too low or may be withdrawn too soon", "Whoever runs it must stake more"),
    -32506: Explanation("the bundler does not know the signature aggregator", "Use an account without one"),
    -32507: Explanation(
        "the account or paymaster does not accept the signature",
        "Check the owner, the chain, and the entry point and its version",
    ),
    -32508: Explanation(
        "the paymaster's deposit does not cover all its waiting operations", "Wait, or use another paymaster"
    ),
    -32521: Explanation("the account's calls would be reverted", "Look at the calls: one of them fails"),
    -32600: Explanation("the request is not accepted", "Check the URL: is it a bundler's?"),
    -32601: Explanation("the method is not known there", "Check the URL: is it the right service?"),
    -32602: Explanation(
        "a field of the operation is missing or wrong for this entry point",
        "Check the entry point's version and that it is supported there",
    ),
    -32603: Explanation("something failed inside the service", "Try again later"),
    -32001: Explanation("access is denied", "Check the API key and the service's policy"),
    -32003: Explanation("the service is unavailable, or rejects the transaction", "Try again later"),
    -32005: Explanation("a limit of the service is exceeded", "Wait, or ask its operator for more"),
}


def entry_point_code(error: RpcError) -> str | None:
    """Give the AA code that an error's text carries, if there is one."""
    found = _CODE.search(error.message) or _CODE.search(str(error.data.get("reason", "")))
    return found[0] if found else None


def bundler_error(
    error: RpcError, *, service: str, method: str, user_operation_hash: str | None = None
) -> BundlerError:
    """
    Put a service's error into plain words.

    Args:
        error: What it answered.
        service: Who: ``"bundler"``, ``"paymaster"`` or ``"node"``.
        method: What was asked.
        user_operation_hash: The operation concerned.

    Returns:
        The error to raise: ``PaymasterError`` for what is the paymaster's doing.
    """
    code = entry_point_code(error)
    known = ENTRY_POINT_CODES.get(code or "") or RPC_CODES.get(error.code)
    is_paymaster = (
        service == "paymaster" or error.code in (-32501, -32508) or (code or "").startswith(("AA3", "AA50"))
    )
    named = f"error {error.code}" + (f", {code}" if code else "")
    words = error.message[:_LONGEST_TEXT]
    message = f"{known.meaning} ({named})" if known else f"it answered with {named}"
    return (PaymasterError if is_paymaster else BundlerError)(
        f"the {service} refused {method}: {message}. Its words: {words}",
        hint=known.hint if known else "The text is the service's own",
        service=service,
        code=error.code,
        entry_point_code=code,
        user_operation_hash=user_operation_hash,
    )
