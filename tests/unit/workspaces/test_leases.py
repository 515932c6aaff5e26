from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from smidr_ci.errors import FailureKind, HostError, InternalError, UsageError
from smidr_ci.files import MARKER_NAME, remove_marked_tree
from smidr_ci.workspaces.model import Budget, Workspace
from smidr_ci.workspaces.removal import delete_detached, disk_usage
from smidr_ci.workspaces.store import WorkspaceStore
from tests.fakes.child import child, kill, line_from
from tests.fakes.clock import FakeClock
from tests.fakes.disk import fill, small_disk


def delete_now(tree: Path) -> None:
    (tree / MARKER_NAME).touch()
    remove_marked_tree(tree, tree.parent)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> WorkspaceStore:
    return WorkspaceStore(tmp_path / "work", clock=clock, delete=delete_now)


def kept(store: WorkspaceStore, number: int, size: int = 0) -> Workspace:
    workspace = store.lease("acme", f"acme-{number:08x}")
    (workspace.build / "data").write_bytes(b"x" * size)
    store.release(workspace, keep=True)
    return workspace


def test_a_lease_is_a_fresh_marked_directory_with_build_and_home(store: WorkspaceStore) -> None:
    workspace = store.lease("acme", "acme-00000001")
    assert workspace.path.name == "1"
    assert (workspace.path / MARKER_NAME).is_file()
    assert os.listdir(workspace.build) == os.listdir(workspace.home) == []


def test_two_leases_never_share_a_directory(store: WorkspaceStore, tmp_path: Path) -> None:
    other = WorkspaceStore(tmp_path / "work")
    paths = {item.lease("acme", "acme-00000001").path for item in (store, other, store)}
    assert len(paths) == 3


def test_a_released_workspace_is_gone_and_its_number_free(store: WorkspaceStore) -> None:
    workspace = store.lease("acme", "acme-00000001")
    store.release(workspace, keep=False)
    assert os.listdir(workspace.path.parent) == []
    store.release(workspace, keep=False)
    again = store.lease("acme", "acme-00000002")
    assert again.path == workspace.path


