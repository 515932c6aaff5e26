"""How far a build has come, on disk, so that another process can go on with it.

The file lies beside the control directory, where no container can write.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from smidr_ci.bitbake.plan import Plan
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.places import Places
from smidr_ci.builds.preparation import Preparation
from smidr_ci.builds.request import BuildRequest
from smidr_ci.caches.layout import CacheDirs
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.containers.runtime import ContainerRuntime, ContainerSpec, Exit, Handle
from smidr_ci.errors import InternalError
from smidr_ci.files import as_host_error, make_marked_dir, write_atomic
from smidr_ci.images.model import BuilderImage
from smidr_ci.layers.model import LayerSet

__all__ = ["Checkpoint", "Trail"]

_log = logging.getLogger(__name__)

_NAME: Final = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What preparing found, and what came of it since."""

    places: Places
    layers: LayerSet
    image: BuilderImage
    spec: ContainerSpec
    """The build's container; one that bears the build's id is or was the present attempt."""
    plan: Plan
    fetch_retries: int = 0
    has_set_aside: bool = False
    """A damaged sstate object was, so another one is not worth a try."""
    exit: Exit | None = None
    """How the present attempt's container ended."""
    is_overdue: bool = False
    """It was killed for the time limit."""
    outcome: Outcome | None = None
    """What BitBake's last attempt came to; the artifacts may still have to be kept."""
    final: Outcome | None = None
    """What the build came to; only its workspace and its record have to be closed."""
    is_workspace_kept: bool = False
    """Whether the workspace stays when `final` is known."""
    is_workspace_sound: bool = False
    """Whether other builds may then go on in it."""

    @property
    def has_failed(self) -> bool:
        """Whether the build came to anything but success."""
        return self.final is not None and self.final.state is not BuildState.COMPLETED

    def preparation(self, request: BuildRequest, targets: tuple[str, ...]) -> Preparation:
        """What preparing returned, for the same request."""
        places = self.places
        return Preparation(
            request,
            with_provider_layers(request.project.config),
            targets,
            places,
            self.layers,
            self.image,
            CacheDirs(downloads=places.downloads, sstate=places.sstate),
        )


class Trail:
    """The checkpoint of one build; `last` is None until the build is ready to start.

    A build that ends with its process (a foreground command's) keeps it in memory only.
    """

    def __init__(self, folder: Path, *, is_kept: bool) -> None:
        self._folder = folder
        self._is_kept = is_kept
        self.last = self._read() if is_kept else None
        self.is_resumed = self.last is not None
        """Another process wrote it, and may have left a container."""

    def require(self) -> Checkpoint:
        """What is known once the build is ready to start."""
        if self.last is None:
            raise InternalError("a build was started before it was ready")
        return self.last

    def take_over(self, runtime: ContainerRuntime) -> Handle | None:
        """The container that the other process left, if it was started; asked only once."""
        self.is_resumed = False
        left = runtime.find(self.require().spec.build_id)
        if left is not None and not left.has_started:
            runtime.remove(left)
            return None
        return left

    def begin(self, checkpoint: Checkpoint) -> None:
        """Everything is ready: write it down before the container starts."""
        self.last = checkpoint
        self._write()

    def keep(self, **changes: Any) -> None:  # noqa: ANN401 - fields of Checkpoint
        """Change fields; on disk when this returns."""
        if self.last is not None:
            self.last = replace(self.last, **changes)
            self._write()

    def remove_container(self, runtime: ContainerRuntime) -> None:
        """Remove the container that the other process left, if there is one."""
        left = runtime.find(self.require().spec.build_id)
        if left is not None:
            runtime.remove(left)
        self.is_resumed = False

    def forget(self) -> None:
        """Start anew, or leave nothing behind."""
        self.last, self.is_resumed = None, False
        if self._is_kept:
            (self._folder / _NAME).unlink(missing_ok=True)
            for half in self._folder.glob(f".{_NAME}.*"):
                half.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._is_kept and self.last is not None:
            text = _adapter().dump_json(self.last, indent=1).decode()
            try:
                make_marked_dir(self._folder)
                write_atomic(self._folder / _NAME, text)
            except OSError as error:
                what = "can't write down how far the build has come"
                raise as_host_error(error, what, self._folder) from error

    def _read(self) -> Checkpoint | None:
        path = self._folder / _NAME
        try:
            found: Checkpoint = _adapter().validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            # Another version's: the build begins anew rather than be lost.
            _log.warning("%s can't be read, so its build starts again: %s", path, error)
            return None
        return found


@cache
def _adapter() -> Any:  # noqa: ANN401 - pydantic is imported only where checkpoints are kept
    from pydantic import TypeAdapter  # noqa: PLC0415 - as above

    return TypeAdapter(Checkpoint)
