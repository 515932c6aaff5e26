"""History keeps within its limits, and what goes takes its files along."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.remains import Remains
from smidr_ci.builds.store import BuildStore
from smidr_ci.builds.upkeep import Trimmed, purge_hidden, trim_history
from smidr_ci.config.limits import History
from smidr_ci.errors import HostError, UsageError
from smidr_ci.files import make_marked_dir
from tests.fakes.child import child, kill, line_from
from tests.fakes.clock import FakeClock

KIB = 1024


class Site:
    """A history that a test fills, one build a day."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.store = BuildStore(root / "smidr.db", clock=self.clock)
        self.remains = Remains(root / "builds", root / "artifacts")
        self.number = 0

    def add(
        self,
        project: str = "router",
        state: BuildState = BuildState.COMPLETED,
        log_kib: int = 0,
        artifact_kib: int = 0,
        customer: str = "acme",
    ) -> str:
        """A build of this day; the next one is of the next day."""
        build_id = f"{customer}-{self.number:08x}"
        self.number += 1
        now = self.clock.now()
        ended = now if state.is_final else None
        self.store.add(BuildRecord(build_id, customer, project, (), state, now, ended=ended))
        for folder, name, kib in (
            (self.home_of(build_id), "console.log", log_kib),
            (self.artifacts_of(build_id), "image.wic", artifact_kib),
        ):
            (make_marked_dir(folder) / name).write_bytes(bytes(kib * KIB))
        self.clock.advance(timedelta(days=1).total_seconds())
        return build_id

    def home_of(self, build_id: str) -> Path:
        return self.root / "builds" / build_id

    def artifacts_of(self, build_id: str) -> Path:
        return self.root / "artifacts" / build_id.rpartition("-")[0] / build_id

    def trim(self, *needed: str, **settings: object) -> Mapping[str, Trimmed]:
        history = History.model_validate({"keep_newest": 1, **settings})
        now = self.clock.now()
        done = trim_history(self.store, history, now, self.remains, needed.__contains__)
        assert len({item.build_id for item in done}) == len(done)
        return {item.build_id: item for item in done}

    def visible(self) -> list[str]:
        return [record.build_id for record in reversed(self.store.list(limit=1000))]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def test_within_the_limits_nothing_happens(site: Site) -> None:
    builds = [site.add() for _ in range(5)]
    assert site.trim(max_builds=5, max_days=6) == {}
    assert site.visible() == builds


def test_the_oldest_go_beyond_the_number(site: Site) -> None:
    builds = [site.add() for _ in range(5)]
    done = site.trim(max_builds=3)
    assert list(done) == builds[:2]
    assert {item.action for item in done.values()} == {"hidden"}
    assert done[builds[0]].reason == "the oldest of 5 builds, of 3 at most"
    assert site.visible() == builds[2:]
    assert site.home_of(builds[0]).is_dir(), "files stay until it is purged"


def test_builds_beyond_the_age_go(site: Site) -> None:
    builds = [site.add() for _ in range(5)]
    done = site.trim(max_days=3)
    assert list(done) == builds[:2]
    assert done[builds[0]].reason == "5 days old, of 3 at most"


def test_the_oldest_go_until_logs_and_artifacts_fit(site: Site) -> None:
    builds = [site.add(log_kib=40, artifact_kib=60) for _ in range(5)]
    done = site.trim(max_size=350 * KIB)
    assert list(done) == builds[:2]
    assert "bytes, of 358400 at most" in done[builds[0]].reason
    assert site.trim(max_size=350 * KIB) == {}, "what is hidden counts no more"


def test_a_build_that_is_not_over_or_that_somebody_drives_stays(site: Site) -> None:
    running = site.add(state=BuildState.BUILDING)
    queued = site.add(state=BuildState.QUEUED)
    driven = site.add()
    with site.store.claim(driven):
        site.add()
        site.add()
        assert set(site.trim(max_builds=1, max_days=1)) == {"acme-00000003"}
        assert {running, queued, driven} < set(site.visible())


