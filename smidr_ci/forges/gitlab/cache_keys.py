"""Which archives a `cache:` entry means: its keys, made harmless (GitLab Runner: cache keys)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from smidr_ci.errors import ConfigError
from smidr_ci.forges.gitlab.payload import Cache
from smidr_ci.forges.gitlab.variables import expand_text
from smidr_ci.text import printable

__all__ = ["fallback_keys", "key_of", "policy_of", "sanitized"]

_POLICIES: Final = frozenset({"pull", "push", "pull-push"})
_SLASH: Final = re.compile(r"%2f|\\", re.IGNORECASE)
_DOT: Final = re.compile(r"%2e", re.IGNORECASE)
_PROTECTED: Final = "-protected"


def sanitized(key: str) -> str:
    """The key as a relative path without `.` and `..`; empty when nothing is left of it."""
    text = _DOT.sub(".", _SLASH.sub("/", key)).strip()
    return posixpath.normpath(f"/{text}").strip("/").strip()


def key_of(entry: Cache, variables: Mapping[str, str], warn: Callable[[str], None]) -> str:
    """What the entry's archive is saved as; empty when it can't have a name."""
    default = "$CI_JOB_NAME/$CI_COMMIT_REF_NAME"
    return _told(expand_text(entry.key or default, variables), warn)


def fallback_keys(
    entry: Cache, variables: Mapping[str, str], warn: Callable[[str], None]
) -> Iterator[str]:
    """What is looked for, in order, when the entry's own archive is not there."""
    for key in entry.fallback_keys:
        yield _told(expand_text(key, variables), warn)
    common = variables.get("CACHE_FALLBACK_KEY", "")
    if not common:
        return
    found = _told(common, warn)
    if found.endswith(_PROTECTED):
        # GitLab gives this end to what jobs of protected refs keep.
        warn(f'CACHE_FALLBACK_KEY "{printable(common)[:200]}" may not end in "{_PROTECTED}"')
        return
    yield found


def policy_of(entry: Cache, variables: Mapping[str, str]) -> str:
    """`pull`, `push` or `pull-push`; raises `ConfigError` for anything else."""
    policy = expand_text(entry.policy, variables).strip() or "pull-push"
    if policy not in _POLICIES:
        raise ConfigError(
            f"{printable(policy)[:80]!r} is no cache policy",
            where="cache:policy",
            hint="Write pull, push or pull-push, or a variable that holds one of them.",
        )
    return policy


def _told(key: str, warn: Callable[[str], None]) -> str:
    found, shown = sanitized(key), printable(key)[:200]
    if not found:
        warn(f'cache key "{shown}" could not be sanitized; it is passed over')
    elif found != key:
        warn(f'cache key "{shown}" sanitized to "{printable(found)[:200]}"')
    return found
