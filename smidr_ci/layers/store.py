"""The layer store: from the entries of `smidr.yaml` to checked, immutable trees."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.layers.assemble import assemble
from smidr_ci.layers.discover import Discovery, select
from smidr_ci.layers.entries import check_entries, check_schemes, local_path, make_roots
from smidr_ci.layers.failures import OneLayerError, raise_problems
from smidr_ci.layers.lockfile import Lockfile
from smidr_ci.layers.model import FoundLayer, LayerSet, LayerTree
from smidr_ci.layers.resolve import Resolved, ask, in_parallel, pin, prove_access
from smidr_ci.layers.tree import StoredTree, TreeStore
from smidr_ci.layers.urls import SCHEMES
from smidr_ci.layers.verified import was_on_branch

if TYPE_CHECKING:
    # A no-op sync needs none of these, and importing them costs more than all of it.
    from smidr_ci.config.models import LayerEntry
    from smidr_ci.layers.bring import Bringer
    from smidr_ci.layers.credentials import Credentials

__all__ = ["LayerStore"]

Report = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class LayerStore:
    """Mirrors and trees of one host, shared by any number of processes and threads.

    A tree never changes and is never moved while it is leased. Every failure is an error that names
    the layer; an old tree is never used in place of one that can't be had.
    """

    mirrors: Path
    trees: Path
    locks: Path
    credentials: Credentials | None = None
    """None: no identity at all, not even the user's ssh keys (a stranger's job)."""
    clock: Clock = field(default_factory=SystemClock)
    attempts: int = 4
    """Tries per URL after a network failure."""
    timeout_s: float = 1800.0
    """Limit of one git command."""
    schemes: tuple[str, ...] = SCHEMES
    """URL schemes that entries may use."""
    proves_access: bool = False
    """For a stranger: a tree that is here counts only if its repository answers with what these
    credentials open, and mirrors are not asked."""

    def resolve(
        self,
        entries: Sequence[LayerEntry],
        *,
        lock: Lockfile | None,
        locked: bool = False,
        series: str | None = None,
        report: Report,
        cancel: CancelToken,
    ) -> tuple[Resolved, ...]:
        """The commit of every git entry, without fetching; `lock_entry` of each makes a lockfile.

        Raises `LayerError` that names all layers in trouble, and `CancelledError`.
        """
        run = _Run(_one_at_a_time(report), cancel)
        check_entries(entries)
        return self._resolve(entries, lock, run, locked=locked, series=series)

    def sync(  # noqa: PLR0913  keywords, each a fact that only the caller knows
        self,
        entries: Sequence[LayerEntry],
        *,
        base_dir: Path,
        lock: Lockfile | None = None,
        locked: bool = False,
        series: str | None = None,
        provider: str | None = None,
        confine_to: Path | None = None,
        report: Report,
        cancel: CancelToken,
    ) -> LayerSet:
        """Make every entry present as a tree, find and check its layers, and order them.

        `base_dir` is what `path` entries are relative to; with `confine_to` they must lie below it
        (an untrusted project). `provider` names the entry whose init script and BitBake win.
        Raises `LayerError` that names all layers in trouble, and `CancelledError`.
        """
        run = _Run(_one_at_a_time(report), cancel)
        check_entries(entries)
        local = _collect(
            lambda entry: local_path(entry, base_dir, confine_to),
            [entry for entry in entries if entry.git is None],
        )
        resolved = {
            one.asked.name: one
            for one in self._resolve(entries, lock, run, locked=locked, series=series)
        }
        if self.proves_access:
            prove_access(resolved.values(), self._bringer(run).remote, cancel)
        stored = self._make_present(list(resolved.values()), local, run)
        trees = _collect(
            lambda entry: _describe(
                entry, resolved.get(entry.name), stored[entry.name], run.report
            ),
            entries,
        )
        return assemble(trees, series=series, provider=provider, report=run.report)

    def contents(
        self,
        entries: Sequence[LayerEntry],
        *,
        base_dir: Path,
        confine_to: Path | None = None,
        cancel: CancelToken,
    ) -> dict[str, str]:
        """A hash of what each `path` entry holds now, by name; nothing is copied.

        Raises `LayerError`, `CancelledError`, and `OSError` for what can't be read.
        """
        local = _collect(
            lambda entry: local_path(entry, base_dir, confine_to),
            [entry for entry in entries if entry.git is None],
        )
        if not local:
            return {}
        bringer = self._bringer(_Run(lambda _: None, cancel))
        return {name: bringer.content_of(name, path) for name, path in local}

    @contextmanager
    def lease(self, layers: LayerSet) -> Iterator[None]:
        """Keep the trees from being removed while the context lasts, in any process.

        Raises `LayerError` when one is gone already.
        """
        with self._tree_store().lease([tree.tree.parent for tree in layers.trees]):
            yield

    def list_trees(self) -> list[StoredTree]:
        """All complete trees of this host."""
        return self._tree_store().list_trees()

    def remove_tree(self, tree: StoredTree) -> bool:
        """Delete a tree unless a process leases it; says whether it is gone."""
        return self._tree_store().remove(tree)

    def _tree_store(self) -> TreeStore:
        return TreeStore(self.trees, self.locks)

    def _bringer(self, run: _Run) -> Bringer:
        from smidr_ci.layers.bring import Bringer  # noqa: PLC0415  a no-op sync does without
        from smidr_ci.layers.credentials import Credentials  # noqa: PLC0415  as above
        from smidr_ci.layers.gitcmd import Git  # noqa: PLC0415  as above

        roots = (self.mirrors, self.trees, self.locks)
        make_roots(roots)
        return Bringer(
            mirrors=self.mirrors,
            trees=self._tree_store(),
            git=Git(self.schemes, self.timeout_s),
            credentials=self.credentials or Credentials(),
            clock=self.clock,
            attempts=self.attempts,
            report=run.report,
            cancel=run.cancel,
            apart=tuple(root.resolve() for root in roots),
        )

    def _resolve(
        self,
        entries: Sequence[LayerEntry],
        lock: Lockfile | None,
        run: _Run,
        *,
        locked: bool,
        series: str | None,
    ) -> tuple[Resolved, ...]:
        asked = _collect(lambda entry: ask(entry, series), [e for e in entries if e.git])
        if self.proves_access:
            asked = [replace(one, urls=one.urls[:1]) for one in asked]
        check_schemes(asked, self.schemes)
        return tuple(
            pin(asked, lock, lambda one: self._bringer(run).remote(one), run.cancel, locked=locked)
        )

    def _make_present(
        self, resolved: Sequence[Resolved], local: Sequence[tuple[str, Path]], run: _Run
    ) -> dict[str, StoredTree]:
        stored: dict[str, StoredTree] = {}
        missing: list[Resolved | tuple[str, Path]] = [*local]
        for one in resolved:
            tree = self._find(one)
            if tree is None:
                missing.append(one)
            else:
                stored[one.asked.name] = tree
        if not missing:
            return stored
        bringer = self._bringer(run)

        def make(item: Resolved | tuple[str, Path]) -> tuple[str, StoredTree]:
            if isinstance(item, tuple):
                return item[0], bringer.copy(*item)
            return item.asked.name, bringer.bring(item)

        return stored | dict(in_parallel(make, missing))

    def _find(self, one: Resolved) -> StoredTree | None:
        """The tree, when it is there and nothing is left to verify; files only, no process."""
        url, branch = one.asked.url, one.asked.must_be_on
        mirror = self.mirrors / url.mirror_name
        if branch and not was_on_branch(mirror, one.commit, branch, one.asked.urls):
            return None
        return self._tree_store().find(url.directory_name, one.commit)


@dataclass(frozen=True)
class _Run:
    """Whom one call reports to, and who may cancel it."""

    report: Report
    cancel: CancelToken


def _describe(
    entry: LayerEntry, resolved: Resolved | None, stored: StoredTree, report: Report
) -> LayerTree:
    found = Discovery.from_notes(stored.notes)
    layers = _select(entry, found, stored, report)
    if resolved is None:
        origin, ref, commit = entry.path or "", "", f"local-{stored.commit}"
    else:
        asked = resolved.asked
        origin, ref, commit = asked.url.url, asked.plain_ref, resolved.commit
    return LayerTree(
        name=entry.name,
        origin=origin,
        ref=ref,
        commit=commit,
        tree=stored.files,
        layers=layers,
        bitbake=found.bitbake,
        init_script=found.init_script,
    )


def _select(
    entry: LayerEntry, found: Discovery, stored: StoredTree, report: Report
) -> tuple[FoundLayer, ...]:
    submodules = stored.notes.get("submodules", [])
    shown = ", ".join(submodules[:5])
    if submodules:
        report(f"{entry.name}: git submodules are not fetched and stay empty: {shown}")
    try:
        return select(found, stored.files, entry.name, entry.layers)
    except OneLayerError as problem:
        if not submodules:
            raise
        hint = f"{problem.hint} Submodules stay empty ({shown}): give them entries of their own."
        raise OneLayerError(problem.layer, problem.message, hint) from problem


def _collect(work: Callable[[LayerEntry], T], entries: Sequence[LayerEntry]) -> list[T]:
    results: list[T] = []
    problems = []
    for entry in entries:
        try:
            results.append(work(entry))
        except OneLayerError as problem:
            problems.append(problem)
    raise_problems(problems)
    return results


def _one_at_a_time(report: Report) -> Report:
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            report(line)

    return say