def test_the_newest_of_each_project_stay_and_the_newest_that_completed(site: Site) -> None:
    good = site.add("router")
    site.add("router", BuildState.FAILED)
    failed = [site.add("router", BuildState.FAILED) for _ in range(2)]
    other = site.add("gateway")
    same_name = site.add("router", customer="other")
    site.clock.advance(timedelta(days=100).total_seconds())
    assert list(site.trim(max_days=1, max_builds=1, max_size=1, keep_newest=2)) == ["acme-00000001"]
    assert site.visible() == [good, *failed, other, same_name]


def test_what_somebody_still_needs_is_neither_hidden_nor_purged(site: Site) -> None:
    builds = [site.add() for _ in range(4)]
    assert list(site.trim(builds[0], max_builds=2)) == [builds[1], builds[2]]
    site.clock.advance(timedelta(days=8).total_seconds())
    assert list(site.trim(builds[1])) == [builds[2]]
    assert site.home_of(builds[1]).is_dir()


def test_what_was_hidden_long_enough_goes_with_its_files(site: Site) -> None:
    builds = [site.add(log_kib=1, artifact_kib=1) for _ in range(3)]
    site.trim(max_builds=1)
    site.clock.advance(timedelta(days=6).total_seconds())
    assert site.trim() == {}
    site.clock.advance(timedelta(days=1.1).total_seconds())
    done = site.trim()
    assert [(item.build_id, item.action) for item in done.values()] == [
        (builds[0], "purged"),
        (builds[1], "purged"),
    ]
    for build_id in builds[:2]:
        assert not site.home_of(build_id).exists()
        assert not site.artifacts_of(build_id).exists()
        with pytest.raises(UsageError):
            site.store.get(build_id, include_deleted=True)
    assert site.home_of(builds[2]).is_dir()
    assert site.artifacts_of(builds[2]).is_dir()
    assert [path.name for path in (site.root / "builds").iterdir()] == [builds[2]]


def test_with_no_delay_a_build_is_hidden_and_purged_in_two_goes(site: Site) -> None:
    builds = [site.add() for _ in range(2)]
    assert site.trim(max_builds=1, purge_after_days=0)[builds[0]].action == "hidden"
    site.clock.advance(1)
    assert site.trim(purge_after_days=0)[builds[0]].action == "purged"


def test_what_smidr_did_not_make_is_refused_and_the_others_go(site: Site, tmp_path: Path) -> None:
    linked, unmarked, empty, good = (site.add() for _ in range(4))
    site.add()
    precious = tmp_path / "precious"
    make_marked_dir(precious)
    (precious / "thesis").write_text("x")
    for build_id in (linked, unmarked, empty):
        (site.home_of(build_id) / ".smidr-owned").unlink()
    for build_id in (linked, empty):
        (site.home_of(build_id) / "console.log").unlink()
    site.home_of(linked).rmdir()
    site.home_of(linked).symlink_to(precious)
    site.trim(max_builds=1)
    site.clock.advance(timedelta(days=8).total_seconds())
    done = site.trim()
    assert {name: item.action for name, item in done.items()} == {
        linked: "refused",
        unmarked: "refused",
        empty: "purged",
        good: "purged",
    }
    assert "not a directory under" in done[linked].reason
    assert "no .smidr-owned file" in done[unmarked].reason
    assert (precious / "thesis").read_text() == "x"
    assert site.store.get(linked, include_deleted=True).build_id == linked


@pytest.mark.parametrize("build_id", ["../../etc", "acme-00000001/..", "", "/etc"])
def test_an_id_that_leads_elsewhere_is_no_id(site: Site, build_id: str) -> None:
    with pytest.raises(UsageError):
        site.remains.remove(build_id)
    with pytest.raises(UsageError):
        site.remains.size_of(build_id)


def test_trees_that_builds_made_hard_to_delete_go_too(site: Site) -> None:
    build_id = site.add()
    control = site.home_of(build_id) / "control"
    control.mkdir()
    (control / "locked").mkdir()
    (control / "locked" / "file").write_text("x")
    (control / "locked").chmod(0)
    (control / "out").symlink_to("/etc")
    os.mkfifo(control / "console.log")
    folder = os.open(control, os.O_RDONLY)
    for _ in range(1500):  # deeper than PATH_MAX and Python's recursion
        os.mkdir("deeper", dir_fd=folder)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert site.remains.size_of(build_id) > 0
    site.remains.remove(build_id)
    assert os.listdir(site.root / "builds") == []
    assert Path("/etc/passwd").exists()


