"""The part of the PR service that the cooker calls, for builds that don't use one."""

from __future__ import annotations

from typing import Any

__all__ = ["PRServiceConfigError", "auto_shutdown", "auto_start"]


class PRServiceConfigError(Exception):
    """The PR service can't be started as configured."""


def auto_start(d: Any) -> None:
    """Give no address; refuse a configuration that asks for a PR service."""
    if d.getVar("PRSERV_HOST"):
        raise PRServiceConfigError("the PR service is not part of the BitBake wheel")


def auto_shutdown() -> None:
    """Do nothing: nothing was started."""
