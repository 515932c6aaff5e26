from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.locks import is_locked, take_lock, try_lock
from tests.fakes.child import child, kill, line_from
from tests.fakes.clock import FakeClock

HOLDER = """
import sys
from pathlib import Path
from smidr_ci.locks import try_lock
lock = try_lock(Path(sys.argv[1]))
print("held" if lock else "busy", flush=True)
sys.stdin.readline()
"""


def test_a_lock_is_exclusive_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = try_lock(path)
    assert lock is not None
    with lock:
        assert is_locked(path)
        assert try_lock(path) is None
    lock.release()
    assert not is_locked(path)
    assert not is_locked(tmp_path / "missing")


def test_the_kernel_drops_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with child(HOLDER, path) as process:
        assert line_from(process) == "held"
        assert is_locked(path)
        kill(process)
    assert not is_locked(path)


def test_a_child_process_does_not_inherit_a_lock(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    with child("import sys; print('up', flush=True); sys.stdin.readline()") as process:
        assert line_from(process) == "up"
        lock.release()
        assert not is_locked(tmp_path / "lock")


def test_a_lock_on_a_deleted_file_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    old = try_lock(path)
    path.unlink()
    new = try_lock(path)
    assert old is not None
    assert new is not None
    assert is_locked(path)
    old.release()
    assert is_locked(path)
    new.release()


def test_patience_has_an_end(tmp_path: Path) -> None:
    clock = FakeClock()
    with child(HOLDER, tmp_path / "lock") as process:
        assert line_from(process) == "held"
        assert take_lock(tmp_path / "lock", clock) is None
    assert 0.1 < sum(clock.slept) < 1
    lock = take_lock(tmp_path / "lock", clock)
    assert lock is not None
    lock.release()


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    os.symlink("elsewhere", tmp_path / "lock")
    for look in (try_lock, is_locked):
        with pytest.raises(OSError, match="symbolic links"):
            look(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
