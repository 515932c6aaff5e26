"""What only GitHub answers, as errors."""

from __future__ import annotations

from smidr_ci.forges.deliveries import GiveUp, RetryLater
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError

__all__ = ["RateLimitedError", "as_delivery_error"]

_CONFLICTS = frozenset({401, 404, 408, 409, 429})


class RateLimitedError(ForgeError):
    """GitHub wants no more calls of this kind for now; none was made, or the last was refused."""

    def __init__(self, message: str, *, after_s: float, where: str = "") -> None:
        super().__init__(message, where=where, status=429)
        self.after_s = after_s


def as_delivery_error(error: ForgeError) -> RetryLater | GiveUp:
    """What the outbox is told: whether another try makes sense, and when.

    401 and 404 may be mended by the operator (a new key, the App installed again).
    """
    if isinstance(error, RateLimitedError):
        return RetryLater(str(error), error.after_s)
    is_passing = error.status == 0 or error.status >= 500 or error.status in _CONFLICTS
    if is_passing or isinstance(error, ForgeUnreachableError):
        return RetryLater(str(error))
    if error.status == 403:
        return RetryLater(str(error), 300.0)
    return GiveUp(str(error))
