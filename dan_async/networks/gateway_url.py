"""What a gateway's URL and revision may be."""

from __future__ import annotations

import re
from typing import get_args
from urllib.parse import urlsplit

from dan_async.config import check_url
from dan_async.errors import InvalidFieldError
from dan_async.wire.codec import ApiVersion, Revision, module_for

__all__ = ["check_gateway_revision", "check_gateway_url"]

_VERSION_SEGMENT = re.compile(r"/(v[0-9]+)\Z")


def check_gateway_url(name: str, url: object, api_version: str) -> str:
    """
    Check a gateway's URL.

    Args:
        name: The field's name, for the error.
        url: ``wss://…``, or ``ws://…`` to loopback; it ends with its version segment.
        api_version: The version it must end with.

    Returns:
        The URL without a trailing slash.

    Raises:
        InvalidFieldError: It is not such a URL. It is not repeated, since it may carry credentials.
        InsecureTransportError: It has no TLS and its host is not loopback.
    """
    checked = check_url(name, url, schemes=("wss", "ws"))
    found = _VERSION_SEGMENT.search(urlsplit(checked).path)
    if found is None:
        raise InvalidFieldError(
            name,
            "must end with the version segment of the gateway's API",
            hint=f"For example wss://gateway.example/{api_version}",
        )
    if found[1] != api_version:
        raise InvalidFieldError(
            name,
            f"ends with /{found[1]}, and api_version is {api_version}",
            hint=f"Give the URL that ends with /{api_version}, or the other api_version",
        )
    return checked


def check_gateway_revision(revision: str | None, api_version: str) -> Revision | None:
    """
    Check that a revision exists in a form.

    Args:
        revision: The revision; None if it is to be found out.
        api_version: ``v1`` or ``v2``.

    Returns:
        The revision, which ``v2`` implies; None if it is to be found out.

    Raises:
        InvalidFieldError: One does not exist, or they do not go together; the field is revision or api_version.
    """
    if api_version not in get_args(ApiVersion):
        raise InvalidFieldError("api_version", "must be v1 or v2")
    if revision is None:
        return Revision.V1 if api_version == "v2" else None
    module = module_for(revision)
    if api_version not in module.API_VERSIONS:
        raise InvalidFieldError(
            "api_version", f"must be v1 in revision {revision}", hint="v2 exists in revision 1 only"
        )
    return Revision(revision)
