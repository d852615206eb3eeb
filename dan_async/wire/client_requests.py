"""The client's beginning of each operation: checks that the revision can carry it, and builds its texts once."""

from __future__ import annotations

from collections.abc import Sequence

from dan_async.errors import InvalidFieldError
from dan_async.models.claim import EphemeralClaim
from dan_async.models.threshold import Threshold
from dan_async.types import KeyAlgorithm
from dan_async.wire.client_exchange import (
    EphemeralKeyExchange,
    KeygenExchange,
    PasskeyExchange,
    SigngenExchange,
)
from dan_async.wire.passkey import PasskeySetup
from dan_async.wire.revisions import (
    MAIN,
    ApiVersion,
    Operation,
    Revision,
    check_operation,
    encode_setup,
    ephemeral_key_module_for,
    module_for,
)
from dan_async.wire.sign_request import SignRequest

__all__ = ["ephemeral_key_exchange", "keygen_exchange", "passkey_exchange", "signgen_exchange"]


#: What every revision makes keys for.
_USUAL: tuple[KeyAlgorithm, ...] = ("secp256k1",)


def keygen_exchange(
    revision: Revision | str,
    *,
    threshold: Threshold,
    claim: EphemeralClaim,
    permissions: str | None = None,
    key_label: str | None = None,
    sign_algs: Sequence[KeyAlgorithm] = ("secp256k1",),
    api_version: ApiVersion = "v1",
) -> KeygenExchange:
    """
    Begin a key generation.

    Args:
        revision: The revision to speak.
        threshold: t and n.
        claim: The ephemeral key that the owner vouches for.
        permissions: JSON text that limits what the keys may sign.
        key_label: A label kept with the keys.
        sign_algs: The algorithms to make a key for, each once; only revision 1 does more than secp256k1.
        api_version: ``v2`` for one-shot, which only revision 1 has and which no challenge protects against replay.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, operation = check_operation(revision, Operation.KEYGEN, api_version)
    module = module_for(found)
    algorithms = tuple(sign_algs)
    if algorithms != _USUAL and (
        not algorithms
        or len(set(algorithms)) != len(algorithms)
        or not set(algorithms) <= set(module.SIGN_ALGORITHMS)
    ):
        raise InvalidFieldError(
            "sign_algs", f"must be {' or '.join(module.SIGN_ALGORITHMS)}, each once, in revision {found}"
        )
    setups = tuple(
        module.keygen_setup(
            threshold=threshold, claim=claim, permissions=permissions, key_label=key_label, sign_alg=algorithm
        )
        for algorithm in algorithms
    )
    return KeygenExchange(
        revision=found,
        operation=operation,
        api_version=api_version,
        slots=algorithms,
        setups=setups,
        setup_texts=tuple(module.encode_keygen_setup(setup) for setup in setups),
    )


def signgen_exchange(
    revision: Revision | str,
    *,
    t: int,
    key_id: str,
    requests: Sequence[SignRequest],
    sign_alg: KeyAlgorithm = "secp256k1",
    api_version: ApiVersion = "v1",
) -> SigngenExchange:
    """
    Begin a signature.

    Args:
        revision: The revision to speak.
        t: How many parties sign.
        key_id: The key.
        requests: What to sign: one message before revision 1.
        sign_alg: The key's algorithm.
        api_version: ``v2`` for one-shot.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, operation = check_operation(revision, Operation.SIGNGEN, api_version)
    module = module_for(found)
    setup = module.signgen_setup(
        t=t, key_id=key_id, message=module.encode_message(requests), sign_alg=sign_alg
    )
    names = tuple(request.transaction_id for request in requests)
    return SigngenExchange(
        revision=found,
        operation=operation,
        api_version=api_version,
        slots=(sign_alg,),
        setups=(setup,),
        setup_texts=(module.encode_signgen_setup(setup),),
        transaction_ids=names if found is Revision.V1 else (None,),
    )


def ephemeral_key_exchange(
    revision: Revision | str,
    operation: Operation | str,
    *,
    claim: EphemeralClaim,
    key_id: str,
    n: int,
    api_version: ApiVersion = "v1",
) -> EphemeralKeyExchange:
    """
    Begin to add an ephemeral key to a key, or to revoke it.

    Args:
        revision: The revision to speak: 0.3 or 1.
        operation: ``addEphemeralKey`` or ``revokeEphemeralKey``.
        claim: The ephemeral key.
        key_id: The key.
        n: How many parties hold it; revision 0.3 sends it.
        api_version: ``v2`` for one-shot.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, known = check_operation(revision, operation, api_version)
    if known not in (Operation.ADD_EPHEMERAL_KEY, Operation.REVOKE_EPHEMERAL_KEY):
        raise InvalidFieldError("operation", "must be addEphemeralKey or revokeEphemeralKey")
    setup = ephemeral_key_module_for(found).ephemeral_key_setup(claim=claim, key_id=key_id, n=n)
    return EphemeralKeyExchange(
        revision=found,
        operation=known,
        api_version=api_version,
        slots=(MAIN,),
        setups=(setup,),
        setup_texts=(encode_setup(found, setup),),
    )


def passkey_exchange(
    revision: Revision | str = Revision.V1, *, options: str | None = None, api_version: ApiVersion = "v1"
) -> PasskeyExchange:
    """
    Begin to register a passkey.

    Args:
        revision: The revision to speak: 1.
        options: A text that the network may keep with it.
        api_version: ``v2`` for one-shot.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, operation = check_operation(revision, Operation.REGISTER_PASSKEY, api_version)
    setup = PasskeySetup(options=options)
    return PasskeyExchange(
        revision=found,
        operation=operation,
        api_version=api_version,
        slots=(MAIN,),
        setups=(setup,),
        setup_texts=(encode_setup(found, setup),),
    )
