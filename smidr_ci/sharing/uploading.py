"""One round of uploads: what is new in the caches and whole goes to the store.

Everything can be repeated: the store is asked before, and a folder counts as offered only when all
of it was. What a kill interrupts is offered again in the next round.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.caches.verify import State, check_download, check_object, check_tarball
from smidr_ci.cancel import CancelToken
from smidr_ci.files import open_untrusted
from smidr_ci.sharing.ledger import Ledger, Refusal
from smidr_ci.sharing.names import COMPANIONS, SSTATE, is_repository_tarball, key_of
from smidr_ci.sharing.scan import SharedTree, new_in
from smidr_ci.stores.content import ChangedError, Content, sha256_of
from smidr_ci.stores.model import ObjectStore

__all__ = ["Round", "Tally"]

_GOOD: Final = frozenset({State.PROVEN, State.WHOLE})
Check = Callable[[Path, str, CancelToken], tuple[State, str]]


@dataclass
class Tally:
    """What a round came to, so far."""

    uploaded: int = 0
    """Objects and downloads."""
    uploaded_bytes: int = 0
    """With what describes them."""
    present: int = 0
    """Those that the store had."""
    damaged: int = 0
    unproven: int = 0
    """Those that nothing says of what they should be, or that can't be read."""
    unsettled: int = 0
    """Folders in which more may have come within a tick of the clock: look again soon."""


class Round:
    """Offers what is new; counts into `tally` as it goes. `told` hears of what is refused."""

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        cancel: CancelToken,
        told: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._ledger = ledger
        self._cancel = cancel
        self._told = told

    def run(self, trees: Sequence[SharedTree]) -> Tally:
        """Offer all that is new.

        Raises `StoreError` when the store fails, `OSError` for a cache that can't be read,
        `sqlite3.Error` for the ledger, and `CancelledError`.
        """
        self._forget_what_is_gone()
        for tree in trees:
            root = os.path.realpath(tree.root)
            for folder in new_in(tree, self._ledger, self._cancel):
                self.tally.unsettled += not folder.mark.is_current(folder.mark.mtime_ns)
                offered = [self._offer(tree, folder.inner(name)) for name in folder.names]
                if all(offered):
                    self._ledger.note(tree.cache, root, folder.path, folder.mark)
        return self.tally

    def _forget_what_is_gone(self) -> None:
        for refusal in self._ledger.refusals():
            if not os.path.lexists(os.path.join(refusal.root, refusal.path)):
                self._ledger.drop_refusal(refusal)

    def _offer(self, tree: SharedTree, path: str) -> bool:
        """False when it has to be offered again."""
        self._cancel.raise_if_cancelled()
        name = path.rpartition("/")[2]
        refusal = Refusal(tree.cache, os.path.realpath(tree.root), path, "")
        try:
            is_there = self._is_there(tree, path, name)
            state, reason = (State.PROVEN, "") if is_there else self._check(tree, path, name)
            if state is State.DAMAGED:
                self._refuse(refusal, reason)
            elif state in _GOOD:
                self._put_unit(tree, path, is_there=is_there)
                self._ledger.drop_refusal(refusal)
            else:
                self.tally.unproven += 1
        except (FileNotFoundError, ValueError):
            return True  # a collection took it, or no build could ask for it
        except (OSError, ChangedError):
            self.tally.unproven += 1
            return False
        return True

    def _is_there(self, tree: SharedTree, path: str, name: str) -> bool:
        stored = self._store.head(key_of(tree.cache, path))
        if stored is None or not is_repository_tarball(name):
            return stored is not None
        # Such a tarball grows with its repository, under the same name.
        return stored.size_bytes == (tree.root / path).lstat().st_size

    def _check(self, tree: SharedTree, path: str, name: str) -> tuple[State, str]:
        check: Check = check_object if tree.cache == SSTATE else check_download
        if tree.cache != SSTATE and is_repository_tarball(name):
            check = check_tarball
        return check(tree.root, path, self._cancel)

    def _refuse(self, refusal: Refusal, reason: str) -> None:
        self.tally.damaged += 1
        self._ledger.refuse(Refusal(refusal.cache, refusal.root, refusal.path, reason))
        self._told(f"{refusal.cache}: {refusal.path} is damaged and not shared: {reason}")

    def _put_unit(self, tree: SharedTree, path: str, *, is_there: bool) -> None:
        # What describes an object goes first: whoever finds the object finds all of it.
        for suffix in COMPANIONS if tree.cache == SSTATE else ():
            if os.path.lexists(tree.root / f"{path}{suffix}"):
                key = key_of(tree.cache, f"{path}{suffix}")
                if self._store.head(key) is None:
                    self._put(key, tree.root / f"{path}{suffix}")
        if is_there:
            self.tally.present += 1
        else:
            self._put(key_of(tree.cache, path), tree.root / path)
            self.tally.uploaded += 1

    def _put(self, key: str, path: Path) -> None:
        with open_untrusted(path) as file:
            size_bytes, sha256 = sha256_of(file)
        self._store.put(key, Content.of_file(path, size_bytes, sha256), self._cancel)
        self.tally.uploaded_bytes += size_bytes
