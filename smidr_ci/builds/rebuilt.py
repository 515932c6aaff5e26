"""Say why tasks ran again although an earlier build had done the same.

BitBake's own code compares the signatures, in a container without network where everything of the
build is read-only: they are a stranger's files, in old releases pickles. Nothing of this runs for
a build that missed nothing, and a build never fails for it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from smidr_ci.bitbake.driver_files import install, rebuilt_command
from smidr_ci.builds.history import previous_build
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.mounts import CONTROL
from smidr_ci.builds.reasons import read_reasons
from smidr_ci.containers.runtime import ContainerSpec, Mount
from smidr_ci.containers.user import own
from smidr_ci.errors import SmidrError
from smidr_ci.files import DELETING_PREFIX, make_marked_dir, remove_marked_tree

__all__ = ["has_rebuilt", "why_rebuilt"]

_log = logging.getLogger(__name__)

_ANSWER: Final = "rebuilt.jsonl"
_FOLDER: Final = ".rebuilt-"
_LIMIT_S: Final = 20.0


def has_rebuilt(host: Host, record: BuildRecord) -> bool:
    """Whether the build ran tasks for want of shared state, and an earlier one was like it."""
    has_missed = record.sstate is not None and record.sstate.missed > 0
    if not has_missed or not record.tasks.get("executed"):
        return False
    return previous_build(host.store, record) is not None


def why_rebuilt(
    host: Host, record: BuildRecord, spec: ContainerSpec, bitbake: str
) -> tuple[Mapping[str, Any], ...]:
    """The reasons, see `reasons`; `spec` is the build's own container, whose directories it sees.

    Empty when there is no answer within 20 seconds.
    """
    began = (record.started or record.created).timestamp()
    home = host.home.builds / record.build_id
    try:
        for half_done in [*home.glob(f"{_FOLDER}*"), *home.glob(f"{DELETING_PREFIX}*")]:
            make_marked_dir(half_done)  # a crash came before the marker was there, or after
            remove_marked_tree(half_done, home)
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=home))
        try:
            make_marked_dir(folder)
            _run(host, folder, replace(spec, command=rebuilt_command(bitbake, began)))
            return read_reasons(folder / _ANSWER)
        finally:
            remove_marked_tree(folder, host.home.builds)
    except (OSError, SmidrError) as error:
        _log.warning("can't say why tasks ran again: %s", error)
        return ()


def _run(host: Host, folder: Path, spec: ContainerSpec) -> None:
    own(folder, host.user)
    install(folder)
    seen = (replace(mount, writable=False) for mount in spec.mounts if mount.target != CONTROL)
    spec = replace(
        spec,
        role="rebuilt",
        mounts=(*seen, Mount(folder, CONTROL, writable=True)),
        environment={},
        entrypoint=(),
        network="none",
    )
    handle = host.runtime.start(spec)
    try:
        host.runtime.wait(handle, _LIMIT_S)
    finally:
        host.runtime.remove(handle)
