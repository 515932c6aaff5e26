"""Up to when each folder of a cache has been offered to a store, in one SQLite file.

A folder is looked into again when its modification time has changed; then what changed in it since
the last look is offered. Damage or loss of the file costs a look at everything, no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from smidr_ci.disposable import DisposableFormat

__all__ = ["Ledger", "Mark", "Refusal"]

_RACY_NS: Final = 2_000_000_000
_TABLES: Final = """
create table if not exists folders (
    store text not null, cache text not null, root text not null, path blob not null,
    mtime_ns integer not null, looked_ns integer not null, is_leaf integer not null,
    primary key (store, cache, root, path)) without rowid;
create table if not exists refused (
    store text not null, cache text not null, root text not null, path text not null,
    reason text not null, primary key (store, cache, root, path)) without rowid;
create table if not exists facts (
    store text not null, name text not null, value text not null,
    primary key (store, name)) without rowid;
"""
_DATABASE: Final = DisposableFormat(
    version=1,
    tables=("folders", "refused", "facts"),
    script=_TABLES,
    busy_s=10.0,
    is_shared=True,
)


@dataclass(frozen=True)
class Mark:
    """A folder as it was when all that it held had been offered."""

    mtime_ns: int
    looked_ns: int
    is_leaf: bool

    def is_current(self, mtime_ns: int) -> bool:
        """Whether nothing can have come since."""
        # What changed within a tick of the file system's clock after the look shows no new time.
        return self.mtime_ns == mtime_ns and self.looked_ns - mtime_ns > _RACY_NS

    @property
    def since_ns(self) -> int:
        """What changed later may not have been seen then."""
        return self.looked_ns - _RACY_NS


@dataclass(frozen=True)
class Refusal:
    """A file that is damaged and was therefore not offered."""

    cache: str
    root: str
    path: str
    reason: str


class Ledger:
    """The ledger of one store, by its URL. Raises `sqlite3.Error`; close it, as by `with`.

    Used by one thread; several processes may have it open.
    """

    def __init__(self, path: Path, store: str) -> None:
        self._path = path
        self._store = store
        self._database = _DATABASE.connect(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def mark(self, cache: str, root: str, path: bytes) -> Mark | None:
        """What is known of a folder; `path` is relative, empty for the root."""
        query = (
            "select mtime_ns, looked_ns, is_leaf from folders"
            " where store = ? and cache = ? and root = ? and path = ?"
        )
        row = self._database.execute(query, (self._store, cache, root, path)).fetchone()
        return None if row is None else Mark(row[0], row[1], bool(row[2]))

    def note(self, cache: str, root: str, path: bytes, mark: Mark) -> None:
        """All that the folder held at that time has been offered."""
        values = (self._store, cache, root, path, mark.mtime_ns, mark.looked_ns, mark.is_leaf)
        with self._database:
            self._database.execute(
                "insert or replace into folders values (?, ?, ?, ?, ?, ?, ?)", values
            )

    def forget_folders(self) -> None:
        """Offer everything again."""
        with self._database:
            self._database.execute("delete from folders where store = ?", (self._store,))

    def refuse(self, refusal: Refusal) -> None:
        """Remember a damaged file."""
        values = (self._store, refusal.cache, refusal.root, refusal.path, refusal.reason[:500])
        with self._database:
            self._database.execute("insert or replace into refused values (?, ?, ?, ?, ?)", values)

    def refusals(self) -> tuple[Refusal, ...]:
        """Damaged files, those that are gone among them."""
        query = "select cache, root, path, reason from refused where store = ? limit 1000"
        return tuple(Refusal(*row) for row in self._database.execute(query, (self._store,)))

    def drop_refusal(self, refusal: Refusal) -> None:
        """It is gone, or whole again."""
        with self._database:
            self._database.execute(
                "delete from refused where store = ? and cache = ? and root = ? and path = ?",
                (self._store, refusal.cache, refusal.root, refusal.path),
            )

    def facts(self) -> dict[str, str]:
        """What else was noted of the store."""
        query = "select name, value from facts where store = ?"
        return dict(self._database.execute(query, (self._store,)).fetchall())

    def state(self, **facts: str) -> None:
        """Note facts."""
        rows = [(self._store, name, value) for name, value in facts.items()]
        with self._database:
            self._database.executemany("insert or replace into facts values (?, ?, ?)", rows)

    def count(self, **numbers: int) -> None:
        """Add to facts that are numbers."""
        known = self.facts()
        self.state(
            **{name: str(int(known.get(name, "0")) + more) for name, more in numbers.items()}
        )
