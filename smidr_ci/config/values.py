"""The types of single values: each refuses what could do harm and says what to write instead.

Every type carries the JSON schema of what it takes, so that editors refuse the same.
"""

from __future__ import annotations

import math
import re
import shlex
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
)
from pydantic import WithJsonSchema as Json

from smidr_ci.config.environment import check_environment_names
from smidr_ci.config.giturl import GIT_URL_SCHEMA, check_git_url
from smidr_ci.config.matching import Called, Matching, shown

__all__ = [
    "Command",
    "Commit",
    "ConfLines",
    "ConfValue",
    "Count",
    "DebianPackage",
    "Flag",
    "GitUrl",
    "Glob",
    "HostPath",
    "ImageReference",
    "LayerPath",
    "MemorySize",
    "MirrorLines",
    "PackageClass",
    "ParallelMake",
    "Ref",
    "Slug",
    "SubFolder",
    "Target",
    "WarningCategory",
    "Warnings",
    "Word",
    "check_environment_names",
    "parse_size",
]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?(?:([KMGTkmgt])(?:i?[Bb])?|[Bb])?")
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MAX_SIZE: Final = 1 << 53
_JOBS: Final = re.compile(r"(?:-j ?)?([1-9][0-9]{0,3})")
_MAX_JOBS: Final = 4096
_MAX_RECURSIVE_PARTS: Final = 4
_INSIDE: Final = r"^(?!/|~)(?!(.*/)?\.\.(/|$))[^\x00-\x1f\x7f]+$"
_ONE_LINE: Final = r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]*"


def parse_size(value: object) -> int:
    """Bytes from an int or `512M`, `8G`, `1.5g`, `8GiB` (each unit is 1024 of the one before).

    Raises ValueError.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"is {shown(value)}, which is not a size; write 512M, 8G or 1.5G")
        size = math.floor(float(found[1]) * 1024 ** _UNITS[(found[2] or "").lower()])
    if not 0 < size <= _MAX_SIZE:
        raise ValueError("is a size out of range; write 512M, 8G or 1.5G")
    return size


def _parse_jobs(value: object) -> int:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _JOBS.fullmatch(text) if isinstance(text, str) and len(text) < 32 else None
    if found is None or int(found[1]) > _MAX_JOBS:
        raise ValueError(f"is {shown(value)}; write 8 or -j8 (1 to {_MAX_JOBS} jobs)")
    return int(found[1])


def _check_path(path: str) -> str:
    if not path.strip():
        raise ValueError("is an empty path; write . for the directory of the file")
    if _CONTROL.search(path):
        raise ValueError("is a path with a control character")
    return path


def _check_relative(path: str) -> str:
    _check_path(path)
    if path.startswith(("/", "~")):
        raise ValueError(f"is {shown(path)}, but must be relative, without a leading / or ~")
    if ".." in path.split("/"):
        raise ValueError(f"is {shown(path)}, but must stay inside: .. is not allowed")
    return path


def _check_glob(glob: str) -> str:
    _check_relative(glob)
    if sum(part == "**" for part in glob.split("/")) > _MAX_RECURSIVE_PARTS:
        raise ValueError(f"has more than {_MAX_RECURSIVE_PARTS} times **")
    return glob


def _split_lines(value: object) -> object:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    parts = [text.split("\n") if isinstance(text, str) else [text] for text in texts]
    lines = [line.rstrip() if isinstance(line, str) else line for part in parts for line in part]
    while lines and lines[-1] == "":
        lines.pop()
    return lines


def _split_mirrors(value: object) -> object:
    # BitBake's own files part the pairs of one string by a literal \n.
    lines = _split_lines(value.replace("\\n", "\n") if isinstance(value, str) else value)
    if not isinstance(lines, list):
        return lines
    return [line.strip() if isinstance(line, str) else line for line in lines if line != ""]


def _check_mirror(line: str) -> str:
    if len(line.split()) != 2:
        raise ValueError(f"is {shown(line)}; write a pattern, a space and a replacement")
    return line


def _split_command(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


def _any_of(*schemas: dict[str, Any]) -> Json:
    return Json({"anyOf": list(schemas)})


_SIZE_JSON: Final = _any_of(
    {"type": "integer", "exclusiveMinimum": 0, "maximum": _MAX_SIZE},
    {"type": "string", "pattern": f"^{_SIZE.pattern}$"},
)
_JOBS_JSON: Final = _any_of(
    {"type": "integer", "minimum": 1, "maximum": _MAX_JOBS},
    {"type": "string", "pattern": f"^{_JOBS.pattern}$"},
)
_LINES_JSON: Final = _any_of({"type": "string"}, {"type": "array", "items": {"type": "string"}})

Slug = Annotated[
    str,
    Matching(
        "name",
        "[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        "a name of letters, digits and . _ - (at most 63, a letter or digit first)",
    ),
]
Word = Annotated[
    str,
    Matching(
        "name",
        "[A-Za-z0-9][A-Za-z0-9+._-]{0,127}",
        "a name of letters, digits and + . _ - (a letter or digit first)",
    ),
]
Target = Annotated[
    str,
    Matching(
        "target",
        "(mc:[A-Za-z0-9._-]*:)?[A-Za-z0-9][A-Za-z0-9+._/-]{0,254}(:do_[a-z0-9_]+)?",
        "a target such as core-image-minimal, busybox:do_compile or mc:other:busybox",
    ),
]
Ref = Annotated[
    str,
    Matching(
        "git ref",
        "[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}",
        "the name of a branch or tag",
        refused=r"\.\.|//|/\.|\.$|/$|\.lock$",
    ),
]
Commit = Annotated[
    str,
    Matching(
        "commit id",
        "[0-9a-f]{40}([0-9a-f]{24})?",
        "a full commit id (40 or 64 hexadecimal digits, small letters)",
    ),
]
ImageReference = Annotated[
    str,
    Matching(
        "image",
        "[a-z0-9][A-Za-z0-9._:/@-]{0,511}",
        "a container image such as debian:12 or registry/name@sha256:...",
    ),
]
DebianPackage = Annotated[
    str,
    Matching("package", "[a-z0-9][a-z0-9+.:-]{0,127}", "the name of a Debian package"),
]
ConfValue = Annotated[
    str,
    StringConstraints(max_length=4096),
    Matching("text", _ONE_LINE, "one line of text without control characters"),
]
Count = Annotated[int, Field(ge=1, le=4096), Strict(), Called("number")]
PackageClass = Literal["rpm", "deb", "ipk", "tar"]

WarningCategory = Literal[
    "disk-space", "fetch", "layer-compat", "package-qa", "parse-error", "other"
]
"""Categories of the findings that diagnosis makes of warnings."""

Flag = Annotated[bool, Strict()]
"""`true` or `false`; no string or number that happens to mean one."""

Warnings = Annotated[
    Annotated[Flag, Tag("flag")] | Annotated[tuple[WarningCategory, ...], Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list | tuple) else "flag"),
]
"""All or none of them, or those of these categories."""

GitUrl = Annotated[str, AfterValidator(check_git_url), Json(GIT_URL_SCHEMA), Called("git URL")]
"""A URL that git may be given (see `giturl`)."""

LayerPath = Annotated[
    str,
    StringConstraints(max_length=4096),
    AfterValidator(_check_path),
    Json({"type": "string", "pattern": r"^[^\x00-\x1f\x7f]+$", "maxLength": 4096}),
    Called("path"),
]
"""A path, relative to the file or absolute; a leading `~/` is the user's home."""

