"""SQLite files that can be made anew at any time: what is damaged, or of another format, goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DisposableFormat"]


@dataclass(frozen=True)
class DisposableFormat:
    """What such a file holds."""

    version: int
    """Noted in the file; with another one, the tables are dropped."""
    tables: Sequence[str]
    script: str
    """Makes the tables that are missing."""
    busy_s: float
    """How long to wait for another process's lock."""
    is_shared: bool = False
    """One connection for several threads, and a write-ahead log for readers beside a writer."""

    def connect(self, path: Path) -> sqlite3.Connection:
        """A connection; raises `sqlite3.Error`, and `OSError`."""
        try:
            return self._try_connect(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            path.unlink(missing_ok=True)
            return self._try_connect(path)

    def _try_connect(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=self.busy_s, check_same_thread=not self.is_shared)
        try:
            (version,) = database.execute("pragma user_version").fetchone()
            if version != self.version:
                for table in self.tables:
                    database.execute(f"drop table if exists {table}")
                database.execute(f"pragma user_version = {self.version}")
            if self.is_shared:
                database.execute("pragma journal_mode = wal")
            # It can be made anew; a crash of the host may cost a look at some folders.
            database.execute("pragma synchronous = off")
            database.executescript(self.script)
        except BaseException:
            database.close()
            raise
        return database
