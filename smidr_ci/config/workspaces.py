"""The part of `agent.yaml` that says when a build goes on in the directory of an earlier one."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, Strict

from smidr_ci.config.base import Model
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.values import Flag, MemorySize

__all__ = ["WorkspaceSettings"]

_SHORTENED = ("refs/heads/", "refs/tags/")

RefPattern = Annotated[
    str,
    Matching("ref", r"[^\s\x00-\x1f\x7f~^:\\]{1,256}", "a branch, a tag or a ref, with * and ?"),
]


class WorkspaceSettings(Model):
    """Whether builds start in a fresh directory, or warm: in the one that the last like it left.

    Warm, BitBake runs only what has changed since. `--fresh`, `--clean` and `build.workspace` of a
    project always win; untrusted builds are always fresh, and never leave anything to others.
    """

    mode: Literal["fresh", "warm"] = "fresh"
    """What builds do whose ref is not named below. A fresh directory proves that the project builds
    from what its layers say; a warm one is faster, and may still hold what they no longer say."""
    warm_refs: tuple[RefPattern, ...] = ()
    """Refs whose builds are warm, with `*` and `?`: `main`, `feature/*`."""
    fresh_refs: tuple[RefPattern, ...] = ("refs/tags/*", "release", "release/*", "releases/*")
    """Refs whose builds are fresh whatever the other keys say: what is released."""
    max_count: Annotated[int, Field(ge=0, le=10_000), Strict(), Called("number")] = 10
    """How many directories are kept for warm builds; who came least recently goes first, and of
    several that the same builds could use all but the newest."""
    max_size: MemorySize = 200 * 1024**3
    """Disk for them."""
    rm_work: Flag = False
    """Let each recipe of a fresh build remove its work directory when it is done (rm_work of
    OE-Core): far less disk, somewhat more time."""

    def is_warm(self, ref: str) -> bool:
        """Whether a build of this ref (`refs/heads/main`; empty when unknown) may be warm."""
        names = {ref, *(ref.removeprefix(start) for start in _SHORTENED)}
        if _has_any(self.fresh_refs, names):
            return False
        return self.mode == "warm" or _has_any(self.warm_refs, names)


def _has_any(patterns: tuple[str, ...], names: set[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names if name for pattern in patterns)
