"""What a job's variables say about its checkout. They are a stranger's: options are an allow-list.

The names and defaults are GitLab's (GitLab docs: "Configuring runners", Git variables).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from smidr_ci.errors import ConfigError
from smidr_ci.text import printable

__all__ = ["CheckoutSettings", "attempts_of"]

_STRATEGIES: Final = frozenset({"fetch", "clone", "none", "empty"})
_SUBMODULES: Final = frozenset({"none", "normal", "recursive"})
_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)

_CLEAN: Final = frozenset({"--force", "--quiet", "--dry-run", "-e", "--exclude", "--"})
_CLEAN_LETTERS: Final = re.compile(r"-[dfnqxX]+")
_FETCH: Final = frozenset(
    {
        "--prune", "-p", "--prune-tags", "-P", "--quiet", "-q", "--verbose", "-v", "--progress",
        "--no-progress", "--tags", "-t", "--no-tags", "-n", "--force", "-f", "--atomic", "--jobs",
        "-j", "--no-auto-gc", "--no-auto-maintenance", "--update-shallow", "--ipv4", "-4", "--ipv6",
        "-6", "--show-forced-updates", "--no-show-forced-updates", "--no-recurse-submodules",
        "--shallow-since", "--shallow-exclude", "--filter", "--depth",
    }
)  # fmt: skip
_SUBMODULE_UPDATE: Final = frozenset(
    {
        "--quiet", "-q", "--progress", "--force", "-f", "--checkout", "--remote", "--jobs", "-j",
        "--recommend-shallow", "--no-recommend-shallow", "--single-branch", "--no-single-branch",
        "--depth", "--filter",
    }
)  # fmt: skip
_WITH_VALUE: Final = frozenset(
    {
        "-e", "--exclude", "--jobs", "-j", "--shallow-since", "--shallow-exclude", "--filter",
        "--depth",
    }
)  # fmt: skip


@dataclass(frozen=True)
class CheckoutSettings:
    """How the project directory is brought to the job's commit."""

    strategy: str = "fetch"
    """`fetch`, `clone`, `none` or `empty`."""
    depth: int = 0
    """0 means the whole history."""
    does_checkout: bool = True
    clean_flags: tuple[str, ...] = ("-ffdx",)
    """Empty: do not clean."""
    fetch_flags: tuple[str, ...] = ("--prune", "--quiet")
    submodules: str = "none"
    """`none`, `normal` or `recursive`."""
    submodule_depth: int = 0
    submodule_paths: tuple[str, ...] = ()
    submodule_flags: tuple[str, ...] = ()
    submodules_force_https: bool = False
    fetches_lfs: bool = True

    @classmethod
    def of(
        cls,
        variables: Mapping[str, str],
        *,
        allow_fetch: bool,
        depth: int,
        warn: Callable[[str], None],
    ) -> CheckoutSettings:
        """Read the expanded variables; a value that makes no sense is a warning and the default.

        Raises `ConfigError` for a git option that a job may not give.
        """
        read = _Reader(variables, warn)
        strategy = "fetch" if allow_fetch else "clone"
        submodule_depth = read.number("GIT_SUBMODULE_DEPTH", depth)
        return cls(
            strategy=read.word("GIT_STRATEGY", _STRATEGIES, strategy),
            depth=depth,
            does_checkout=read.flag("GIT_CHECKOUT", default=True),
            clean_flags=read.clean_flags(),
            fetch_flags=read.flags("GIT_FETCH_EXTRA_FLAGS", _FETCH, ("--prune", "--quiet")),
            submodules=read.word("GIT_SUBMODULE_STRATEGY", _SUBMODULES, "none"),
            submodule_depth=submodule_depth,
            submodule_paths=tuple(read.words("GIT_SUBMODULE_PATHS")),
            submodule_flags=read.flags("GIT_SUBMODULE_UPDATE_FLAGS", _SUBMODULE_UPDATE, ()),
            submodules_force_https=read.flag("GIT_SUBMODULE_FORCE_HTTPS", default=False),
            fetches_lfs=not read.flag("GIT_LFS_SKIP_SMUDGE", default=False),
        )


