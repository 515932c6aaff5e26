"""Build ids: `<customer>-<8 hex>`, fit for paths, container names and labels."""

from __future__ import annotations

import re
import secrets
from typing import Final

from smidr_ci.errors import UsageError

__all__ = ["check_build_id", "check_customer", "customer_of", "new_build_id"]

_CUSTOMER: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,46}[a-z0-9])?", re.ASCII)
_BUILD_ID: Final = re.compile(rf"(?P<customer>{_CUSTOMER.pattern})-[0-9a-f]{{8}}", re.ASCII)


def check_customer(name: str) -> str:
    """The name itself when it can stand in ids and paths; else raises `UsageError`."""
    if _CUSTOMER.fullmatch(name) is None:
        raise UsageError(
            f"{name[:80]!r} can't be a customer's name",
            hint="Use 1 to 48 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends.",
        )
    return name


def check_build_id(text: str) -> str:
    """The id itself when it has the form of one, and so is safe in a path; else `UsageError`."""
    if _BUILD_ID.fullmatch(text) is None:
        raise UsageError(
            f"{text[:80]!r} is no build id",
            hint="A build id looks like acme-1a2b3c4d; 'smidr list' shows them.",
        )
    return text


def customer_of(build_id: str) -> str:
    """The customer in a build id; raises `UsageError` when it is none."""
    return check_build_id(build_id).rpartition("-")[0]


def new_build_id(customer: str) -> str:
    """A random id; `Ownership.reserve` makes sure that nobody else has drawn it."""
    return f"{check_customer(customer)}-{secrets.token_hex(4)}"
