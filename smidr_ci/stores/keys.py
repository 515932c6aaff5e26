"""Keys of objects: paths that stay inside, whatever the names of strangers' files are."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["check_key", "object_key"]

_STRANGE: Final = re.compile(r"[^A-Za-z0-9._+=@~:,^-]")
_PART: Final = re.compile(r"(?![.]smidr-)(?!\.{1,2}$)[A-Za-z0-9._+=@~:,^-]{1,255}")
_LONGEST_PART: Final = 255
"""What file systems take, and BitBake's names of shared state use."""
_LONGEST_KEY: Final = 900
"""S3 takes 1024 bytes; some go to the store's own prefix."""
_DIGEST: Final = 12


def object_key(*names: str) -> str:
    """One key of names that may be paths: usual characters stay, others become `_`.

    A name that was changed gets a digest of what it was, so different names stay different.
    Names like those of BitBake's shared state stay as they are.
    """
    parts = [part for name in names for part in name.split("/") if part]
    key = "/".join(_safe(part) for part in parts)
    if len(key) > _LONGEST_KEY:
        digest = _digest("/".join(parts))
        key = f"{key[: _LONGEST_KEY - 2 * _DIGEST].rstrip('/')}/{digest}"
    return check_key(key)


def check_key(key: str) -> str:
    """The key itself; raises ValueError for one that `object_key` would not make."""
    parts = key.split("/")
    if len(key) > _LONGEST_KEY or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"not the key of an object: {key[:100]!r}")
    return key


def _safe(part: str) -> str:
    if _PART.fullmatch(part):
        return part
    base = _STRANGE.sub("_", part)[: _LONGEST_PART - _DIGEST - 1].lstrip(".") or "_"
    return f"{base}-{_digest(part)}"


def _digest(text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(raw).hexdigest()[:_DIGEST]
