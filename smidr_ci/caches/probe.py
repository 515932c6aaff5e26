"""Tries to write into a directory as another user.

By trying, since modes, access control lists, read-only mounts, quotas, full disks and NFS all have
a say. The directory is entered before the user changes: a container's mount needs no right to the
directories above it, and neither must the probe.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from smidr_ci.containers.runtime import User

__all__ = ["CACHEDIR_TAG", "probe_as"]

CACHEDIR_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory is a cache of smidr's; see https://bford.info/cachedir/\n"
)
"""Keeps the directory out of backups."""

_TIMEOUT_S: Final = 20.0
_SCRIPT: Final = """
umask 022
probe=.smidr-probe.$$
trap 'rm -f "$probe"' EXIT
mkdir "$probe.d" && rmdir "$probe.d" || exit 1
head -c 8192 /dev/zero > "$probe" || exit 1
[ -e CACHEDIR.TAG ] || printf '%s' "$1" > CACHEDIR.TAG
"""


def probe_as(directory: Path, user: User) -> str:
    """Why the user can't write there, in the system's words; empty when he can.

    Leaves a CACHEDIR.TAG. As anybody but root, this process's own user is tried.
    """
    is_root = os.geteuid() == 0
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _SCRIPT, "probe", CACHEDIR_TAG],
            cwd=directory,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            user=user.uid if is_root else None,
            group=user.gid if is_root else None,
            extra_groups=[] if is_root else None,
        )
    except subprocess.TimeoutExpired:
        return f"the file system did not answer in {_TIMEOUT_S:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0].rpartition(": ")[2] if lines else f"exit code {done.returncode}"
