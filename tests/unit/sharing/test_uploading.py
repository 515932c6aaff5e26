"""Which of a host's objects go to the store, in which order, and what a failure leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError
from smidr_ci.sharing.ledger import Ledger
from smidr_ci.sharing.names import DOWNLOADS, SSTATE
from smidr_ci.sharing.scan import SharedTree, new_in
from smidr_ci.sharing.uploading import Round, Tally
from smidr_ci.stores.model import StoreError
from tests.fakes.object_store import MemoryStore
from tests.fakes.sstate_objects import make_download, make_object, make_tarball, settle


class Host:
    """Two caches, a ledger, and a store."""

    def __init__(self, root: Path) -> None:
        self.sstate, self.downloads = root / "sstate", root / "downloads"
        self.trees = (SharedTree(SSTATE, self.sstate), SharedTree(DOWNLOADS, self.downloads))
        self.store = MemoryStore()
        self.ledger = Ledger(root / "share.db", "memory")
        self.told: list[str] = []
        self.cancel = CancelToken()

    def upload(self) -> Tally:
        for tree in self.trees:
            settle(tree.root)
        self.store.asked.clear()
        return Round(self.store, self.ledger, self.cancel, self.told.append).run(self.trees)

    def waiting(self) -> int:
        found = (new_in(tree, self.ledger, CancelToken()) for tree in self.trees)
        return sum(len(folder.names) for tree in found for folder in tree)

    def puts(self) -> list[str]:
        return [line.removeprefix("put ") for line in self.store.asked if line.startswith("put ")]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    found = Host(tmp_path)
    yield found
    found.ledger.close()


def key(host: Host, path: Path) -> str:
    cache = SSTATE if path.is_relative_to(host.sstate) else DOWNLOADS
    return f"{cache}/{path.relative_to(host.sstate if cache == SSTATE else host.downloads)}"


def test_what_describes_an_object_goes_before_it(host: Host) -> None:
    path = make_object(host.sstate, 1)
    signature = path.with_name(f"{path.name}.sig")
    signature.write_bytes(b"signed")
    done = host.upload()
    assert host.puts() == [key(host, path) + suffix for suffix in (".siginfo", ".sig", "")]
    assert host.store.objects[key(host, path)] == path.read_bytes()
    assert (done.uploaded, done.present, done.damaged, done.unproven) == (1, 0, 0, 0)


def test_nothing_new_costs_the_store_nothing(host: Host) -> None:
    for number in range(20):
        make_object(host.sstate, number)
    assert host.upload().uploaded == 20
    assert host.waiting() == 0
    assert host.upload() == Tally()
    assert host.store.asked == []


def test_only_the_folder_with_something_new_is_asked_for(host: Host) -> None:
    for number in range(20):
        make_object(host.sstate, number)
    host.upload()
    new = make_object(host.sstate, 77)
    os.utime(new.parent)
    assert host.waiting() == 1
    host.store.asked.clear()
    Round(host.store, host.ledger, host.cancel).run(host.trees)
    assert {line.split()[1].removesuffix(".siginfo") for line in host.store.asked} == {
        key(host, new)
    }


def test_what_the_store_has_is_not_sent_again_but_what_describes_it_is(host: Host) -> None:
    path = make_object(host.sstate, 1)
    host.store.objects[key(host, path)] = b"of another host"
    done = host.upload()
    assert (done.uploaded, done.present) == (0, 1)
    assert host.store.objects[key(host, path)] == b"of another host"
    assert host.puts() == [f"{key(host, path)}.siginfo"]


def test_a_siginfo_that_comes_later_is_shared_too(host: Host) -> None:
    path = make_object(host.sstate, 1, siginfo=False)
    host.upload()
    path.with_name(f"{path.name}.siginfo").write_bytes(b"\x80later")
    os.utime(path.parent)
    Round(host.store, host.ledger, host.cancel).run(host.trees)
    assert f"{key(host, path)}.siginfo" in host.store.objects


@pytest.mark.parametrize("calls", [0, 1, 3, 4, 11, 25])
def test_after_a_failure_the_next_round_does_the_rest(host: Host, calls: int) -> None:
    paths = [make_object(host.sstate, number) for number in range(10)]
    host.store.fails_after = calls
    with pytest.raises(StoreError):
        host.upload()
    host.store.fails_after = None
    before = set(host.store.objects)
    host.upload()
    assert before.isdisjoint(host.puts())
    assert host.store.objects.keys() == {
        key(host, path) + suffix for path in paths for suffix in (".siginfo", "")
    }
    assert host.waiting() == 0


def test_a_cancel_ends_a_round_between_objects(host: Host) -> None:
    make_object(host.sstate, 1)
    host.cancel.cancel("enough")
    with pytest.raises(CancelledError):
        host.upload()
    assert host.store.objects == {}
    assert host.waiting() == 1


def test_a_damaged_object_stays_here_and_is_named_until_it_is_gone(host: Host) -> None:
    good, bad = make_object(host.sstate, 1), make_object(host.sstate, 2)
    bad.write_bytes(bad.read_bytes()[:-20])
    done = host.upload()
    assert (done.uploaded, done.damaged) == (1, 1)
    assert not [found for found in host.store.objects if bad.name in found]
    assert bad.name in host.told[0]
    assert [item.path for item in host.ledger.refusals()] == [str(bad.relative_to(host.sstate))]
    assert good.exists()
    assert bad.exists()

    make_object(host.sstate, 2)  # a build has made it again
    os.utime(bad.parent)
    Round(host.store, host.ledger, host.cancel).run(host.trees)
    assert key(host, bad) in host.store.objects
    assert host.ledger.refusals() == ()


def test_half_written_files_links_and_other_peoples_files_stay_here(host: Host) -> None:
    path = make_object(host.sstate, 1)
    path.with_name(f"{path.name}.Xa8b2c3d").write_bytes(b"half")
    path.with_name("notes.txt").write_bytes(b"mine")
    target = host.sstate.parent / "secret"
    target.write_bytes(b"secret")
    other = make_object(host.sstate, 2)
    other.unlink()
    other.symlink_to(target)
    linked = make_object(host.sstate, 3)
    siginfo = linked.with_name(f"{linked.name}.siginfo")
    siginfo.unlink()
    siginfo.symlink_to(target)
    aside = host.sstate / "damaged" / path.name
    aside.parent.mkdir()
    aside.write_bytes(b"damaged")
    host.upload()
    assert set(host.store.objects) == {key(host, path), f"{key(host, path)}.siginfo"}
    assert b"secret" not in host.store.objects.values()


def test_a_download_is_shared_when_its_checksum_is_right(host: Host) -> None:
    good = make_download(host.downloads, "busybox-1.37.0.tar.bz2", b"source")
    wrong = make_download(host.downloads, "zlib-1.3.tar.gz", b"source")
    wrong.write_bytes(b"another")
    os.utime(wrong, (1_000_000_000, 1_000_000_000))
    (host.downloads / "half.tar.gz").write_bytes(b"no stamp")
    (host.downloads / "unknown.tar.gz").write_bytes(b"no checksum")
    (host.downloads / "unknown.tar.gz.done").touch()
    (host.downloads / "git2").mkdir()
    (host.downloads / "git2" / "x.tar.gz").write_bytes(b"of a fetcher")
    done = host.upload()
    assert set(host.store.objects) == {key(host, good)}
    assert (done.damaged, done.unproven) == (1, 1)


def test_a_stamp_that_comes_later_makes_a_download_new(host: Host) -> None:
    path = make_download(host.downloads, "busybox-1.37.0.tar.bz2", b"source")
    stamp = path.with_name(f"{path.name}.done")
    raw = stamp.read_bytes()
    stamp.unlink()
    host.upload()
    assert host.store.objects == {}
    stamp.write_bytes(raw)
    os.utime(host.downloads)
    Round(host.store, host.ledger, host.cancel).run(host.trees)
    assert set(host.store.objects) == {key(host, path)}


def test_the_tarball_of_a_repository_that_has_grown_goes_again(host: Host) -> None:
    path = make_tarball(host.downloads / "git2_host.repo.git.tar.gz", "one commit")
    path.with_name(f"{path.name}.done").touch()
    assert host.upload().uploaded == 1
    make_tarball(path, "two commits, and so much more than before: " + os.urandom(200).hex())
    os.utime(host.downloads)
    assert Round(host.store, host.ledger, host.cancel).run(host.trees).uploaded == 1
    assert host.store.objects[key(host, path)] == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-30])
    os.utime(host.downloads)
    assert Round(host.store, host.ledger, host.cancel).run(host.trees).damaged == 1


def test_a_broken_or_missing_ledger_only_costs_questions(host: Host, tmp_path: Path) -> None:
    make_object(host.sstate, 1)
    host.upload()
    host.ledger.close()
    (tmp_path / "share.db").write_bytes(b"no database at all, but long enough to be read as one")
    for name in ("share.db-wal", "share.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    host.ledger = Ledger(tmp_path / "share.db", "memory")
    done = host.upload()
    assert (done.uploaded, done.present) == (0, 1)
    assert host.puts() == []


def test_each_store_has_a_ledger_of_its_own(host: Host, tmp_path: Path) -> None:
    make_object(host.sstate, 1)
    host.upload()
    with Ledger(tmp_path / "share.db", "another") as other:
        store = MemoryStore()
        assert Round(store, other, host.cancel).run(host.trees).uploaded == 1
