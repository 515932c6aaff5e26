"""The same artifacts for another build: files of its own, on disk only once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from smidr_ci.artifacts.model import MANIFEST_NAME, Artifact, Manifest
from smidr_ci.artifacts.whole import appearing_whole
from smidr_ci.copying import copy_data, try_reflink
from smidr_ci.files import (
    open_untrusted,
    write_atomic,
)

__all__ = ["duplicate"]


def duplicate(source: Path, destination: Path) -> Manifest:
    """Give the build at `destination` what the one at `source` has; both `<customer>/<build-id>`.

    Either may be deleted without harm to the other. `destination` appears whole, or replaces an
    earlier one whole. Raises `HostError`, also when `source` is not there.
    """
    manifest = replace(
        Manifest.read(source), build_id=destination.name, customer=destination.parent.name
    )
    with appearing_whole(destination) as fresh:
        for artifact in manifest.artifacts:
            _place(source / artifact.path, fresh / artifact.path, artifact)
        write_atomic(fresh / MANIFEST_NAME, manifest.to_json())
    return manifest


def _place(source: Path, target: Path, artifact: Artifact) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if artifact.link is not None:
        target.symlink_to(artifact.link)
        return
    with open_untrusted(source) as reader, open(target, "xb", buffering=0) as writer:
        is_done = try_reflink(reader.fileno(), writer.fileno())
        os.fchmod(writer.fileno(), 0o755 if artifact.is_executable else 0o644)
        if is_done:
            return
        target.unlink()
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            # Another file system, or as many links as there may be.
            with open(target, "xb", buffering=0) as copy:
                copy_data(reader.fileno(), copy.fileno())
                os.fchmod(copy.fileno(), 0o755 if artifact.is_executable else 0o644)
