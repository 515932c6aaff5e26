"""Put the driver into a build's control directory.

A copy of its own keeps a running build apart from an upgrade of smidr.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from smidr_ci.files import as_host_error

__all__ = ["driver_command", "install", "rebuilt_command", "shell_command"]

_SOURCE: Final = Path(__file__).parent / "inside"
_FOLDER: Final = "driver"
_PACKAGE: Final = "smidr_inside"


def install(control_dir: Path) -> None:
    """Copy driver and UI module to `control_dir/driver`, replacing what is there.

    What is there may come from an earlier run that could write to it, so nothing of it is
    followed or kept. Raises `HostError`.
    """
    try:
        fresh = Path(tempfile.mkdtemp(prefix=".driver-", dir=control_dir))
        try:
            _fill(fresh)
            _replace(fresh, control_dir / _FOLDER)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise as_host_error(error, "can't install the build driver", control_dir) from error


def _fill(folder: Path) -> None:
    for source in sorted(_SOURCE.rglob("*.py")):
        inner = source.relative_to(_SOURCE)
        target = folder / inner if inner.name == "driver.py" else folder / _PACKAGE / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o644)
    for inner in (folder, *folder.rglob("*/")):  # the container's user may be another than ours
        inner.chmod(0o755 if inner.is_dir() else 0o644)


def _replace(fresh: Path, target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        target.unlink()
    elif target.exists():
        aside = Path(tempfile.mkdtemp(prefix=".old-driver-", dir=target.parent))
        target.rename(aside / target.name)
        shutil.rmtree(aside, ignore_errors=True)
    fresh.rename(target)


def driver_command() -> tuple[str, ...]:
    """The container's command: no variable or user directory of the image reaches the driver."""
    return ("python3", "-E", "-s", f"/smidr/control/{_FOLDER}/driver.py")


def rebuilt_command(bitbake: str, began: float) -> tuple[str, ...]:
    """Explain in `rebuilt.jsonl` which tasks ran again since `began` (Unix time), and why."""
    return (*driver_command(), "rebuilt", bitbake, f"{began:.3f}")


def shell_command(command: Sequence[str]) -> tuple[str, ...]:
    """Run this command (none: a shell) in the environment that BitBake would get."""
    return (*driver_command(), "shell", *command)
