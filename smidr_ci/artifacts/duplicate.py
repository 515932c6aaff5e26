"""The same artifacts for another build: files of its own, on disk only once."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from smidr_ci.artifacts.collect import COLLECTING_PREFIX
from smidr_ci.artifacts.model import MANIFEST_NAME, Artifact, Manifest
from smidr_ci.copying import copy_data, try_reflink
from smidr_ci.files import (
    as_host_error,
    make_marked_dir,
    open_untrusted,
    remove_marked_tree,
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
    parent = destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{COLLECTING_PREFIX}{destination.name}."
        for half_done in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
            shutil.rmtree(half_done, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise as_host_error(error, "can't keep the artifacts", parent) from error
    try:
        make_marked_dir(fresh).chmod(0o755)
        for artifact in manifest.artifacts:
            _place(source / artifact.path, fresh / artifact.path, artifact)
        write_atomic(fresh / MANIFEST_NAME, manifest.to_json())
        remove_marked_tree(destination, parent)
        fresh.rename(destination)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise as_host_error(error, "can't keep the artifacts", destination) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
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
