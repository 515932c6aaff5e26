"""Names that GitHub takes for artifacts, and that no two files share."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from smidr_ci.text import printable

__all__ = ["mime_type_of", "names_for", "next_name"]

_REFUSED: Final = re.compile(r'[":<>|*?\r\n\\/]')
_LONGEST: Final = 200
_OCTETS: Final = "application/octet-stream"


def names_for(paths: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A name per path: that of the file, with its directories where two would be the same.

    GitHub refuses some signs, and tells big and small letters not always apart.
    """
    listed = list(dict.fromkeys(paths))
    used = {name.lower() for name in taken}
    found: dict[str, str] = {}
    short: dict[str, int] = {}
    for path in listed:
        key = _clean(PurePosixPath(path).name).lower()
        short[key] = short.get(key, 0) + 1
    for path in listed:
        name = _clean(PurePosixPath(path).name)
        if short[name.lower()] > 1:
            name = _clean(path)
        while name.lower() in used:
            name = next_name(name)
        used.add(name.lower())
        found[path] = name
    return found


def next_name(name: str) -> str:
    """Another name when this one is taken: `image.wic` becomes `image-2.wic`."""
    stem, dot, suffix = name.partition(".")
    counted = re.fullmatch(r"(.*)-(\d{1,6})", stem)
    number = int(counted[2]) + 1 if counted else 2
    return f"{counted[1] if counted else stem}-{number}{dot}{suffix}"


def mime_type_of(name: str) -> str:
    """By the name's end; a compressed file is what it is, and not what is in it."""
    kind, encoding = mimetypes.guess_type(name, strict=True)
    return _OCTETS if encoding or not kind else kind


def _clean(text: str) -> str:
    name = _REFUSED.sub("_", printable(text)).strip(" .")
    raw = name.encode("utf-8", "replace").decode()
    while len(raw.encode()) > _LONGEST:
        # The end tells what kind of file it is.
        raw = raw[: len(raw) // 2 - 1] + raw[len(raw) // 2 + 1 :]
    return raw or "artifact"