def test_what_can_not_be_deleted_is_said_and_its_record_stays(site: Site) -> None:
    build_id = site.add()
    site.store.soft_delete(build_id)
    site.clock.advance(1)
    mount = site.home_of(build_id) / "mounted"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "smidr-test", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    (mount / "file").write_text("x")
    try:
        (done,) = purge_hidden(site.store, site.remains, site.clock.now())
        assert done.action == "refused"
        assert "mounted" in done.reason
        (doomed,) = (site.root / "builds").iterdir()
        assert (doomed / "mounted" / "file").read_text() == "x"
        assert site.store.get(build_id, include_deleted=True).build_id == build_id
    finally:
        found = next((site.root / "builds").rglob("mounted"))
        subprocess.run(["umount", str(found)], check=True)
    (done,) = purge_hidden(site.store, site.remains, site.clock.now())
    assert done.action == "purged"


def test_what_a_cut_short_removal_left_is_swept_after_a_day(site: Site) -> None:
    old = [
        site.root / "builds" / ".deleting-0123456789ab",
        site.root / "artifacts" / "acme" / ".deleting-0123456789ab",
    ]
    young = site.root / "builds" / ".deleting-ffffffffffff"
    for path in (*old, young):
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    link = site.root / "builds" / ".deleting-link"
    link.symlink_to("/etc")
    yesterday = site.clock.now() - timedelta(days=1, seconds=1)
    for path in old:
        os.utime(path, (yesterday.timestamp(),) * 2)
    os.utime(young, (site.clock.now().timestamp(),) * 2)
    assert sorted(site.remains.sweep(site.clock.now())) == sorted(old)
    assert young.is_dir()
    assert link.is_symlink()
    assert Path("/etc/passwd").exists()


CRASH = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from smidr_ci.builds import upkeep
from smidr_ci.builds.remains import Remains
from smidr_ci.builds.store import BuildStore

class Slow(Remains):
    def remove(self, build_id):
        super().remove(build_id)
        print(build_id, flush=True)
        if build_id == sys.argv[2]:
            sys.stdin.readline()

root = Path(sys.argv[1])
store = BuildStore(root / "smidr.db")
upkeep.purge_hidden(store, Slow(root / "builds", root / "artifacts"), datetime.now(UTC))
"""


def test_killed_between_files_and_record_it_is_done_the_next_time(site: Site) -> None:
    builds = [site.add() for _ in range(4)]
    for build_id in builds[:3]:
        site.store.soft_delete(build_id)
    with child(CRASH, site.root, builds[1]) as process:
        assert [line_from(process), line_from(process)] == builds[:2]
        kill(process)
    assert not site.home_of(builds[1]).exists()
    assert site.store.hidden() == builds[:3], "records go last"
    site.clock.advance(1)
    done = purge_hidden(site.store, site.remains, site.clock.now())
    assert [item.build_id for item in done] == builds[:3]
    assert {item.action for item in done} == {"purged"}
    assert site.store.list(include_deleted=True)[0].build_id == builds[3]


def test_a_missing_customers_directory_is_nothing_to_remove(site: Site) -> None:
    site.remains.remove("nobody-00000001")
    assert site.remains.size_of("nobody-00000001") == 0


def test_a_directory_that_can_not_be_renamed_is_an_error_of_the_host(site: Site) -> None:
    build_id = site.add()
    builds = site.root / "builds"
    if os.geteuid() == 0:
        command = ["chattr", "+i", str(builds)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("needs a file system with immutable directories")
    else:
        builds.chmod(0o500)
    try:
        with pytest.raises(HostError, match="can't remove what a build left"):
            site.remains.remove(build_id)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", str(builds)], check=True)
        else:
            builds.chmod(0o700)
    site.remains.remove(build_id)


def test_two_thousand_builds_are_trimmed_in_seconds(site: Site) -> None:
    for _ in range(2000):
        now = site.clock.now()
        build_id = f"acme-{site.number:08x}"
        site.number += 1
        site.store.add(
            BuildRecord(build_id, "acme", "router", (), BuildState.COMPLETED, now, ended=now)
        )
    begin = time.monotonic()
    assert len(site.trim(max_builds=1500)) == 500
    assert time.monotonic() - begin < 30
    assert len(site.visible()) == 1000
