"""BitBake's modules compiled for a builder image.

BitBake lies on a read-only mount, so each of its processes (client, server, workers) would compile
all modules anew at its start. The image's own Python compiles them once, in a container that sees
nothing else, for builds with the same commit in the same image. Without, a build is only slower.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.containers.runtime import ContainerSpec, Mount
from smidr_ci.containers.user import own
from smidr_ci.errors import SmidrError
from smidr_ci.files import MARKER_NAME, make_marked_dir, open_untrusted, remove_marked_tree
from smidr_ci.images.model import BuilderImage
from smidr_ci.layers.model import LayerSet
from smidr_ci.trust import Trust

__all__ = ["add_bytecode", "compiled_bitbake"]

_log = logging.getLogger(__name__)

_OUT: Final = PurePosixPath("/smidr/build")
_NAME: Final = re.compile(r"\w{1,100}\.cpython-\d{2,4}\.pyc", re.ASCII)
_MAX_BYTES: Final = 4 * 1024 * 1024
_COMPILE_S: Final = 120.0
_UNUSED_AFTER: Final = timedelta(days=30)


def compiled_bitbake(
    host: Host,
    layers: LayerSet,
    image: BuilderImage,
    build_id: str,
    trust: Trust = Trust.TRUSTED,
) -> tuple[Mount, ...]:
    """The mount over BitBake's `lib` that brings the bytecode; none when it can't be made.

    What a stranger's image compiled is for strangers' builds only.
    """
    tree = next(tree for tree in layers.trees if layers.bitbake.is_relative_to(tree.mount_point))
    source = tree.tree / layers.bitbake.relative_to(tree.mount_point) / "lib"
    folder = host.home.bytecode / f"{tree.commit}-{image.id.removeprefix('sha256:')[:24]}"
    if trust is Trust.UNTRUSTED and not (folder / "lib").is_dir():
        folder = folder.with_name(f"{folder.name}-{trust}")
    target = layers.bitbake / "lib"
    try:
        if not (folder / "lib").is_dir():
            _make(host, source, target, folder, image.id, build_id)
        os.utime(folder)
    except (OSError, SmidrError) as error:
        _log.warning("BitBake's modules stay uncompiled: %s", error)
        return ()
    return (Mount(folder / "lib", target),)


def _make(
    host: Host, source: Path, target: PurePosixPath, folder: Path, image: str, build_id: str
) -> None:
    make_marked_dir(host.home.bytecode, 0o700)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=host.home.bytecode))
    try:
        make_marked_dir(fresh)
        fresh.chmod(0o755)
        out = fresh / "compiled"
        out.mkdir()
        own(out, host.user)
        _compile(host, image, build_id, Mount(source, target), Mount(out, _OUT, writable=True))
        shutil.copytree(source, fresh / "lib", symlinks=True)
        add_bytecode(fresh / "lib", out.joinpath(*target.parts[1:]))
        shutil.rmtree(out)
        if not folder.exists():  # another build may have been faster
            fresh.rename(folder)
    finally:
        remove_marked_tree(fresh, host.home.bytecode)
    _prune(host)


def _compile(host: Host, image: str, build_id: str, source: Mount, out: Mount) -> None:
    """Compile without running anything of the project; not even its entrypoint."""
    python = ("python3", "-E", "-s", "-X", f"pycache_prefix={out.target}")
    spec = ContainerSpec(
        build_id=build_id,
        image=image,
        command=(*python, "-m", "compileall", "-q", str(source.target)),
        user=host.user,
        mounts=(source, out),
        role="bytecode",
        network="none",
    )
    handle = host.runtime.start(spec)
    try:
        # Its exit code also tells of files that no Python of this release can read.
        host.runtime.wait(handle, _COMPILE_S)
    finally:
        host.runtime.remove(handle)


def add_bytecode(lib: Path, compiled: Path) -> None:
    """Put the bytecode of `compiled` beside its modules in `lib`.

    Both trees are strangers' work: no symlink of either is followed. Raises `OSError`.
    """
    found = {Path(top).relative_to(compiled): names for top, _, names in os.walk(compiled)}
    for top, _, modules in os.walk(lib):
        inner = Path(top).relative_to(lib)
        wanted = {name.removesuffix(".py") for name in modules if name.endswith(".py")}
        names = [name for name in found.get(inner, ()) if name.partition(".")[0] in wanted]
        if names:
            Path(top).chmod(0o755)  # trees are read-only, also for their owner
            _copy_bytecode(names, compiled / inner, Path(top) / "__pycache__")


def _copy_bytecode(names: list[str], source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        return  # the repository brings some of its own
    target.mkdir()
    for name in names:
        if _NAME.fullmatch(name):
            with open_untrusted(source / name) as file:
                raw = file.read(_MAX_BYTES + 1)
            if len(raw) <= _MAX_BYTES:
                (target / name).write_bytes(raw)


def _prune(host: Host) -> None:
    latest = (host.clock.now() - _UNUSED_AFTER).timestamp()
    for path in host.home.bytecode.iterdir():
        if (path / MARKER_NAME).is_file() and path.stat().st_mtime < latest:
            remove_marked_tree(path, host.home.bytecode)
