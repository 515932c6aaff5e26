"""What `smidr build` was asked for, and by whom."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BuildOptions", "user_name"]


@dataclass(frozen=True)
class BuildOptions:
    """The options of the command."""

    config_path: Path
    targets: tuple[str, ...]
    customer: str
    clean: bool
    clean_image: bool
    fetch_only: bool
    locked: bool
    keep: bool
    is_untrusted: bool = False


def user_name() -> str:
    """Who runs this command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
