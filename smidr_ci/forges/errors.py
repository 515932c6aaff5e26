"""What goes wrong between us and a forge."""

from __future__ import annotations

from smidr_ci.errors import FailureKind, SmidrError

__all__ = ["ForgeError", "ForgeUnreachableError"]


class ForgeError(SmidrError):
    """The forge refuses, or answers what makes no sense; `status` is HTTP's, 0 without one."""

    kind = FailureKind.FORGE

    def __init__(self, message: str, *, where: str = "", hint: str = "", status: int = 0) -> None:
        super().__init__(message, where=where, hint=hint)
        self.status = status


class ForgeUnreachableError(ForgeError):
    """No answer came: name, connection, TLS, time limit, or an answer cut off in the middle.

    `is_misconfigured` says that trying again can't help (a certificate, a broken URL).
    """

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", is_misconfigured: bool = False
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.is_misconfigured = is_misconfigured
