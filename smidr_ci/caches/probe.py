"""Tries to write into a directory as another user.

By trying, since modes, access control lists, read-only mounts, quotas, full disks and NFS all have
a say. The directory is entered before the user changes: a container's mount needs no right to the
directories above it, and neither must the probe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Final

from smidr_ci.containers.runtime import User

__all__ = ["CACHEDIR_TAG", "probe_as"]

_log = logging.getLogger(__name__)

CACHEDIR_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory is a cache of smidr's; see https://bford.info/cachedir/\n"
)
"""Keeps the directory out of backups."""

_SLOW_S: Final = 15.0
# A disk that other builds keep busy may take long for a few small files, and a build takes hours.
_LIMIT_S: Final = 300.0
_SCRIPT: Final = """
umask 022
probe=.smidr-probe.$$
trap 'rm -f "$probe"' EXIT
mkdir "$probe.d" && rmdir "$probe.d" || exit 1
head -c 8192 /dev/zero > "$probe" || exit 1
[ -e CACHEDIR.TAG ] || printf '%s' "$1" > CACHEDIR.TAG
"""


def probe_as(
    directory: Path, user: User, *, slow_s: float = _SLOW_S, limit_s: float = _LIMIT_S
) -> str:
    """Why the user can't write there, in the system's words; empty when he can.

    Leaves a CACHEDIR.TAG. As anybody but root, this process's own user is tried. A file system
    that does not answer for `slow_s` seconds is logged, and after `limit_s` given up.
    """
    try:
        process = _start(directory, user)
    except OSError as error:
        return error.strerror or str(error)
    try:
        error_text = _answer(process, directory, slow_s, limit_s)
    except subprocess.TimeoutExpired:
        _abandon(process)
        return f"the file system did not answer in {limit_s:.0f} s"
    except BaseException:
        _abandon(process)
        raise
    if process.returncode == 0:
        return ""
    lines = error_text.decode(errors="replace").strip().splitlines()
    return lines[0].rpartition(": ")[2] if lines else f"exit code {process.returncode}"


def _start(directory: Path, user: User) -> subprocess.Popen[bytes]:
    is_root = os.geteuid() == 0
    return subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT, "probe", CACHEDIR_TAG],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        user=user.uid if is_root else None,
        group=user.gid if is_root else None,
        extra_groups=[] if is_root else None,
    )


def _answer(
    process: subprocess.Popen[bytes], directory: Path, slow_s: float, limit_s: float
) -> bytes:
    try:
        return process.communicate(timeout=min(slow_s, limit_s))[1]
    except subprocess.TimeoutExpired:
        if limit_s <= slow_s:
            raise
    _log.warning("the file system of %s has not answered for %.0f s", directory, slow_s)
    return process.communicate(timeout=limit_s - slow_s)[1]


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill it without waiting: what hangs in the kernel dies when the file system answers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stderr is not None:
        process.stderr.close()
    threading.Thread(target=process.wait, name="probe-end", daemon=True).start()
