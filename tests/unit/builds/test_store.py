from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from smidr_ci.builds.database import Database, upgrade_apart
from smidr_ci.builds.model import (
    ArtifactRecord,
    BuildRecord,
    BuildState,
    SstateSummary,
    StageRecord,
)
from smidr_ci.builds.store import BuildStore
from smidr_ci.builds.tables import HEAD_REVISION, metadata
from smidr_ci.errors import FailureKind, HostError, InternalError, UsageError
from tests.fakes.child import child, kill, line_from
from tests.fakes.clock import FakeClock
from tests.fakes.disk import fill, small_disk

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BuildStore]:
    opened = BuildStore(tmp_path / "smidr.db", clock=FakeClock())
    yield opened
    opened.close()


def record(number: int = 1, customer: str = "acme") -> BuildRecord:
    return BuildRecord(
        f"{customer}-{number:08x}", customer, "router", ("core-image",), BuildState.QUEUED, NOW
    )


FULL = BuildRecord(
    build_id="acme-0000000f",
    customer="acme",
    project="router",
    targets=("core-image", "mc:x:core-image"),
    state=BuildState.FAILED,
    created=NOW,
    config_text="name: ü\n" * 1000,
    config_path="/srv/smidr.yaml",
    requested_by="ann",
    started=NOW + timedelta(seconds=1),
    ended=NOW + timedelta(seconds=2.5),
    exit_code=1,
    failure_kind=FailureKind.FETCH,
    failure_message="do_fetch",
    image="sha256:1",
    layer_commits={"poky": "a" * 40},
    stages=(StageRecord("preparing", NOW, NOW), StageRecord("building", NOW)),
    sstate=SstateSummary(5, 4, 0, 1, 0),
    tasks={"total": 7},
    findings=({"recipe": "zlib", "line": 3},),
    artifacts=(ArtifactRecord("images/a", 3, "b" * 64),),
    workspace="/w/1",
    owner_pid=42,
    description="The router of floor 3",
)


def test_a_record_comes_back_as_it_was_stored(store: BuildStore) -> None:
    store.add(FULL)
    assert store.get(FULL.build_id) == FULL
    empty = record(2)
    store.add(empty)
    assert store.get(empty.build_id) == empty


def test_the_store_takes_read_only_mappings(store: BuildStore) -> None:
    store.add(replace(FULL, tasks=MappingProxyType({"total": 7})))
    assert store.get(FULL.build_id).tasks == {"total": 7}


def test_every_field_of_a_record_is_stored(store: BuildStore) -> None:
    unset = record(15)
    store.add(unset)
    for item in dataclasses.fields(BuildRecord):
        if item.name not in {"build_id", "is_summary"}:
            store.update(unset.build_id, **{item.name: getattr(FULL, item.name)})
    assert store.get(unset.build_id) == FULL


def test_a_list_leaves_out_the_heavy_fields_and_says_so(store: BuildStore) -> None:
    store.add(FULL)
    (found,) = store.list()
    assert found.is_summary
    assert (found.config_text, found.artifacts, found.findings, found.layer_commits) == (
        "",
        (),
        (),
        {},
    )
    assert found.sstate == FULL.sstate
    with pytest.raises(InternalError, match="not whole"):
        store.save(found)
    assert store.get(FULL.build_id) == FULL


def test_lists_are_newest_first_filtered_and_paged(store: BuildStore) -> None:
    for number in range(6):
        store.add(record(number, "acme" if number % 2 else "zeta"))
    store.update("acme-00000003", state=BuildState.COMPLETED)
    ids = [item.build_id for item in store.list(limit=4)]
    assert ids == ["acme-00000005", "zeta-00000004", "acme-00000003", "zeta-00000002"]
    assert [item.build_id for item in store.list(before=ids[-1])] == [
        "acme-00000001",
        "zeta-00000000",
    ]
    assert len(store.list(customer="zeta")) == 3
    assert [item.build_id for item in store.list(state=BuildState.COMPLETED)] == ["acme-00000003"]
    assert len(store.list(state={BuildState.QUEUED, BuildState.COMPLETED})) == 6
    assert store.list(project="other") == []


