"""From the refs of `smidr.yaml` to commits: pinned ones first, then one question per repository."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import LayerError
from smidr_ci.layers.failures import GitError, GitFailure, OneLayerError, hint_for, raise_problems
from smidr_ci.layers.lockfile import LockEntry, Lockfile
from smidr_ci.layers.urls import RepositoryUrl, parse_url

if TYPE_CHECKING:
    # Annotations only: importing these costs more than a whole no-op sync.
    from smidr_ci.config.models import LayerEntry
    from smidr_ci.layers.remote import Refs, Remote

__all__ = [
    "Asked",
    "Resolved",
    "ask",
    "disk_or_other",
    "in_parallel",
    "pin",
    "problem_from",
    "prove_access",
]

T = TypeVar("T")
R = TypeVar("R")

_WORKERS = 8


@dataclass(frozen=True)
class Asked:
    """A git entry of `smidr.yaml`, read: where to ask, and for what."""

    name: str
    urls: tuple[RepositoryUrl, ...]
    ref: str
    """As in the lockfile: `branch:NAME`, `tag:NAME`, `commit:ID` or `HEAD`."""
    must_be_on: str | None = None
    """The branch that has to contain the commit."""

    @property
    def url(self) -> RepositoryUrl:
        """The repository's own URL."""
        return self.urls[0]

    @property
    def plain_ref(self) -> str:
        """The name without its kind."""
        return self.ref.partition(":")[2] or self.ref


@dataclass(frozen=True)
class Resolved:
    """An entry and its commit."""

    asked: Asked
    commit: str

    @property
    def lock_entry(self) -> LockEntry:
        """As `smidr.lock` keeps it."""
        return LockEntry(self.asked.name, self.asked.url.url, self.asked.ref, self.commit)


def ask(entry: LayerEntry, series: str | None) -> Asked:
    """Read a git entry; without a ref it follows the branch named like the release, else HEAD.

    Raises `OneLayerError` for a URL or a choice of refs that can't be used.
    """
    if entry.tag and (entry.branch or entry.commit):
        raise OneLayerError(
            entry.name,
            "`tag` stands beside `branch` or `commit`",
            "Keep one of them; only `commit` with `branch` go together.",
        )
    try:
        urls = tuple(parse_url(url) for url in (entry.git or "", *entry.mirrors))
    except LayerError as error:
        raise OneLayerError(entry.name, error.message, error.hint) from error
    if entry.commit:
        return Asked(entry.name, urls, f"commit:{entry.commit}", entry.branch)
    if entry.tag:
        return Asked(entry.name, urls, f"tag:{entry.tag}")
    branch = entry.branch or series
    return Asked(entry.name, urls, f"branch:{branch}" if branch else "HEAD")


def pin(
    asked: Sequence[Asked],
    lock: Lockfile | None,
    remote_for: Callable[[Asked], Remote],
    cancel: CancelToken,
    *,
    locked: bool,
) -> list[Resolved]:
    """The commit of each: its own, else the lock's, else what the repository says now.

    With `locked` nothing is asked. Raises `LayerError` that names every layer without a commit.
    """
    known = {one.name: _pinned(one, lock) for one in asked}
    open_ones = [one for one in asked if known[one.name] is None]
    if locked:
        raise_problems(_unlocked(one, lock) for one in open_ones)
    groups: dict[tuple[str, ...], list[Asked]] = {}
    for one in open_ones:
        groups.setdefault(tuple(url.key for url in one.urls), []).append(one)

    def look_up(group: list[Asked]) -> dict[str, str]:
        try:
            refs = remote_for(group[0]).list_refs(cancel)
        except GitError as error:
            names = ", ".join(one.name for one in group)
            raise problem_from(error, names) from error
        except OSError as error:
            raise disk_or_other(error, group[0].name) from error
        problems: list[OneLayerError] = []
        commits = {}
        for one in group:
            try:
                commits[one.name] = _commit_of(one, refs)
            except OneLayerError as problem:
                problems.append(problem)
        if problems:
            raise ExceptionGroup("refs", problems)
        return commits

    for commits in in_parallel(look_up, list(groups.values())):
        known.update(commits)
    return [Resolved(one, known[one.name] or "") for one in asked]


