"""How far a build is trusted: decided by who asked for it, never by what it says of itself."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Trust"]


class Trust(StrEnum):
    """`UNTRUSTED` is a stranger's build, such as that of a fork's pull request.

    It reads the shared caches, writes to private ones, and sees no secret of the operator.
    """

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
