"""Which files of a cache belong together: an object or download, and what describes it.

Names: OE-Core's sstate.bbclass (`generate_sstatefn`), bb/fetch2 (`.done`, `.lock`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["DAMAGED", "SstateName", "is_half_written", "unit_of"]

DAMAGED: Final = "damaged"
"""Folder of a cache for what was found to be damaged."""

_COMPANIONS: Final = (".siginfo", ".sig", ".done", ".lock")
_SSTATE: Final = re.compile(
    r"sstate:(?P<recipe>[^:]*):[^:]*:(?P<version>[^:]*):[^:]*:[^:]*:[^:]*:"
    r"(?P<hash>[0-9a-f]{32,128})_(?P<task>[a-z0-9_]{1,128})(?P<suffix>\.tar\.zst|\.tgz)",
    re.ASCII,
)
# OE-Core packs into NAME.XXXXXXXX and renames; so does the fetcher with NAME.tmp and sigtask.XXX.
_HALF_WRITTEN: Final = re.compile(
    r"sstate:.{0,400}(?:\.tar\.zst|\.tgz)\.(?!siginfo$|sig$|done$|lock$)[A-Za-z0-9_.-]{1,120}"
    r"|sigtask\.[A-Za-z0-9_.-]{1,60}",
    re.ASCII,
)


def unit_of(name: str) -> str:
    """The name of the object or download that a file in the same folder belongs to."""
    while name.endswith(_COMPANIONS):
        stem, _, _ = name.rpartition(".")
        if not stem:
            return name
        name = stem
    return name


def is_half_written(name: str) -> bool:
    """Whether a file of sstate is one that its writer would have renamed in the end."""
    return _HALF_WRITTEN.fullmatch(name) is not None


@dataclass(frozen=True)
class SstateName:
    """What an sstate object's file name says."""

    recipe: str
    version: str
    unihash: str
    task: str
    """Without `do_`."""
    suffix: str
    """`.tar.zst`, or `.tgz` up to honister."""

    @classmethod
    def parse(cls, name: str) -> SstateName | None:
        """None for a file that is no sstate object."""
        found = _SSTATE.fullmatch(name)
        if found is None:
            return None
        return cls(found["recipe"], found["version"], found["hash"], found["task"], found["suffix"])

    @property
    def folder(self) -> str:
        """Where it lies below SSTATE_DIR or below the folder of the host's distribution."""
        return f"{self.unihash[:2]}/{self.unihash[2:4]}"
