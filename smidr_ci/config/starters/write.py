"""Writes a starter into a directory, whole or not at all, and never over what is there."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from smidr_ci.config.values import Slug
from smidr_ci.errors import HostError, UsageError
from smidr_ci.files import write_atomic

__all__ = ["STARTERS", "write_starter"]

STARTERS: Final = ("poky", "oe-core", "hello")
_HERE: Final = Path(__file__).parent
_NAME: Final = "@NAME@"
_LAYERS: Final = {"hello": "meta-hello"}
_SLUG: Final = TypeAdapter[str](Slug)


def write_starter(directory: Path, name: str, starter: str) -> Path:
    """Write `smidr.yaml`, and the layer of a starter that has one; return the config's path.

    The directory is made when missing. Raises `UsageError` for a bad name, an unknown starter, or
    when one of the files is there already; `HostError` when the system refuses.
    """
    text = _text(name, starter)
    config = directory / "smidr.yaml"
    layer = directory / _LAYERS[starter] if starter in _LAYERS else None
    for path in filter(None, (config, layer)):
        if os.path.lexists(path):
            raise _is_there(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if layer is not None:
            _copy_layer(_HERE / layer.name, layer)
        _write_new(config, text)
    except OSError as error:
        raise HostError(
            f"can't write the starter: {error.strerror}", where=str(error.filename or directory)
        ) from error
    return config


def _text(name: str, starter: str) -> str:
    if starter not in STARTERS:
        raise UsageError(
            f"there is no starter {starter!r}", hint=f"Choose one of {', '.join(STARTERS)}."
        )
    try:
        _SLUG.validate_python(name)
    except ValueError as error:
        better = re.sub("[^A-Za-z0-9._-]+", "-", name).strip("-._")[:63] or "my-project"
        raise UsageError(
            f"{name!r} can't be a project's name: letters, digits and . _ - are allowed",
            hint=f"Give one with --name, such as {better}.",
        ) from error
    return (_HERE / f"{starter}.yaml").read_text(encoding="utf-8").replace(_NAME, name)


def _copy_layer(source: Path, target: Path) -> None:
    """Copied beside its place and renamed, so that nobody finds half a layer."""
    with tempfile.TemporaryDirectory(prefix=".smidr-init-", dir=target.parent) as folder:
        copy = Path(folder) / target.name
        shutil.copytree(source, copy, copy_function=shutil.copyfile)
        copy.rename(target)


def _write_new(path: Path, text: str) -> None:
    """Like `write_atomic`, but a file that appeared meanwhile stays: a link never replaces."""
    with tempfile.TemporaryDirectory(prefix=".smidr-init-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        write_atomic(whole, text)
        try:
            os.link(whole, path)
        except FileExistsError as error:
            raise _is_there(path) from error


def _is_there(path: Path) -> UsageError:
    return UsageError(
        "is there already", where=str(path), hint="Choose another directory, or move it away."
    )
