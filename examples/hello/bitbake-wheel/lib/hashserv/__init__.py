"""Stands in for BitBake's hash equivalence service, which the wheel leaves out."""

import re

UNAVAILABLE = (
    "The hash equivalence server is not part of the BitBake wheel: leave BB_HASHSERVE unset, "
    "or use BitBake from its git repository."
)


def is_valid_unihash(value):
    """Tell whether `value` is a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def create_server(*_args, **_kwargs):
    """Stop with a clear message where BitBake would start a server."""
    import bb

    bb.fatal(UNAVAILABLE)


def create_client(*_args, **_kwargs):
    """Refuse in the way in which BitBake's callers expect a missing service."""
    raise ConnectionError(UNAVAILABLE)
