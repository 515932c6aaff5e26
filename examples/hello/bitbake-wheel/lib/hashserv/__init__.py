"""Stands in for BitBake's hash equivalence service, which the wheel leaves out."""

from __future__ import annotations

import re
from typing import Any, NoReturn

__all__ = ["create_client", "create_server", "is_valid_unihash"]

UNAVAILABLE = (
    "The hash equivalence server is not part of the BitBake wheel: leave BB_HASHSERVE unset, "
    "or use BitBake from its git repository."
)


def is_valid_unihash(value: object) -> bool:
    """Tell whether `value` is a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def create_server(*_args: Any, **_kwargs: Any) -> None:
    """Stop with a clear message where BitBake would start a server."""
    import bb  # noqa: PLC0415 - bb imports this module before it is complete itself

    bb.fatal(UNAVAILABLE)


def create_client(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Refuse in the way in which BitBake's callers expect a missing service."""
    raise ConnectionError(UNAVAILABLE)