def test_a_unique_beginning_names_a_build(store: BuildStore) -> None:
    store.add(record(0x1A000000))
    store.add(record(0x1B000000))
    assert store.get("acme-1a").build_id == "acme-1a000000"
    with pytest.raises(UsageError, match=r"several builds(?s:.*)acme-1b000000, acme-1a000000"):
        store.get("acme-1")


@pytest.mark.parametrize("wanted", ["", "%", "acme_", "acme-1a00000f0", "\x1b[31m", "x" * 9999])
def test_an_unknown_build_is_an_error_that_names_no_stranger(
    store: BuildStore, wanted: str
) -> None:
    store.add(record(0x1A000000))
    with pytest.raises(UsageError, match="there is no build") as caught:
        store.get(wanted)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_unknown_build_is_answered_with_the_nearest(store: BuildStore) -> None:
    store.add(record(0x1A2B3C4D))
    with pytest.raises(UsageError, match="Did you mean acme-1a2b3c4d"):
        store.get("acme-1a2b3c4e")


@pytest.mark.parametrize("final", [BuildState.COMPLETED, BuildState.FAILED, BuildState.CANCELLED])
@pytest.mark.parametrize("later", list(BuildState))
def test_a_final_state_never_changes(
    store: BuildStore, final: BuildState, later: BuildState
) -> None:
    store.add(record())
    store.update("acme-00000001", state=final)
    if later == final:
        store.update("acme-00000001", state=later)
    else:
        with pytest.raises(InternalError, match=f"is {final}"):
            store.update("acme-00000001", state=later, failure_message="late")
    kept = store.get("acme-00000001")
    assert (kept.state, kept.failure_message) == (final, "")


def test_stages_go_forward_and_a_retry_prepares_again(store: BuildStore) -> None:
    store.add(record())
    for state in ("preparing", "building", "preparing", "building", "extracting-artifacts"):
        assert store.update("acme-00000001", state=BuildState(state)).state == state
    with pytest.raises(InternalError):
        store.update("acme-00000001", state=BuildState.BUILDING)


def test_a_finished_build_can_still_lose_its_workspace(store: BuildStore) -> None:
    store.add(FULL)
    assert store.update(FULL.build_id, workspace="") == replace(FULL, workspace="")


def test_an_update_of_an_unknown_build_or_field_is_refused(store: BuildStore) -> None:
    with pytest.raises(UsageError):
        store.update("acme-00000009", image="x")
    with pytest.raises(UsageError):
        store.update("acme-00000009", state=BuildState.FAILED)
    with pytest.raises(TypeError, match="colour"):
        store.update("acme-00000009", colour="red")


def test_an_id_is_given_once(store: BuildStore) -> None:
    store.add(record())
    with pytest.raises(InternalError, match="already"):
        store.add(replace(record(), project="other"))
    assert store.get("acme-00000001").project == "router"


def test_deleted_builds_are_hidden_then_purged(store: BuildStore) -> None:
    store.add(FULL)
    store.add(record())
    with pytest.raises(UsageError, match="still queued"):
        store.soft_delete("acme-00000001")
    store.soft_delete(FULL.build_id)
    assert [item.build_id for item in store.list()] == ["acme-00000001"]
    assert len(store.list(include_deleted=True)) == 2
    with pytest.raises(UsageError):
        store.get(FULL.build_id)
    assert store.get("acme-0000000f", include_deleted=True) == FULL
    assert store.purge(deleted_before=FakeClock().now()) == []
    assert store.purge() == [FULL.build_id]
    assert len(store.list(include_deleted=True)) == 1


def test_reserved_ids_are_claimed_and_free(store: BuildStore) -> None:
    build_id, claim = store.reserve("acme")
    assert store.is_owned(build_id)
    with pytest.raises(UsageError, match="another process"):
        store.claim(build_id)
    claim.release()
    assert not store.is_owned(build_id)
    store.claim(build_id).release()


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", "acme", "acme-1234567G", "-12345678", "A-12345678"]
)
def test_a_hostile_id_reaches_no_path(store: BuildStore, name: str) -> None:
    with pytest.raises(UsageError, match="is no build id"):
        store.claim(name)


