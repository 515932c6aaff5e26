"""Which process drives a build: whoever holds the kernel lock that carries the build's id.

The lock lies outside of the build's control directory, which the container can write to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from smidr_ci.builds.ids import check_build_id, new_build_id
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import InternalError, UsageError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.locks import KernelLock, is_locked, take_lock, try_lock

__all__ = ["Ownership"]

_DRAWS: Final = 20


class Ownership:
    """Claims on builds, one lock file each in the directory `locks`."""

    def __init__(self, locks: Path, clock: Clock | None = None) -> None:
        self._locks = locks
        self._clock = clock or SystemClock()

    def reserve(self, customer: str, is_taken: Callable[[str], bool]) -> tuple[str, KernelLock]:
        """A new build id and the claim on it; no other process can have drawn the same."""
        for _ in range(_DRAWS):
            build_id = new_build_id(customer)
            claim = self._guarded(try_lock, build_id)
            if claim is not None and not is_taken(build_id):
                return build_id, claim
            if claim is not None:
                claim.release()
        raise InternalError(f"found no free build id for {customer}")

    def claim(self, build_id: str) -> KernelLock:
        """Become the owner until the lock is released or this process ends.

        Raises `UsageError` when another process is.
        """
        claim = self._guarded(lambda path: take_lock(path, self._clock), build_id)
        if claim is not None:
            return claim
        raise UsageError(
            f"another process drives build {build_id}",
            hint="Wait for its end, or stop that process.",
        )

    def is_owned(self, build_id: str) -> bool:
        """Whether a living process drives the build."""
        return is_locked(self._path(build_id))

    def forget(self, build_id: str) -> None:
        """Delete the lock file of a build that is over and that nobody owns."""
        claim = self._guarded(try_lock, build_id)
        if claim is not None:
            with claim:
                claim.path.unlink(missing_ok=True)

    def _path(self, build_id: str) -> Path:
        return self._locks / f"build-{check_build_id(build_id)}.lock"

    def _guarded(
        self, take: Callable[[Path], KernelLock | None], build_id: str
    ) -> KernelLock | None:
        path = self._path(build_id)
        try:
            make_private_dir(self._locks)
            return take(path)
        except OSError as error:
            raise as_host_error(error, "can't lock the build", path) from error