def prove_access(
    resolved: Iterable[Resolved], remote_for: Callable[[Asked], Remote], cancel: CancelToken
) -> None:
    """Ask each repository whether it answers; raises `LayerError` that names all that don't.

    Repositories that an earlier build could read need not be for everybody's eyes.
    """
    first = {one.asked.url.key: one.asked for one in resolved}

    def look(asked: Asked) -> None:
        try:
            remote_for(asked).list_refs(cancel)
        except GitError as error:
            raise problem_from(error, asked.name) from error
        except OSError as error:
            raise disk_or_other(error, asked.name) from error

    in_parallel(look, list(first.values()))


def _pinned(asked: Asked, lock: Lockfile | None) -> str | None:
    if asked.ref.startswith("commit:"):
        return asked.plain_ref
    return lock.commit_for(asked.name, asked.url, asked.ref) if lock else None


def _unlocked(asked: Asked, lock: Lockfile | None) -> OneLayerError:
    entry = lock.entries.get(asked.name) if lock else None
    if lock is None:
        why = "is not pinned: there is no smidr.lock"
    elif entry is None:
        why = "is not in smidr.lock"
    else:
        why = f"is pinned in smidr.lock for {entry.git} {entry.ref}, not for {asked.url.url}"
    return OneLayerError(
        asked.name,
        f"{asked.ref} {why}",
        "Run `smidr lock` and commit smidr.lock; --locked builds pinned layers only.",
    )


def _commit_of(asked: Asked, refs: Refs) -> str:
    kind, _, name = asked.ref.partition(":")
    if kind == "HEAD":
        if refs.head:
            return refs.head
        raise OneLayerError(asked.name, f"{refs.url.url} has no commits", "Name a `branch`.")
    table, other = (refs.branches, refs.tags) if kind == "branch" else (refs.tags, refs.branches)
    if name in table:
        return table[name]
    if name in other:
        there = "tag" if kind == "branch" else "branch"
        hint = f"There is a {there} of this name: write `{there}: {name}`."
    else:
        near = ", ".join(refs.near(name))
        hint = f"The nearest names there: {near}." if near else "The repository is empty."
    raise OneLayerError(asked.name, f"{kind} {name} does not exist in {refs.url.url}", hint)


def problem_from(error: GitError, name: str) -> OneLayerError:
    """What a failure of git means for the user of this layer."""
    where = f"{error.url}: " if error.url else ""
    return OneLayerError(
        name, f"{where}{error.failure}: {error.line}", hint_for(error.failure), error.failure
    )


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Do the work on all items in threads, all to the end; results in order.

    Raises what is not a layer's fault first (cancelled), else one `LayerError` for all layers.
    """
    if len(items) < 2:
        outcomes = [_outcome(work, item) for item in items]
    else:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  a no-op needs no threads

        with ThreadPoolExecutor(min(_WORKERS, len(items)), "smidr-layers") as pool:
            outcomes = list(pool.map(lambda item: _outcome(work, item), items))
    errors = list(_flat(error for _, error in outcomes if error is not None))
    for error in errors:
        if not isinstance(error, OneLayerError):
            raise error
    raise_problems(error for error in errors if isinstance(error, OneLayerError))
    return [result for results, _ in outcomes for result in results]


def _outcome(work: Callable[[T], R], item: T) -> tuple[list[R], Exception | None]:
    try:
        return [work(item)], None
    except Exception as error:  # noqa: BLE001  kept until all items are done, then raised
        return [], error


def _flat(errors: Iterable[Exception]) -> Iterable[Exception]:
    for error in errors:
        if isinstance(error, ExceptionGroup):
            yield from _flat(error.exceptions)
        else:
            yield error


def disk_or_other(error: OSError, name: str) -> OneLayerError:
    """A failure of the local file system, told for this layer."""
    is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    failure = GitFailure.DISK if is_full else GitFailure.OTHER
    hint = hint_for(failure) if is_full else "Check the directory and its permissions."
    place = f"{error.filename}: " if error.filename else ""
    return OneLayerError(name, f"{place}{error.strerror or error}", hint, failure)