def test_a_kept_workspace_is_listed_with_its_size_and_not_leased_again(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    workspace = kept(store, 1, size=100_000)
    (found,) = store.list_kept()
    assert (found.path, found.build_id, found.released) == (
        workspace.path,
        "acme-00000001",
        clock.now(),
    )
    assert 100_000 <= found.size_bytes < 200_000
    assert store.lease("acme", "acme-00000002").path != workspace.path
    assert store.leftovers() == []


def test_a_sweep_takes_the_oldest_beyond_count_and_size(
    store: WorkspaceStore, clock: FakeClock
) -> None:
    for number in range(4):
        kept(store, number, size=1_000_000)
        clock.advance(60)
    assert [item.build_id for item in store.sweep(Budget(3, 10 << 20))] == ["acme-00000000"]
    gone = store.sweep(Budget(9, 2_500_000))
    assert [item.build_id for item in gone] == ["acme-00000001"]
    assert [item.build_id for item in store.list_kept()] == ["acme-00000002", "acme-00000003"]
    assert store.sweep(Budget(9, 10 << 20)) == []


def test_a_sweep_leaves_what_is_in_use(store: WorkspaceStore, tmp_path: Path) -> None:
    held = store.lease("acme", "acme-00000001")
    kept(store, 2)
    other = WorkspaceStore(tmp_path / "work", clock=FakeClock(), delete=delete_now)
    assert len(other.sweep(Budget(0, 0))) == 1
    assert held.build.is_dir()


def test_extra_directories_lie_under_their_roots_and_go_with_the_workspace(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    roots = {"tmp": tmp_path / "fast", "deploy": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    first = store.lease("acme", "acme-00000001", roots)
    second = store.lease("acme", "acme-00000001", roots)
    assert set(first.extra) == {"tmp", "deploy"}
    assert all(path.is_dir() and os.listdir(path) == [] for path in first.extra.values())
    assert first.extra["tmp"].is_relative_to(tmp_path / "fast")
    store.release(first, keep=False)
    store.release(second, keep=True)
    assert [path.exists() for path in first.extra.values()] == [False, False]
    (resting,) = store.list_kept()
    assert resting.extra == second.extra
    assert store.discard(resting)
    assert os.listdir(tmp_path / "fast") == []
    assert os.listdir(tmp_path / "out") == ["mine"]


HOLDER = """
import sys
from pathlib import Path
from smidr_ci.workspaces.store import WorkspaceStore
store = WorkspaceStore(Path(sys.argv[1]))
print(store.lease("acme", "acme-0000000c").path, flush=True)
sys.stdin.readline()
"""


def test_a_lease_lives_exactly_as_long_as_its_process(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    with child(HOLDER, tmp_path / "work") as holder:
        path = Path(line_from(holder))
        assert store.leftovers() == []
        with pytest.raises(UsageError, match="another process"):
            store.adopt("acme-0000000c")
        kill(holder)
    (left,) = store.leftovers()
    assert (left.path, left.build_id, left.released) == (path, "acme-0000000c", None)
    assert store.lease("acme", "acme-0000000d").path != path
    assert store.sweep(Budget(0, 0)) == []  # a container may still use it
    assert store.discard(left)
    assert not path.exists()


def test_a_build_is_adopted_after_a_crash_with_its_workspace(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    with child(HOLDER, tmp_path / "work") as holder:
        path = Path(line_from(holder))
    adopted = store.adopt("acme-0000000c")
    assert adopted is not None
    assert adopted.path == path
    assert store.leftovers() == []
    store.release(adopted, keep=True)
    assert store.adopt("acme-0000000c") is None
    assert store.adopt("acme-00000001") is None


CROWD = """
import sys
from pathlib import Path
from smidr_ci.workspaces.store import WorkspaceStore
store = WorkspaceStore(Path(sys.argv[1]), delete=lambda tree: __import__("shutil").rmtree(tree))
for turn in range(40):
    workspace = store.lease("acme", "acme-0000000c")
    flag = workspace.build / "only-me"
    flag.touch(exist_ok=False)
    assert len(list(workspace.build.iterdir())) == 1
    store.release(workspace, keep=False)
"""


def test_four_processes_that_lease_at_once_never_meet(tmp_path: Path) -> None:
    runs = [subprocess.Popen([sys.executable, "-c", CROWD, tmp_path / "work"]) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    assert os.listdir(tmp_path / "work" / "acme") == []


CREATOR = CROWD.replace("range(40)", "range(10**9)").replace(
    "for turn", 'print("go", flush=True)\nfor turn'
)


def test_kill_9_at_any_moment_leaves_nothing_that_blocks_the_next(
    store: WorkspaceStore, tmp_path: Path, clock: FakeClock
) -> None:
    for _ in range(5):
        with child(CREATOR, tmp_path / "work") as process:
            assert line_from(process) == "go"
            kill(process)
        store.release(store.lease("acme", "acme-00000001"), keep=False)
    for left in store.leftovers():
        assert store.discard(left)
    clock.advance(10 * 365 * 86400)
    store.sweep(Budget(0, 0))
    assert os.listdir(tmp_path / "work" / "acme") == []


def test_a_half_made_or_half_removed_workspace_goes_after_an_hour(
    store: WorkspaceStore, tmp_path: Path, clock: FakeClock
) -> None:
    folder = tmp_path / "work" / "acme"
    for name in (".new-abc", ".deleting-abc"):
        (folder / name / "build").mkdir(parents=True)
        (folder / name / MARKER_NAME).touch()
        moment = (clock.now() - timedelta(minutes=59)).timestamp()
        os.utime(folder / name, (moment, moment))
    store.sweep(Budget(0, 0))
    assert len(os.listdir(folder)) == 2
    clock.advance(120)
    store.sweep(Budget(0, 0))
    assert os.listdir(folder) == []


@pytest.mark.parametrize("key", ["", "..", "a/b", ".hidden", "a\n", "a\x00"])
def test_a_hostile_key_reaches_no_path(store: WorkspaceStore, key: str) -> None:
    with pytest.raises(InternalError):
        store.lease(key, "acme-00000001")


def test_somebody_elses_link_in_place_of_a_key_is_refused(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / "acme").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="somebody else"):
        store.lease("acme", "acme-00000001")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert store.leftovers() == []


def test_another_users_workspaces_in_a_shared_root_are_left_alone(
    store: WorkspaceStore,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give directories away")
    workspace = kept(store, 1)
    os.chown(workspace.path.parent, 1234, 2345)
    assert store.list_kept() == []
    assert store.sweep(Budget(0, 0)) == []
    assert workspace.path.is_dir()


def test_what_smidr_did_not_make_is_never_listed_or_deleted(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    for name in ("7", "notes"):
        (tmp_path / "work" / "acme" / name).mkdir(parents=True)
    (tmp_path / "work" / "README").touch()
    kept(store, 1)
    assert len(store.sweep(Budget(0, 0))) == 1
    assert store.leftovers() == []
    assert sorted(os.listdir(tmp_path / "work" / "acme")) == ["7", "notes"]


def test_a_full_disk_is_told_as_such_and_can_still_be_cleaned(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = WorkspaceStore(disk / "work", clock=FakeClock(), delete=delete_now)
        kept(store, 1, size=100_000)
        fill(disk)
        with pytest.raises(HostError, match="the disk is full") as caught:
            store.lease("acme", "acme-00000002")
        assert caught.value.kind == FailureKind.DISK
        assert len(store.sweep(Budget(0, 0))) == 1
        assert os.listdir(disk / "work" / "acme") == []
        (disk / "filler").unlink()
        store.release(store.lease("acme", "acme-00000002"), keep=False)


def test_directories_belong_to_the_builder_when_we_are_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give directories away")
    store = WorkspaceStore(tmp_path / "work", owner=(1234, 2345), delete=delete_now)
    workspace = store.lease("acme", "acme-00000001", {"tmp": tmp_path / "fast"})
    for path in (workspace.build, workspace.home, workspace.extra["tmp"]):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    assert workspace.path.stat().st_uid == 0
    store.release(workspace, keep=False)


def test_a_hostile_tree_is_deleted_in_the_background(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    doomed = tmp_path / "-rf $HOME;'\n"
    doomed.mkdir()
    (doomed / "link").symlink_to(victim)
    (doomed / "locked").mkdir()
    (doomed / "locked" / "file").touch()
    (doomed / "locked").chmod(0)
    here = os.open(doomed, os.O_RDONLY)
    for _ in range(1500):  # beyond Python's recursion limit and PATH_MAX
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    # The removal is nobody's child, so its end shows only in the directory itself.
    watch = child(
        "import sys, os\n"
        "from pathlib import Path\n"
        "from smidr_ci.workspaces.removal import delete_detached\n"
        "delete_detached(Path(sys.argv[1]))\n"
        "while os.path.lexists(sys.argv[1]): os.sched_yield()\n"
        "print('gone', flush=True)\n",
        doomed,
    )
    with watch as process:
        assert line_from(process) == "gone"
    assert (victim / "precious").exists()


def test_a_background_removal_leaves_no_child_behind(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    delete_detached(tmp_path / "tree")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_disk_usage_counts_links_once_and_holes_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x" * 500_000)
    os.link(tmp_path / "sub" / "a", tmp_path / "b")
    os.symlink("/", tmp_path / "root")
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(1 << 40)
    assert 500_000 <= disk_usage(tmp_path) < 600_000
