"""The types of single values: each refuses what could do harm and says what to write instead.

Every type carries the JSON schema of what it takes, so that editors refuse the same.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Strict, StringConstraints, WithJsonSchema

from smidr_ci.config.environment import check_environment_names
from smidr_ci.config.giturl import GIT_URL_SCHEMA, check_git_url

__all__ = [
    "Flag",
    "GitUrl",
    "Glob",
    "HostPath",
    "LayerPath",
    "MemorySize",
    "ParallelMake",
    "SubFolder",
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


def parse_size(value: object) -> int:
    """Bytes from an int or `512M`, `8G`, `1.5g`, `8GiB` (each unit is 1024 of the one before).

    Raises ValueError.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            raise ValueError("is not a size; write bytes or a unit: 512M, 8G, 1.5G")
        size = math.floor(float(found[1]) * 1024 ** _UNITS[(found[2] or "").lower()])
    if not 0 < size <= _MAX_SIZE:
        raise ValueError("is a size out of range; write bytes or a unit: 512M, 8G, 1.5G")
    return size


def _parse_jobs(value: object) -> int:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _JOBS.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 32 else None
    if found is None or int(found[1]) > _MAX_JOBS:
        raise ValueError(f"is not a number of jobs; write 8 or -j8 (at most {_MAX_JOBS})")
    return int(found[1])


def _check_path(path: str) -> str:
    if not path.strip():
        raise ValueError("is an empty path; write . for the directory of smidr.yaml")
    if _CONTROL.search(path):
        raise ValueError("is a path with a control character")
    return path


def _check_relative(path: str) -> str:
    _check_path(path)
    if path.startswith(("/", "~")):
        raise ValueError("must be relative, without a leading / or ~")
    if ".." in path.split("/"):
        raise ValueError("must stay inside: .. is not allowed")
    return path


def _check_glob(glob: str) -> str:
    _check_relative(glob)
    if sum(part == "**" for part in glob.split("/")) > _MAX_RECURSIVE_PARTS:
        raise ValueError(f"has more than {_MAX_RECURSIVE_PARTS} times **")
    return glob


def _size_schema() -> dict[str, Any]:
    text = {"type": "string", "pattern": f"^{_SIZE.pattern}$"}
    return {"anyOf": [{"type": "integer", "exclusiveMinimum": 0, "maximum": _MAX_SIZE}, text]}


def _jobs_schema() -> dict[str, Any]:
    text = {"type": "string", "pattern": f"^{_JOBS.pattern}$"}
    return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MAX_JOBS}, text]}


_INSIDE: Final = r"^(?!/|~)(?!(.*/)?\.\.(/|$))[^\x00-\x1f\x7f]+$"

Flag = Annotated[bool, Strict()]
"""`true` or `false`; no string or number that happens to mean one."""

GitUrl = Annotated[str, AfterValidator(check_git_url), WithJsonSchema(GIT_URL_SCHEMA)]
"""A URL that git may be given (see `giturl`)."""

LayerPath = Annotated[
    str,
    StringConstraints(max_length=4096),
    AfterValidator(_check_path),
    WithJsonSchema({"type": "string", "pattern": r"^[^\x00-\x1f\x7f]+$", "maxLength": 4096}),
]
"""A path, relative to the file or absolute; a leading `~/` is the user's home."""

HostPath = LayerPath
"""A directory of the host; the same rules as for `LayerPath`."""

SubFolder = Annotated[
    str,
    StringConstraints(max_length=1024),
    AfterValidator(_check_relative),
    WithJsonSchema({"type": "string", "pattern": _INSIDE, "maxLength": 1024}),
]
"""A folder inside a repository: relative and without `..`; `.` is the repository itself."""

Glob = Annotated[
    str,
    StringConstraints(max_length=1024),
    AfterValidator(_check_glob),
    WithJsonSchema({"type": "string", "pattern": _INSIDE, "maxLength": 1024}),
]
"""A pattern for files below a directory: relative and without `..`; `**` is any depth."""

MemorySize = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_size_schema())]
"""Bytes, written as a number or with a unit."""

ParallelMake = Annotated[int, BeforeValidator(_parse_jobs), WithJsonSchema(_jobs_schema())]
"""Jobs of one make, written `8` or `-j8`."""