def test_orphans_are_told_from_live_builds_and_marked(store: BuildStore) -> None:
    for number in (1, 2):
        store.add(record(number))
    store.add(replace(record(3), state=BuildState.COMPLETED))
    with store.claim("acme-00000002"):
        assert [item.build_id for item in store.find_orphans()] == ["acme-00000001"]
        with pytest.raises(UsageError):
            store.mark_interrupted("acme-00000002")
        marked = store.mark_interrupted("acme-00000001")
    assert (marked.state, marked.failure_kind) == (BuildState.FAILED, FailureKind.INTERRUPTED)
    assert marked.ended is not None
    assert store.mark_interrupted("acme-00000003").state == BuildState.COMPLETED


OWNER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.store import BuildStore
store = BuildStore(Path(sys.argv[1]))
build_id, claim = store.reserve("acme")
store.add(BuildRecord(build_id, "acme", "p", ("t",), BuildState.QUEUED, datetime.now(UTC)))
print(build_id, flush=True)
count = 0
while True:
    store.update(build_id, state=BuildState.PREPARING, tasks={"count": count})
    count += 1
    if count == 20:
        print("busy", flush=True)
"""


def test_a_record_survives_kill_9_and_its_build_becomes_an_orphan(
    store: BuildStore, tmp_path: Path
) -> None:
    with child(OWNER, tmp_path / "smidr.db") as owner:
        build_id = line_from(owner)
        assert line_from(owner) == "busy"
        assert store.is_owned(build_id)
        assert store.find_orphans() == []
        kill(owner)  # in the middle of its writes
    assert [item.build_id for item in store.find_orphans()] == [build_id]
    assert store.get(build_id).tasks["count"] >= 19
    store.mark_interrupted(build_id)
    assert store.find_orphans() == []


def test_processes_that_open_a_new_store_together_all_succeed(tmp_path: Path) -> None:
    script = OWNER.partition("count = 0")[0]
    runs = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path / "s.db"], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for run in runs:
        run.communicate()
    assert [run.returncode for run in runs] == [0] * 4
    store = BuildStore(tmp_path / "s.db")
    assert len(store.list()) == 4
    store.close()


def test_threads_share_a_store(store: BuildStore) -> None:
    store.add(record())
    failures = []

    def work(number: int) -> None:
        try:
            for step in range(10):
                store.add(record(100 * number + step))
                store.update("acme-00000001", tasks={"total": step})
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.list(limit=100)) == 41


def test_of_two_processes_one_final_state_wins(tmp_path: Path, store: BuildStore) -> None:
    other = BuildStore(tmp_path / "smidr.db")
    store.add(record())
    other.update("acme-00000001", state=BuildState.CANCELLED)
    with pytest.raises(InternalError, match="is cancelled"):
        store.save(replace(record(), state=BuildState.FAILED))
    assert store.get("acme-00000001").state == BuildState.CANCELLED
    other.close()


def test_a_list_of_many_builds_is_quick_and_uses_an_index(
    store: BuildStore, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "smidr.db") as raw:
        store.add(replace(FULL, findings=({"text": "x" * 20_000},)))
        columns = [row[1] for row in raw.execute("PRAGMA table_info(builds)")][1:]
        copied = ", ".join("?" if name == "build_id" else name for name in columns)
        raw.executemany(
            f"INSERT INTO builds ({', '.join(columns)}) SELECT {copied} FROM builds LIMIT 1",
            [(f"acme-1{number:07x}",) for number in range(10_000)],
        )
        plan = raw.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM builds WHERE customer = 'x' AND deleted IS NULL "
            "ORDER BY seq DESC LIMIT 50"
        ).fetchall()
    raw.close()
    assert "builds_by_customer" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert len(store.list(limit=50, customer="acme")) == 50
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_the_head_revision_is_alembics_head_and_makes_our_tables(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine

    import smidr_ci.builds

    config = Config()
    scripts = Path(smidr_ci.builds.__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD_REVISION
    BuildStore(tmp_path / "a.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_builds_of_an_older_store_come_along(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    import smidr_ci.builds

    path = tmp_path / "a.db"
    store = BuildStore(path)
    store.add(record())
    store.close()
    config = Config()
    scripts = Path(smidr_ci.builds.__file__).parent / "migrations"
    config.set_main_option("script_location", str(scripts))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()
    again = BuildStore(path)
    assert again.get("acme-00000001") == record()
    again.close()


def test_opening_a_store_that_is_up_to_date_does_not_import_alembic(tmp_path: Path) -> None:
    BuildStore(tmp_path / "a.db").close()
    script = (
        "import sys; from pathlib import Path; from smidr_ci.builds.store import BuildStore;"
        "BuildStore(Path(sys.argv[1])).list(); print('alembic' in sys.modules)"
    )
    with child(script, tmp_path / "a.db") as process:
        assert line_from(process) == "False"


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    BuildStore(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(HostError, match="newer smidr"):
        BuildStore(tmp_path / "a.db")


@pytest.mark.parametrize("damage", ["garbage", "cut", "scribbled"])
def test_a_damaged_database_is_told_with_its_place_and_a_remedy(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "a.db"
    store = BuildStore(path)
    for number in range(200):
        store.add(record(number))
    store.close()
    raw = path.read_bytes()
    pages = {
        "garbage": os.urandom(8192),
        "cut": raw[: len(raw) // 3],
        "scribbled": raw[:4096] + b"\xff" * (len(raw) - 4096),
    }
    path.write_bytes(pages[damage])
    with pytest.raises(HostError, match="damaged") as caught:
        BuildStore(path).list()
    assert caught.value.where == str(path)
    assert "Move the file away" in caught.value.hint


def test_a_database_that_cannot_be_made_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.db").mkdir()
    for place in (tmp_path / "file" / "a.db", tmp_path / "dir.db", Path("/proc/smidr/a.db")):
        with pytest.raises(HostError) as caught:
            BuildStore(place, tmp_path / "locks")
        assert str(place) in str(caught.value)


def test_a_url_with_a_password_never_shows_it(tmp_path: Path) -> None:
    for url in ("nosuch://ann:hunter2@host/db", "postgresql+nosuch://ann:hunter2@host/db"):
        with pytest.raises(HostError) as caught:
            BuildStore(url, tmp_path)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(HostError, match="can't be read"):
        BuildStore("::::", tmp_path)


def test_a_sqlite_url_works_like_a_path(tmp_path: Path) -> None:
    store = BuildStore(f"sqlite:///{tmp_path}/sub/a.db", tmp_path / "locks")
    store.add(record())
    store.close()
    reopened = BuildStore(tmp_path / "sub" / "a.db")
    assert reopened.get("acme").build_id == "acme-00000001"
    reopened.close()


def test_a_full_disk_is_told_as_such_and_the_history_stays_readable(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        store = BuildStore(disk / "smidr.db")
        store.add(record())
        fill(disk)
        big = replace(record(2), config_text="x" * 1_000_000)
        with pytest.raises(HostError, match="no room left") as caught:
            store.add(big)
        assert caught.value.kind == FailureKind.DISK
        assert store.get("acme-00000001") == record()
        (disk / "filler").unlink()
        store.add(record(999))
        store.close()


def test_a_new_history_on_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        with pytest.raises(HostError, match=r"no room left|can't be"):
            BuildStore(disk / "smidr.db")


def test_a_read_only_home_is_a_host_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        BuildStore(disk / "smidr.db").close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(HostError, match="can't be opened for writing"):
            BuildStore(disk / "smidr.db").add(record())


def test_a_database_is_brought_up_to_date_by_another_process(tmp_path: Path) -> None:
    file = tmp_path / "smidr.db"
    upgrade_apart(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert found == (HEAD_REVISION,)
    before = file.stat().st_mtime_ns
    upgrade_apart(file)
    assert file.stat().st_mtime_ns == before


def test_a_damaged_database_is_left_for_who_opens_it(tmp_path: Path) -> None:
    file = tmp_path / "smidr.db"
    file.write_bytes(b"nothing of the kind" * 100)
    upgrade_apart(file)
    with pytest.raises(HostError, match="damaged"):
        Database(file)
