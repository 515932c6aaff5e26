"""The store's database: opened, brought up to date, and its faults told in the user's words."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from smidr_ci.builds.tables import HEAD_REVISION
from smidr_ci.errors import FailureKind, HostError

__all__ = ["Database", "upgrade_apart"]

_BUSY_TIMEOUT_S: Final = 30.0
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_DAMAGED: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_ERROR"})
_UNWRITABLE: Final = frozenset({"SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"})
_FULL_BELOW_BYTES: Final = 1 << 20


class Database:
    """Connections to an up-to-date database; safe from several threads.

    A path means SQLite in that file; text is any SQLAlchemy URL. Raises `HostError` when it can't
    be used. Do not share an instance over a fork.
    """

    def __init__(self, place: Path | str) -> None:
        self._url = _url_of(place)
        self._file = _file_of(self._url)
        self._engine = self._connectable()
        self._writing = self._engine.execution_options(smidr_writes=True)
        try:
            self._bring_up_to_date()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for queries, which never waits for writers; faults become `HostError`."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: all of it or nothing, and no other writer in between."""
        with self._translated(), self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _connectable(self) -> Engine:
        try:
            if self._file is None:
                return create_engine(self._url, pool_pre_ping=True)
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # orders hold what clients sent: nobody else's business
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            engine = create_engine(self._url, connect_args={"timeout": _BUSY_TIMEOUT_S})
        except OSError as error:
            raise self._unusable(f"can't be made: {error.strerror}") from error
        except (ImportError, NoSuchModuleError, ArgumentError) as error:
            raise self._unusable(f"has no driver here: {error}") from error
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _bring_up_to_date(self) -> None:
        with self._translated():
            with self._engine.connect() as connection:
                found = _revision(connection)
            if found == HEAD_REVISION:
                return
            if self._file is not None:
                self._use_wal()
        with self.writing() as connection:
            found = _revision(connection)  # another process may have been faster
            if found != HEAD_REVISION:
                self._upgrade(connection, found)

    def _use_wal(self) -> None:
        # Readers and a writer don't wait for each other then; the file remembers the mode.
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()

    def _upgrade(self, connection: Connection, found: str | None) -> None:
        from alembic import command  # noqa: PLC0415 - 90 ms that an up-to-date store saves
        from alembic.config import Config  # noqa: PLC0415 - the same
        from alembic.script import ScriptDirectory  # noqa: PLC0415 - the same

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise HostError(
                f"the build history was written by a newer smidr (its revision is {found[:40]!r})",
                where=self._name,
                hint="Use that version or a newer one, or set SMIDR_HOME to another directory.",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error.orig) from error
        except sqlite3.Error as error:  # from a call that goes round SQLAlchemy
            raise self._explain(error) from error

    @property
    def _name(self) -> str:
        return str(self._file or self._url.render_as_string(hide_password=True))

    def _unusable(self, what: str) -> HostError:
        return HostError(
            f"the build history {what}",
            where=self._name,
            hint="Check that its directory exists, can be written and has room.",
        )

    def _explain(self, error: BaseException | None) -> HostError:
        name = getattr(error, "sqlite_errorname", "")
        primary = "_".join(name.split("_")[:2])
        if primary == "SQLITE_FULL" or (primary == "SQLITE_IOERR" and self._disk_is_full()):
            return HostError(
                "no room left for the build history",
                where=self._name,
                hint="Free some space: 'smidr artifacts clean' and 'smidr doctor' help.",
                kind=FailureKind.DISK,
            )
        if primary in _DAMAGED:
            return HostError(
                f"the build history is damaged ({error})",
                where=self._name,
                hint="Move the file away together with its -wal and -shm files; smidr starts a new "
                "history. Caches, artifacts and workspaces are not touched.",
            )
        if primary == "SQLITE_BUSY":
            return HostError(
                f"another process has kept the build history locked for {_BUSY_TIMEOUT_S:.0f} s",
                where=self._name,
                hint="Look for a stopped smidr or an open database browser (fuser shows it).",
            )
        if primary in _UNWRITABLE:
            return self._unusable(f"can't be opened for writing ({error})")
        return self._unusable(f"does not work: {error}")

    def _disk_is_full(self) -> bool:
        try:
            folder = self._file.parent if self._file else Path.cwd()
            return shutil.disk_usage(folder).free < _FULL_BELOW_BYTES
        except OSError:
            return False


def upgrade_apart(file: Path) -> None:
    """Bring a database file up to date in another process, whose end gives its memory back.

    For who runs long: Alembic is needed once and weighs ten megabytes. What is wrong with the
    file, whoever opens it next says.
    """
    place = f"{file.absolute().as_uri()}?mode=ro"  # not to make the file, with another mode
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(place, uri=True)) as found,
    ):
        if found.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD_REVISION,):
            return
    code = "import sys; from pathlib import Path; from smidr_ci.builds.database import Database;"
    code += "Database(Path(sys.argv[1])).close()"
    command = [sys.executable, "-P", "-c", code, str(file)]
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _url_of(place: Path | str) -> URL:
    if isinstance(place, Path):
        return URL.create("sqlite", database=str(place.absolute()))
    try:
        return make_url(place)
    except ArgumentError as error:
        raise HostError(
            "the database's URL can't be read",
            hint="It looks like sqlite:////var/lib/smidr/smidr.db or postgresql://host/name.",
        ) from error


def _file_of(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise HostError(
            "the build history needs a file",
            hint="Give the URL as sqlite:////absolute/path/smidr.db.",
        )
    return Path(url.database)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The sqlite3 module must not open transactions by itself: `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # With WAL this survives the death of any process; only a power cut may lose the last commits.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes can fail at once, whatever the busy timeout
    # (SQLITE_BUSY_SNAPSHOT), so a writer takes the write lock at its beginning.
    writes = connection.get_execution_options().get("smidr_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)
