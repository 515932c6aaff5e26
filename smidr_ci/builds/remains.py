"""What a build leaves on disk besides its workspace: its own directory and its artifacts."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.builds.ids import customer_of
from smidr_ci.errors import HostError, InternalError
from smidr_ci.files import DELETING_PREFIX, MARKER_NAME, as_host_error, set_aside_marked_tree
from smidr_ci.workspaces.removal import delete_now, disk_usage

__all__ = ["Remains"]

_ABANDONED_AFTER: Final = timedelta(days=1)


class Remains:
    """`builds` and `artifacts` are the roots, `<build-id>/` and `<customer>/<build-id>/` below."""

    def __init__(self, builds: Path, artifacts: Path) -> None:
        self._builds = builds
        self._artifacts = artifacts

    @classmethod
    def on(cls, host: Host) -> Remains:
        """Those of a host, as its settings are now."""
        return cls(host.home.builds, host.artifacts_root)

    def size_of(self, build_id: str) -> int:
        """Bytes on disk of a build's logs and artifacts."""
        return sum(disk_usage(folder) for folder, _ in self._folders(build_id))

    def remove(self, build_id: str) -> None:
        """Take away all that a build left; nothing left is fine.

        Raises `HostError` when the system refuses, and `InternalError` for something that smidr
        did not make.
        """
        for folder, root in self._folders(build_id):
            try:
                if not folder.is_symlink() and not (folder / MARKER_NAME).exists():
                    _remove_empty(folder)  # a crash came before the marker
                doomed = set_aside_marked_tree(folder, root)
            except OSError as error:
                raise as_host_error(error, "can't remove what a build left", folder) from error
            if doomed is not None and not delete_now(doomed):
                raise HostError(
                    f"can't remove all of what build {build_id} left",
                    where=str(doomed),
                    hint="Something in it is mounted, or belongs to another user.",
                )

    def sweep(self, now: datetime) -> list[Path]:
        """Remove what a removal left that was cut short more than a day ago; return what went."""
        latest = (now - _ABANDONED_AFTER).timestamp()
        found = [
            *self._builds.glob(f"{DELETING_PREFIX}*"),
            *self._artifacts.glob(f"*/{DELETING_PREFIX}*"),
        ]
        gone = []
        for path in sorted(found):
            with contextlib.suppress(OSError):
                if not path.is_symlink() and path.stat().st_mtime < latest and delete_now(path):
                    gone.append(path)
        return gone

    def _folders(self, build_id: str) -> tuple[tuple[Path, Path], ...]:
        customer = customer_of(build_id)  # checks that the id is safe in a path
        return (
            (self._builds / build_id, self._builds),
            (self._artifacts / customer / build_id, self._artifacts),
        )


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise InternalError(
                f"refusing to delete {folder}: it has no {MARKER_NAME} file"
            ) from error
        raise
