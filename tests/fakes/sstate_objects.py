"""Small sstate objects and downloads that are whole, as BitBake leaves them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

from tests.fakes.cache_home import object_name

__all__ = ["make_download", "make_object", "make_tarball", "settle"]


def make_tarball(path: Path, text: str) -> Path:
    """A tar.gz with one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(raw)
        archive.addfile(entry, io.BytesIO(raw))
    return path


def make_object(root: Path, number: int, *, siginfo: bool = True) -> Path:
    """An sstate object, whose `.siginfo` is one of an old release: a pickle."""
    path = make_tarball(root / object_name(number, suffix=".tgz"), f"object {number}")
    if siginfo:
        path.with_name(f"{path.name}.siginfo").write_bytes(pickle.dumps({"task": number}))
    return path


def make_download(root: Path, name: str, raw: bytes) -> Path:
    """A download with its stamp."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_bytes(raw)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    sums = {"sha256": hashlib.sha256(raw).hexdigest()}
    (root / f"{name}.done").write_bytes(pickle.dumps(sums, protocol=2))
    return path


def settle(root: Path) -> None:
    """Give all folders a time long ago: nothing can have changed within the clock's last tick."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1_000_000_000, 1_000_000_000))
