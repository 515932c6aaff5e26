"""What jobs keep: whole for every reader, one writer at a time, never beside its root."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.caches.job_archives import JobArchives, job_archive_items
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import BusyError, CancelledError, HostError
from smidr_ci.locks import try_lock

OWNER = "gitlab.example.com,7,trusted"


@pytest.fixture
def archives(tmp_path: Path) -> JobArchives:
    return JobArchives(tmp_path / "job-caches", spare_bytes=0)


def save(archives: JobArchives, *chunks: bytes, key: str = "deps", owner: str = OWNER) -> int:
    return archives.save(owner, key, chunks, CancelToken())


def read(archives: JobArchives, key: str = "deps", owner: str = OWNER) -> bytes | None:
    file = archives.open(owner, key)
    if file is None:
        return None
    with file:
        return file.read()


def test_what_was_saved_last_is_read(archives: JobArchives) -> None:
    assert read(archives) is None
    assert save(archives, b"one", b"two") == 6
    assert read(archives) == b"onetwo"
    save(archives, b"three")
    assert read(archives) == b"three"


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/b", "a%2Fb"), ("A", "a"), ("x" * 500, "x" * 501), ("", " "), ("\udcff", "\udcfe")],
)
def test_no_two_keys_share_an_archive(archives: JobArchives, one: str, other: str) -> None:
    save(archives, b"1", key=one)
    save(archives, b"2", key=other)
    assert read(archives, one) == b"1"
    assert read(archives, other) == b"2"


def test_owners_have_nothing_in_common(archives: JobArchives) -> None:
    save(archives, b"1", owner="trusted")
    assert read(archives, owner="untrusted") is None


@pytest.mark.parametrize("key", ["..", ".", "../../x", "/etc/passwd", "a/../..", ".deleting-x", ""])
def test_no_key_leads_out_of_its_owners_folder(archives: JobArchives, key: str) -> None:
    save(archives, b"x", key=key)
    place = archives.place(OWNER, key)
    assert place.is_file()
    assert place.resolve().parent.parent.parent == archives.root.resolve()
    assert len(list(job_archive_items(archives.root, CancelToken()))) == 1


def test_a_reader_has_the_whole_old_archive_while_it_is_replaced(archives: JobArchives) -> None:
    save(archives, b"old" * 1000)
    file = archives.open(OWNER, "deps")
    assert file is not None
    with file:
        save(archives, b"new")
        assert file.read() == b"old" * 1000


def test_what_fails_in_the_middle_leaves_the_archive_before(archives: JobArchives) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError(5, "Input/output error")

    save(archives, b"old")
    with pytest.raises(HostError, match="can't keep the cache"):
        archives.save(OWNER, "deps", chunks(), CancelToken())
    assert read(archives) == b"old"
    names = {path.name for path in archives.place(OWNER, "deps").parent.iterdir()}
    assert names == {"cache.zip", "lock", ".smidr-owned"}


def test_what_a_killed_writer_left_goes_with_the_next(archives: JobArchives) -> None:
    save(archives, b"old")
    left = archives.place(OWNER, "deps").with_name(".begun-abc")
    left.write_bytes(b"half")
    save(archives, b"new")
    assert not left.exists()


def test_an_archive_over_the_limit_is_not_kept(tmp_path: Path) -> None:
    archives = JobArchives(tmp_path / "job-caches", max_bytes=5, spare_bytes=0)
    save(archives, b"small")
    with pytest.raises(HostError, match="bigger than"):
        save(archives, b"123", b"456")
    assert read(archives) == b"small"


def test_what_was_used_least_recently_makes_room(tmp_path: Path) -> None:
    archives = JobArchives(tmp_path / "job-caches", max_bytes=350_000, spare_bytes=0)
    content = b"x" * 100_000
    for number, key in enumerate(("read", "unused", "middle")):
        save(archives, content, key=key, owner=f"owner {number}")
        folder = archives.place(f"owner {number}", key).parent
        os.utime(folder, (1000 + number, 1000 + number))
    assert read(archives, "read", "owner 0") == content
    save(archives, content, key="new")
    assert {path.parent.name for path in archives.root.rglob("cache.zip")} == {
        "read", "middle", "new",
    }  # fmt: skip


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path) -> None:
    archives = JobArchives(tmp_path / "job-caches", spare_bytes=1 << 60)
    with pytest.raises(HostError, match="nearly full"):
        save(archives, b"x")


def test_writers_come_one_after_the_other(archives: JobArchives) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        began.set()
        yield b"first"
        assert go_on.wait(20)

    def fast() -> Iterator[bytes]:
        assert go_on.is_set(), "two wrote at once"
        yield b"second"

    writers = [
        threading.Thread(target=archives.save, args=(OWNER, "deps", pieces, CancelToken()))
        for pieces in (slow(), fast())
    ]
    writers[0].start()
    assert began.wait(20)
    writers[1].start()
    go_on.set()
    for writer in writers:
        writer.join(20)
    assert read(archives) == b"second"


def test_a_writer_waits_only_so_long_and_ends_with_its_job(archives: JobArchives) -> None:
    save(archives, b"old")
    lock = try_lock(archives.place(OWNER, "deps").parent / "lock")
    assert lock is not None
    with lock:
        impatient = JobArchives(archives.root, spare_bytes=0, patience_s=0.0)
        with pytest.raises(BusyError):
            save(impatient, b"new")
        cancelled = CancelToken()
        cancelled.cancel("enough")
        with pytest.raises(CancelledError):
            archives.save(OWNER, "deps", [b"new"], cancelled)
        (item,) = job_archive_items(archives.root, CancelToken())
        assert not item.remove()
    assert read(archives) == b"old"


def test_what_is_read_counts_as_used_and_what_is_removed_is_gone(archives: JobArchives) -> None:
    save(archives, b"x" * 9000)
    folder = archives.place(OWNER, "deps").parent
    os.utime(folder, (1000, 1000))
    (item,) = job_archive_items(archives.root, CancelToken())
    assert item.use_s == 1000
    assert item.size_bytes >= 9000
    read(archives)
    (item,) = job_archive_items(archives.root, CancelToken())
    assert item.use_s > 1000
    assert item.remove()
    assert read(archives) is None
    assert list(archives.root.iterdir()) == []
    save(archives, b"again")
    assert read(archives) == b"again"


def test_a_planted_link_is_no_archive(archives: JobArchives, tmp_path: Path) -> None:
    save(archives, b"x")
    place = archives.place(OWNER, "deps")
    place.unlink()
    place.symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(OSError, match="symbolic"):
        archives.open(OWNER, "deps")
