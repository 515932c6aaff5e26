"""How big and of what form an order may be; the rest is for whoever reads the config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from smidr_ci.api.client import StartRequest
from smidr_ci.builds.ids import check_customer
from smidr_ci.errors import TooLargeError, UsageError

__all__ = ["MAX_BUNDLE_BYTES", "MAX_CONFIG_BYTES", "check_start_request"]

MAX_CONFIG_BYTES: Final = 1 << 20
MAX_BUNDLE_BYTES: Final = 32 << 20
_MAX_NAME: Final = 4096
_MAX_TARGETS: Final = 100
_MAX_TARGET: Final = 256
_MAX_VARIABLES: Final = 256
_MAX_VALUES_BYTES: Final = 256 << 10
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def check_start_request(request: StartRequest) -> None:
    """Raise `TooLargeError` or `UsageError` for what no order may hold."""
    check_customer(request.customer)
    _at_most(_size(request.config_text), MAX_CONFIG_BYTES, "the config")
    _at_most(len(request.bundle), MAX_BUNDLE_BYTES, "the bundle")
    if request.bundle and request.directory is not None:
        raise UsageError("an order has a bundle or a directory, not both")
    _check_texts((request.config_name,), _MAX_NAME, "the config's name")
    if len(request.targets) > _MAX_TARGETS:
        raise TooLargeError(f"{len(request.targets)} targets; {_MAX_TARGETS} are taken")
    _check_texts(request.targets, _MAX_TARGET, "a target")
    _check_variables(request.variables, "variables")
    _check_variables(request.environment, "environment")


def _check_texts(texts: Iterable[str], longest: int, what: str) -> None:
    for text in texts:
        _at_most(_size(text), longest, what)
        if not text or not text.isprintable():
            raise UsageError(f"{what} must be printable text, not {text[:80]!r}")


def _check_variables(variables: Mapping[str, str], what: str) -> None:
    if len(variables) > _MAX_VARIABLES:
        raise TooLargeError(f"{what} has {len(variables)} entries; {_MAX_VARIABLES} are taken")
    for name, value in variables.items():
        if _VARIABLE.fullmatch(name) is None:
            raise UsageError(
                f"{name[:80]!r} in {what} is no variable's name",
                hint="A name has letters, digits and _, and no digit in front.",
            )
        if "\x00" in value:
            raise UsageError(f"the value of {name} in {what} has a zero byte")
    _at_most(sum(map(_size, variables.values())), _MAX_VALUES_BYTES, what)


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise UsageError("a text has half a character (a lone surrogate)") from error


def _at_most(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise TooLargeError(f"{what} has {size} bytes; {limit} are taken")
