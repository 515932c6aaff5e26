"""Files of the host that `agent.yaml` names, secrets among them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from smidr_ci.config.confinement import host_path
from smidr_ci.config.matching import Called
from smidr_ci.errors import ConfigError

__all__ = ["HostFile", "read_secret", "why_not_secret"]

_MAX_SECRET = 64 * 1024


def _absolute(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if not value.strip() or "\x00" in value:
        raise ValueError("is not a path")
    context: Mapping[str, Any] = info.context or {}
    return host_path(value, context.get("directory", Path.cwd()), context.get("home"))


HostFile = Annotated[Path, BeforeValidator(_absolute, json_schema_input_type=str), Called("path")]
"""Absolute after loading: relative to agent.yaml, a leading `~/` is the home directory."""


def read_secret(path: Path) -> str:
    """A secret's text without the newline at its end; raises `ConfigError`, never with the text."""
    problem = why_not_secret(path)
    if problem:
        raise ConfigError(problem, where=str(path), hint=f"chmod 600 {path}")
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_SECRET).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("can't be read as text", where=str(path)) from error


def why_not_secret(path: Path) -> str | None:
    """What keeps a file from being used as a secret; None when nothing does."""
    try:
        info = path.stat()
    except OSError as error:
        return f"can't be used: {error.strerror}"
    if not stat.S_ISREG(info.st_mode):
        return "is not a file"
    if info.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return "holds a secret and is open to other users"
    return None