def attempts_of(variables: Mapping[str, str], name: str, warn: Callable[[str], None]) -> int:
    """A variable such as GET_SOURCES_ATTEMPTS: 1 to 10, 1 when it is not given."""
    wanted = _Reader(variables, warn).number(name, 1)
    allowed = max(1, min(wanted, 10))
    if wanted != allowed:
        warn(f"{name} is {wanted}, and must be from 1 to 10; {allowed} is used")
    return allowed


@dataclass(frozen=True)
class _Reader:
    variables: Mapping[str, str]
    warn: Callable[[str], None]

    def word(self, name: str, known: frozenset[str], default: str) -> str:
        value = self.variables.get(name, "").strip()
        if value in known or not value:
            return value or default
        self._tell(name, value, default)
        return default

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.variables.get(name, "").strip().lower()
        if value in _TRUE | _FALSE:
            return value in _TRUE
        if value:
            self._tell(name, value, str(default).lower())
        return default

    def number(self, name: str, default: int) -> int:
        value = self.variables.get(name, "").strip()
        if _NUMBER.fullmatch(value):
            return int(value)
        if value:
            self._tell(name, value, str(default))
        return default

    def words(self, name: str) -> list[str]:
        value = self.variables.get(name, "")
        try:
            found = shlex.split(value)
        except ValueError as error:
            raise _refused(name, value, f"can't be split into words: {error}") from error
        if "\0" in value:
            raise _refused(name, value, "has a NUL in it")
        return found

    def clean_flags(self) -> tuple[str, ...]:
        found = self.flags("GIT_CLEAN_FLAGS", _CLEAN, ("-ffdx",), _CLEAN_LETTERS)
        return () if self.variables.get("GIT_CLEAN_FLAGS", "").strip() == "none" else found

    def flags(
        self,
        name: str,
        allowed: frozenset[str],
        default: tuple[str, ...],
        letters: re.Pattern[str] | None = None,
    ) -> tuple[str, ...]:
        words = self.words(name)
        if words in ([], ["none"]):
            return default if not words else ()
        kept = _allowed(name, words, allowed, letters)
        if "--filter" in "".join(kept):
            self.warn(f"{name}: --filter is left out, smidr fetches whole objects")
        return tuple(_without_filter(kept))

    def _tell(self, name: str, value: str, default: str) -> None:
        self.warn(f"{name} is {printable(value)[:60]!r}, which makes no sense; {default} is used")


def _allowed(
    name: str, words: Sequence[str], allowed: frozenset[str], letters: re.Pattern[str] | None
) -> list[str]:
    is_value = False
    for position, word in enumerate(words):
        if is_value:
            is_value = False
            continue
        if word == "--":
            break
        option = word.partition("=")[0]
        if letters is not None and letters.fullmatch(word):
            continue
        if letters is not None and word.startswith("-e") and len(word) > 2:
            continue
        if letters is not None and not word.startswith("-"):
            continue  # git clean takes paths
        if option not in allowed:
            known = ", ".join(sorted(allowed))
            raise _refused(name, word, f"is an option that is not allowed; allowed are {known}")
        is_value = option in _WITH_VALUE and option == word
        if is_value and position + 1 == len(words):
            raise _refused(name, word, "has no value")
    return list(words)


def _without_filter(words: Sequence[str]) -> list[str]:
    kept, skips = [], False
    for word in words:
        if not skips and not word.startswith("--filter"):
            kept.append(word)
        skips = word == "--filter"
    return kept


def _refused(name: str, value: str, why: str) -> ConfigError:
    return ConfigError(
        f"{printable(value)[:80]!r} {why}",
        where=name,
        hint="Change this variable in .gitlab-ci.yml or in the project's settings.",
    )
