"""What a build cost and what shared state spared it, in words."""

from __future__ import annotations

from smidr_ci.builds.model import Work

__all__ = ["work_sentence"]


def work_sentence(work: Work) -> str:
    """Such as `tasks ran for 3 min 12 s; sstate spared about 41 min (estimate: ...)`.

    Task times are added up as if one task ran after the other.
    """
    ran = f"tasks ran for {_duration(work.executed_s)}"
    if not work.restored:
        return f"{ran}; nothing came from sstate"
    objects = f"{work.restored} object{'' if work.restored == 1 else 's'}"
    size = f", {_size(work.restored_bytes)} packed" if work.restored_bytes else ""
    if not work.timed:
        return f"{ran}; {objects}{size} came from sstate, whose tasks have not run on this host yet"
    spared = f"{ran}; sstate spared about {_duration(work.spared_s)}"
    known = "what its tasks took when they last ran on this host"
    if work.timed < work.restored:
        known = f"{known}, of {work.timed} of {objects}"
        return f"{spared} or more (estimate: {known}){size}"
    return f"{spared} (estimate: {known}; {objects}){size}"


def _duration(seconds: float) -> str:
    """Added up over cores it may be hours; that a figure is an estimate shows in its roundness."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours else f"{minutes} min"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