HostPath = LayerPath
"""A directory of the host; the same rules as for `LayerPath`."""

SubFolder = Annotated[
    str,
    StringConstraints(max_length=1024),
    AfterValidator(_check_relative),
    Json({"type": "string", "pattern": _INSIDE, "maxLength": 1024}),
    Called("folder"),
]
"""A folder inside a repository: relative and without `..`; `.` is the repository itself."""

Glob = Annotated[
    str,
    StringConstraints(max_length=1024),
    AfterValidator(_check_glob),
    Json({"type": "string", "pattern": _INSIDE, "maxLength": 1024}),
    Called("glob"),
]
"""A pattern for files below a directory: relative and without `..`; `**` is any depth."""

MemorySize = Annotated[int, BeforeValidator(parse_size), _SIZE_JSON, Called("size")]
"""Bytes, written as a number or with a unit."""

ParallelMake = Annotated[int, BeforeValidator(_parse_jobs), _JOBS_JSON, Called("number or -jN")]
"""Jobs of one make, written `8` or `-j8`."""

ConfLines = Annotated[
    tuple[ConfValue, ...],
    Field(max_length=2000),
    BeforeValidator(_split_lines),
    _LINES_JSON,
    Called("text or list of lines"),
]
"""Lines of a conf file, written as one text or as a list."""

MirrorLines = Annotated[
    tuple[Annotated[ConfValue, AfterValidator(_check_mirror)], ...],
    BeforeValidator(_split_mirrors),
    _LINES_JSON,
    Called("text or list of pairs"),
]
"""Pairs of pattern and replacement, one per item, written as one text or as a list."""

Command = Annotated[
    tuple[Annotated[ConfValue, Field(min_length=1)], ...],
    Field(min_length=1),
    BeforeValidator(_split_command),
    _LINES_JSON,
    Called("command or list of arguments"),
]
"""A program with arguments, written as a shell would split it or as a list."""
