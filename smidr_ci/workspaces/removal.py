"""Takes big trees away without letting anybody wait for it."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["delete_detached", "delete_now", "disk_usage"]

# `rm` works by directory handle: it survives trees deeper than PATH_MAX and Python's recursion
# limit, which a recipe can make. Recipes also leave directories without write permission, which
# only another user than root must mend. A mount that was left inside stops it.
_SCRIPT: Final = """
ionice -c 3 -p $$
cd / || exit 1
rm -rf --one-file-system -- "$1" && exit
chmod -R u+rwX -- "$1"
rm -rf --one-file-system -- "$1"
"""


def delete_detached(tree: Path) -> None:
    """Delete the tree in a process of its own, with low priority, that outlives this one.

    If that process dies, what is left waits for the next sweep.
    """
    # The shell between them ends at once, so that neither a zombie nor a handle stays here.
    launch = 'nice -n 19 sh -c "$0" smidr-delete "$1" >/dev/null 2>&1 </dev/null &'
    with contextlib.suppress(OSError):  # no shell: the sweep tries again
        subprocess.run(
            ["/bin/sh", "-c", launch, _SCRIPT, str(tree)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def delete_now(tree: Path) -> bool:
    """Delete the tree, with low priority, and wait for it; whether it is gone."""
    with contextlib.suppress(OSError):  # no shell
        subprocess.run(
            ["nice", "-n", "19", "/bin/sh", "-c", _SCRIPT, "smidr-delete", str(tree)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return not os.path.lexists(tree)


def disk_usage(tree: Path) -> int:
    """Bytes on disk of all below; links to a file count once, symlinks are not followed.

    What can't be read counts nothing: it is for budgets.
    """
    total, seen, waiting = 0, set[tuple[int, int]](), [os.fspath(tree)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append(entry.path)
                    elif info.st_nlink > 1:
                        if (info.st_dev, info.st_ino) in seen:
                            continue
                        seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
    return total
