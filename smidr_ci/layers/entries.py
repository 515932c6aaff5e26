"""What can be wrong with the entries of `smidr.yaml` before anything is fetched."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smidr_ci.errors import HostError, LayerError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.layers.failures import OneLayerError, raise_problems
from smidr_ci.layers.resolve import Asked

if TYPE_CHECKING:
    # An annotation only: the models cost more to import than a whole no-op sync.
    from smidr_ci.config.models import LayerEntry

__all__ = ["check_entries", "check_schemes", "local_path", "make_roots"]


def check_entries(entries: Sequence[LayerEntry]) -> None:
    """Refuse two entries of one name, and one without a source; raises `LayerError`."""
    names: Mapping[str, int] = {entry.name: number for number, entry in enumerate(entries)}
    for number, entry in enumerate(entries):
        if names[entry.name] != number:
            raise LayerError(
                f"two entries of `layers` are called {entry.name}",
                hint="Give each a name of its own.",
            )
        if (entry.git is None) == (entry.path is None):
            raise LayerError("an entry needs either `git` or `path`", where=f"layer {entry.name}")


def check_schemes(asked: Iterable[Asked], allowed: Sequence[str]) -> None:
    """Refuse URLs with a scheme that the operator does not allow; raises `LayerError`."""
    raise_problems(
        OneLayerError(
            one.name,
            f"{url.url}: {url.scheme} URLs are not allowed here",
            f"Use one of {', '.join(allowed)}.",
        )
        for one in asked
        for url in one.urls
        if url.scheme not in allowed
    )


def local_path(entry: LayerEntry, base_dir: Path, confine_to: Path | None) -> tuple[str, Path]:
    """Name and directory of a `path` entry; raises `OneLayerError` when it can't be used."""
    text = entry.path or "."
    # As in all of the config only a leading ~/ means something; ~name is a name.
    named = Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)
    path = (base_dir / named).resolve()
    if confine_to is not None and not path.is_relative_to(confine_to.resolve()):
        raise OneLayerError(
            entry.name,
            f"the path {entry.path} leads out of the project",
            "An untrusted project may use directories of its own checkout only.",
        )
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise OneLayerError(entry.name, f"{path} {what}", f"Paths are relative to {base_dir}.")
    return entry.name, path


def make_roots(roots: Sequence[Path]) -> None:
    """Create the directories of the store; raises `HostError`."""
    for root in roots:
        try:
            make_private_dir(root)
            writable = os.access(root, os.W_OK)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise as_host_error(error, "can't make the layer store", root) from error
            raise _unusable(root, error.strerror or str(error)) from error
        if not writable:
            raise _unusable(root, os.strerror(errno.EACCES))


def _unusable(root: Path, why: str) -> HostError:
    return HostError(
        f"can't write to the layer store: {why}",
        where=str(root),
        hint="Mend its owner and permissions, or name another place as `directories.layers`.",
    )
