"""Copies of big files that cost as little as the file system allows: shared blocks, then holes."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from typing import Final

__all__ = ["copy_data", "try_reflink"]

_FICLONE: Final = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CHUNK_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(_CHUNK_BYTES)
_NO_REFLINK: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)


def try_reflink(source: int, target: int) -> bool:
    """Let the open file `target` share the blocks of `source`; False where that can't be done.

    Raises `OSError` for what a plain copy would meet as well, such as a full disk.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def copy_data(source: int, target: int, seen: Callable[[bytes], object] | None = None) -> int:
    """Copy one open file into an empty one, holes as holes; return the size in bytes.

    `seen` gets all the content in order, the zeros of holes too, so that a checksum costs no
    second reading.
    """
    position = 0
    while (start := _next_data(source, position)) is not None:
        _show_zeros(start - position, seen)
        end = os.lseek(source, start, os.SEEK_HOLE)
        position = _copy_run(source, target, (start, end), seen)
    size = max(position, os.fstat(source).st_size)
    _show_zeros(size - position, seen)
    os.ftruncate(target, size)
    return size


def _next_data(source: int, position: int) -> int | None:
    try:
        return os.lseek(source, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end
            return None
        raise


def _copy_run(
    source: int, target: int, run: tuple[int, int], seen: Callable[[bytes], object] | None
) -> int:
    position, end = run
    os.lseek(source, position, os.SEEK_SET)
    os.lseek(target, position, os.SEEK_SET)
    while position < end:
        chunk = os.read(source, min(_CHUNK_BYTES, end - position))
        if not chunk:
            break
        if seen is not None:
            seen(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        position += len(chunk)
    return position


def _show_zeros(count: int, seen: Callable[[bytes], object] | None) -> None:
    while seen is not None and count > 0:
        seen(_ZEROS[: min(count, _CHUNK_BYTES)])
        count -= _CHUNK_BYTES
