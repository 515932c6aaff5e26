from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smidr_ci.errors import UsageError
from smidr_ci.files import MARKER_NAME, remove_marked_tree
from smidr_ci.workspaces.model import Budget, Workspace
from smidr_ci.workspaces.note import Note, boot_id
from smidr_ci.workspaces.store import WorkspaceStore
from tests.fakes.child import child, kill, line_from
from tests.fakes.clock import FakeClock

PLENTY = Budget(100, 1 << 40)


def delete_now(tree: Path) -> None:
    (tree / MARKER_NAME).touch()
    remove_marked_tree(tree, tree.parent)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> WorkspaceStore:
    return WorkspaceStore(tmp_path / "work", clock=clock, delete=delete_now)


def left(
    store: WorkspaceStore, clock: FakeClock, number: int, warm_key: str = "w", size: int = 0
) -> Workspace:
    """A workspace that build `number` left for others, a minute after the one before."""
    workspace = store.lease("acme", f"acme-{number:08x}", warm_key=warm_key)
    (workspace.build / "data").write_bytes(b"x" * size)
    store.release(workspace, keep=True, is_reusable=True)
    clock.advance(60)
    return workspace


def test_the_workspace_that_was_left_last_is_leased(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    left(store, clock, 1)
    newest = left(store, clock, 2)
    left(store, clock, 3, warm_key="other")
    found = store.lease_warm("acme", "acme-00000004", "w")
    assert found is not None
    assert (found.path, found.after, found.build_id) == (
        newest.path,
        "acme-00000002",
        "acme-00000004",
    )
    assert (found.build / "data").exists()


def test_a_held_one_is_not_leased_again(store: WorkspaceStore, clock: FakeClock) -> None:
    left(store, clock, 1)
    assert store.lease_warm("acme", "acme-00000002", "w") is not None
    assert store.lease_warm("acme", "acme-00000003", "w") is None
    assert store.list_kept() == []


@pytest.mark.parametrize("key", ["", "other"])
def test_nobody_else_may_use_it(store: WorkspaceStore, clock: FakeClock, key: str) -> None:
    left(store, clock, 1, warm_key=key)
    assert store.lease_warm("acme", "acme-00000002", "w") is None
    assert store.lease_warm("other", "other-00000002", "w") is None


def test_what_was_kept_for_people_is_not_leased(store: WorkspaceStore) -> None:
    store.release(store.lease("acme", "acme-00000001", warm_key="w"), keep=True)
    assert store.lease_warm("acme", "acme-00000002", "w") is None


def test_a_key_that_nothing_has_ever_fits_nothing(store: WorkspaceStore, clock: FakeClock) -> None:
    left(store, clock, 1, warm_key="")
    assert store.lease_warm("acme", "acme-00000002", "") is None


def test_what_was_left_before_the_hosts_last_start_is_not_leased(
    tmp_path: Path, clock: FakeClock
) -> None:
    before = WorkspaceStore(tmp_path / "work", clock=clock, delete=delete_now, boot="one")
    left(before, clock, 1)
    after = WorkspaceStore(tmp_path / "work", clock=clock, delete=delete_now, boot="two")
    assert after.lease_warm("acme", "acme-00000002", "w") is None
    assert [item.warm_key for item in after.list_kept()] == [""]
    unknown = WorkspaceStore(tmp_path / "work", clock=clock, delete=delete_now, boot="")
    left(unknown, clock, 3, warm_key="v")
    assert unknown.lease_warm("acme", "acme-00000004", "v") is None
    assert boot_id()


def test_a_shell_in_it_takes_it_away_from_builds(store: WorkspaceStore, clock: FakeClock) -> None:
    left(store, clock, 1)
    opened = store.reopen("acme-00000001")
    assert opened is not None
    assert store.lease_warm("acme", "acme-00000002", "w") is None
    store.release(opened, keep=True)
    assert store.lease_warm("acme", "acme-00000003", "w") is None


def test_home_is_new_and_belongs_to_the_builder(tmp_path: Path, clock: FakeClock) -> None:
    owner = (1234, 2345) if os.geteuid() == 0 else None
    store = WorkspaceStore(tmp_path / "work", clock=clock, owner=owner, delete=delete_now)
    first = store.lease("acme", "acme-00000001", warm_key="w")
    (first.home / ".netrc").write_text("secret")
    store.release(first, keep=True, is_reusable=True)
    second = store.lease_warm("acme", "acme-00000002", "w")
    assert second is not None
    assert os.listdir(second.home) == []
    assert owner is None or (second.home.stat().st_uid, second.home.stat().st_gid) == owner
    assert sorted(path.name for path in second.path.iterdir() if path.is_dir()) == ["build", "home"]


@pytest.mark.parametrize("missing", ["build", "home"])
def test_one_with_a_link_in_place_of_a_directory_is_not_leased(
    store: WorkspaceStore, clock: FakeClock, tmp_path: Path, missing: str
) -> None:
    workspace = left(store, clock, 1)
    (workspace.path / missing).rename(tmp_path / "elsewhere")
    (workspace.path / missing).symlink_to(tmp_path / "elsewhere")
    assert store.lease_warm("acme", "acme-00000002", "w") is None


def test_extra_directories_come_along(store: WorkspaceStore, tmp_path: Path) -> None:
    first = store.lease("acme", "acme-00000001", {"tmp": tmp_path / "fast"}, warm_key="w")
    store.release(first, keep=True, is_reusable=True)
    second = store.lease_warm("acme", "acme-00000002", "w")
    assert second is not None
    assert second.extra == first.extra
    store.release(second, keep=True, is_reusable=True)
    first.extra["tmp"].rmdir()
    assert store.lease_warm("acme", "acme-00000003", "w") is None


def test_failures_in_a_row_are_counted(store: WorkspaceStore) -> None:
    workspace = store.lease("acme", "acme-00000001", warm_key="w")
    for number, has_failed in enumerate((True, True, False, True)):
        store.release(workspace, keep=True, is_reusable=True, has_failed=has_failed)
        found = store.lease_warm("acme", f"acme-1000000{number}", "w")
        assert found is not None
        workspace = found
    assert workspace.failures == 1


def test_an_item_that_was_used_since_it_was_listed_is_not_discarded(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    left(store, clock, 1)
    (listed,) = store.list_kept()
    again = store.lease_warm("acme", "acme-00000002", "w")
    assert again is not None
    store.release(again, keep=True, is_reusable=True)
    assert not store.discard(listed)
    assert again.path.is_dir()


HOLDER = """
import sys
from pathlib import Path
from smidr_ci.workspaces.store import WorkspaceStore
store = WorkspaceStore(Path(sys.argv[1]))
print(store.lease_warm("acme", "acme-0000000c", "w").path, flush=True)
sys.stdin.readline()
"""


def test_after_a_crash_only_the_same_build_goes_on_in_it(
    store: WorkspaceStore, clock: FakeClock, tmp_path: Path
) -> None:
    workspace = left(store, clock, 1)
    with child(HOLDER, tmp_path / "work") as holder:
        assert Path(line_from(holder)) == workspace.path
        assert store.lease_warm("acme", "acme-00000002", "w") is None
        with pytest.raises(UsageError, match="another process"):
            store.adopt("acme-0000000c")
        kill(holder)
    assert store.lease_warm("acme", "acme-00000002", "w") is None
    assert [item.build_id for item in store.leftovers()] == ["acme-0000000c"]
    adopted = store.adopt("acme-0000000c")
    assert adopted is not None
    assert (adopted.after, adopted.warm_key) == ("acme-00000001", "w")
    store.release(adopted, keep=True, is_reusable=True)
    assert store.lease_warm("acme", "acme-00000002", "w") is not None


CROWD = """
import sys
from pathlib import Path
from smidr_ci.workspaces.store import WorkspaceStore
store = WorkspaceStore(Path(sys.argv[1]), delete=lambda tree: __import__("shutil").rmtree(tree))
warm = 0
for turn in range(40):
    workspace = store.lease_warm("acme", "acme-0000000c", "w")
    warm += workspace is not None
    workspace = workspace or store.lease("acme", "acme-0000000c", warm_key="w")
    flag = workspace.build / "only-me"
    flag.touch(exist_ok=False)
    flag.unlink()
    store.release(workspace, keep=True, is_reusable=True)
print(warm)
"""


def test_four_processes_that_go_on_in_the_same_never_meet(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, tmp_path / "work"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert sum(map(int, said)) >= 100  # most of the 160 leases
    assert len(os.listdir(tmp_path / "work" / "acme")) <= 8


CHURN = CROWD.replace("range(40)", "range(10**9)").replace(
    "for turn", 'print("go", flush=True)\nfor turn'
)


def test_kill_9_at_any_moment_leaves_nothing_half_that_is_leased(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    for _ in range(8):
        with child(CHURN, tmp_path / "work") as process:
            assert line_from(process) == "go"
            kill(process)
        found = store.lease_warm("acme", "acme-00000001", "w")
        if found is not None:
            assert os.listdir(found.build) == []
            assert found.home.is_dir()
            store.release(found, keep=True, is_reusable=True)


def test_of_one_key_the_newest_outlives_older_ones_of_others(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    only = left(store, clock, 1, "rare")
    for number in range(2, 5):
        left(store, clock, number, "often")
    gone = store.sweep(Budget(0, 0), Budget(2, PLENTY.size_bytes))
    assert [item.build_id for item in gone] == ["acme-00000002", "acme-00000003"]
    assert only.path.is_dir()
    (gone_last,) = store.sweep(Budget(0, 0), Budget(1, PLENTY.size_bytes))
    assert gone_last.build_id == "acme-00000001"


def test_warm_and_failed_ones_have_budgets_of_their_own(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    left(store, clock, 1)
    failed = store.lease("acme", "acme-00000002", warm_key="v")
    store.release(failed, keep=True)
    assert [item.build_id for item in store.sweep(Budget(0, 0), PLENTY)] == ["acme-00000002"]
    assert [item.build_id for item in store.sweep(PLENTY, Budget(9, 0))] == ["acme-00000001"]


def test_a_size_budget_takes_the_oldest(store: WorkspaceStore, clock: FakeClock) -> None:
    for number, key in enumerate("abc"):
        left(store, clock, number, key, size=1_000_000)
    gone = store.sweep(Budget(0, 0), Budget(9, 2_500_000))
    assert [item.build_id for item in gone] == ["acme-00000000"]


def test_a_size_is_carried_over_when_nothing_changed(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    workspace = left(store, clock, 1, size=100_000)
    size = Note.read(workspace.path).size_bytes
    for number, is_unchanged in ((2, True), (3, False)):
        found = store.lease_warm("acme", f"acme-0000000{number}", "w")
        assert found is not None
        (found.build / f"more-{number}").write_bytes(b"x" * 100_000)
        store.release(found, keep=True, is_reusable=True, is_unchanged=is_unchanged)
        assert (Note.read(workspace.path).size_bytes == size) is is_unchanged


def test_a_note_of_an_earlier_version_is_read_and_never_warm(tmp_path: Path) -> None:
    text = '{"build_id": "a-1", "extra": {}, "released": "2026-01-01T00:00:00", "size_bytes": 1}'
    (tmp_path / "workspace.json").write_text(text)
    note = Note.read(tmp_path)
    assert (note.build_id, note.warm_key, note.is_reusable("")) == ("a-1", "", False)
