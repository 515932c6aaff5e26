"""Layer mirrors and trees as things that can be collected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from smidr_ci.caches.item_cache import Item, ItemCache, tree_size
from smidr_ci.cancel import CancelToken
from smidr_ci.files import make_marked_dir, remove_marked_tree
from smidr_ci.layers.locks import hold_now
from smidr_ci.layers.store import LayerStore
from smidr_ci.layers.tree import StoredTree

__all__ = ["layer_cache"]


def layer_cache(store: LayerStore) -> ItemCache:
    """Trees by their last lease; mirrors by the last fetch, or the last use of a tree of theirs."""
    return ItemCache("layers", store.trees.parent, lambda cancel: [*_items(store, cancel)])


def _items(store: LayerStore, cancel: CancelToken) -> Iterator[Item]:
    uses: dict[str, int] = {}
    for tree in store.list_trees():
        with contextlib.suppress(OSError):
            use_s = int(tree.last_used)
            uses[tree.repository] = max(uses.get(tree.repository, 0), use_s)
            size = int(tree.notes.get("size", (0, 0))[1])
            yield Item(str(tree.home), use_s, size, lambda tree=tree: _remove_tree(store, tree))  # type: ignore[misc]  # mypy has no types for defaults of lambdas
    for path in sorted(store.mirrors.glob("*.git")):
        if not path.is_symlink() and path.is_dir():
            yield _mirror(store, path, uses, cancel)


def _remove_tree(store: LayerStore, tree: StoredTree) -> bool:
    try:
        return store.remove_tree(tree)
    except OSError:
        return False


def _mirror(store: LayerStore, path: Path, uses: dict[str, int], cancel: CancelToken) -> Item:
    # Names and locks: layers.urls.RepositoryUrl and layers.bring.Bringer.
    name = path.name.removesuffix(".git")
    repository = name.removesuffix(".history")
    kind = "mirror" if name == repository else "history"
    lock = store.locks / f"{kind}-{repository}.lock"
    times = [uses.get(repository, 0)]
    for part in ("", "refs/smidr/commits", "refs/smidr/heads", "objects/pack"):
        with contextlib.suppress(OSError):
            times.append(int((path / part).stat().st_mtime))

    def remove() -> bool:
        try:
            with hold_now(lock) as held:
                if held is None:
                    return False
                make_marked_dir(path)
                remove_marked_tree(path, store.mirrors)
        except OSError:
            return False
        return True

    return Item(str(path), max(times), tree_size(path, cancel), remove)
