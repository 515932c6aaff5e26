"""The artifact store, `<root>/<customer>/<build-id>/`: what is there, and copies out of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smidr_ci.artifacts.model import MANIFEST_NAME, Artifact, Manifest
from smidr_ci.copying import copy_data
from smidr_ci.errors import HostError, SmidrError, UsageError
from smidr_ci.files import MARKER_NAME, as_host_error, open_untrusted

__all__ = ["ArtifactSet", "copy_artifacts", "find_set", "list_artifacts", "show"]


@dataclass(frozen=True)
class ArtifactSet:
    """The artifacts of one build; `manifest` is None when it can't be read."""

    path: Path
    customer: str
    build_id: str
    manifest: Manifest | None


def list_artifacts(root: Path, customer: str | None = None) -> list[ArtifactSet]:
    """What is kept, newest first; damaged ones last. Empty when nothing was ever kept."""
    customers = [folder for folder in _folders(root) if customer in {None, folder.name}]
    found = [
        ArtifactSet(path, folder.name, path.name, _read(path))
        for folder in customers
        for path in _folders(folder)
        if _is_set(path)
    ]
    return sorted(found, key=_age_first, reverse=True)


def find_set(root: Path, build_id: str, customer: str | None = None) -> Path:
    """The artifact directory of a build, by id or unique beginning; `UsageError` without one."""
    names = [
        path
        for folder in _folders(root)
        if customer in {None, folder.name}
        for path in _folders(folder)
        if path.name.startswith(build_id) and _is_set(path)
    ]
    exact = [path for path in names if path.name == build_id]
    chosen = exact or names
    if not build_id or not chosen:
        raise UsageError(
            f"there are no artifacts of a build {build_id[:80]!r}",
            hint="'smidr artifacts list' shows what is kept.",
        )
    if len(chosen) > 1:
        some = ", ".join(path.name for path in chosen[:5])
        raise UsageError(f"several builds begin with {build_id!r}", hint=f"Which one: {some}?")
    return chosen[0]


def show(root: Path, build_id: str, customer: str | None = None) -> Manifest:
    """The manifest of a build; `UsageError` when there is none, `HostError` when it is damaged."""
    return Manifest.read(find_set(root, build_id, customer))


def copy_artifacts(
    root: Path,
    build_id: str,
    destination: Path,
    *,
    customer: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Copy a build's artifacts to a directory, checking their checksums; return the new paths.

    Modes and links are kept. Nothing is overwritten without `force` (`UsageError` before anything
    is copied); a file that does not have its checksum is not left there (`HostError`).
    """
    source = find_set(root, build_id, customer)
    artifacts = Manifest.read(source).artifacts
    _check_names(source, artifacts)
    if not force:
        _refuse_existing(destination, artifacts)
    placed = []
    for artifact in sorted(artifacts, key=lambda item: item.link is not None):
        target = destination / artifact.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_one(source / artifact.path, target, artifact)
        except OSError as error:
            raise as_host_error(error, "can't copy the artifacts", target) from error
        placed.append(target)
    return sorted(placed)


def _copy_one(source: Path, target: Path, artifact: Artifact) -> None:
    # Beside the target and then renamed: an old file, or a link to one, is replaced and not
    # written through.
    handle, name = tempfile.mkstemp(prefix=".smidr-copy-", dir=target.parent)
    try:
        if artifact.link is not None:
            os.unlink(name)
            os.symlink(artifact.link, name)
        else:
            checksum = hashlib.sha256()
            with open_untrusted(source) as reader:
                copy_data(reader.fileno(), handle, checksum.update)
            if checksum.hexdigest() != artifact.sha256:
                raise HostError(
                    "the artifact is not what it was when it was built: its checksum differs",
                    where=str(source),
                    hint="The disk may be damaged, or somebody changed the file. Build again.",
                )
            os.fchmod(handle, 0o755 if artifact.is_executable else 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _refuse_existing(destination: Path, artifacts: Sequence[Artifact]) -> None:
    existing = [item.path for item in artifacts if os.path.lexists(destination / item.path)]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]}{more} would be overwritten",
            where=str(destination),
            hint="Choose another directory, or give --force.",
        )


def _check_names(source: Path, artifacts: Iterable[Artifact]) -> None:
    for artifact in artifacts:
        path = PurePosixPath(artifact.path)
        is_inside = not path.is_absolute() and ".." not in path.parts and bool(path.parts)
        if artifact.link is not None:
            linked = os.path.normpath(path.parent / artifact.link)
            is_inside = is_inside and not f"{linked}/".startswith(("/", "../"))
        if not is_inside:
            raise HostError(
                f"the list of artifacts names {artifact.path!r}, which is outside",
                where=str(source / MANIFEST_NAME),
                hint="Somebody changed the list. Build again.",
            )


def _is_set(path: Path) -> bool:
    return not path.name.startswith(".") and (path / MARKER_NAME).is_file()


def _read(path: Path) -> Manifest | None:
    try:
        return Manifest.read(path)
    except SmidrError:
        return None


def _age_first(item: ArtifactSet) -> tuple[float, str]:
    return (item.manifest.created.timestamp() if item.manifest else 0.0, item.build_id)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(item.path) for item in entries if item.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise as_host_error(error, "can't list the artifacts", folder) from error
