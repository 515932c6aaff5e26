"""What a summary says of a build beside its findings; everything may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from smidr_ci.builds.model import BuildRecord, SstateSummary, Work
from smidr_ci.builds.reasons import reason_sentence
from smidr_ci.diagnosis.model import Summary

__all__ = ["BuildFacts", "ImageSize", "facts_of"]

_STAMP: Final = re.compile(r"(?<!\d)20\d{12}(?!\d)")


@dataclass(frozen=True)
class ImageSize:
    """An artifact's size and its size in the previous build, in bytes."""

    path: str
    size_bytes: int
    previous_bytes: int | None = None


@dataclass(frozen=True)
class BuildFacts:
    """Figures of a build and of the one before with the same targets."""

    title: str = ""
    result: str = ""
    message: str = ""
    """Why it failed, for when no log says it."""
    targets: tuple[str, ...] = ()
    stages: tuple[tuple[str, float], ...] = ()
    """Name and seconds."""
    sstate: SstateSummary | None = None
    previous_sstate: SstateSummary | None = None
    work: Work | None = None
    images: tuple[ImageSize, ...] = ()
    layer_commits: Mapping[str, str] = field(default_factory=dict)
    rebuilt: tuple[str, ...] = ()
    """Why tasks ran again, a sentence each."""


def facts_of(record: BuildRecord, previous: BuildRecord | None = None) -> BuildFacts:
    """The facts that the records of two builds hold."""
    old = previous.artifacts if previous else ()
    old_sizes = {_undated(item.path): item.size_bytes for item in old}
    return BuildFacts(
        title=f"{record.project}: {', '.join(record.targets)}",
        result=str(record.state),
        message=record.failure_message,
        targets=record.targets,
        stages=tuple(
            (stage.name, (stage.ended - stage.started).total_seconds())
            for stage in record.stages
            if stage.ended is not None
        ),
        sstate=record.sstate,
        previous_sstate=previous.sstate if previous else None,
        work=record.work,
        images=tuple(
            ImageSize(item.path, item.size_bytes, old_sizes.get(_undated(item.path)))
            for item in record.artifacts
        ),
        layer_commits=record.layer_commits,
        rebuilt=tuple(reason_sentence(reason) for reason in record.rebuilt),
    )


def _undated(path: str) -> str:
    """OE-Core puts the time of the build into names of images (IMAGE_VERSION_SUFFIX)."""
    return _STAMP.sub("", path)


def sstate_of(summary: Summary) -> SstateSummary | None:
    """BitBake's figures of shared state, as the console printed them."""
    figures = summary.sstate
    if "wanted" not in figures:
        return None
    return SstateSummary(
        wanted=figures["wanted"],
        local=figures.get("local", figures.get("found", 0)),
        mirrors=figures.get("mirrors", 0),
        missed=figures.get("missed", 0),
        current=figures.get("current", 0),
    )
