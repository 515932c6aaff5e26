"""Unpacking the official runner: good archives, and those that want more than to be unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from smidr_ci.errors import ConfigError, HostError
from smidr_ci.forges.github.runners.archive import Archive, ArchiveLimits, unpack
from tests.fakes.github.runner_program import archive

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, to: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, to, 0o644
    return info, content


def stored(tmp_path: Path, *extra: Entry) -> Archive:
    raw = archive(extra=extra)
    path = tmp_path / "runner.tar.gz"
    path.write_bytes(raw)
    return Archive(path, hashlib.sha256(raw).hexdigest(), "2.336.0")


def test_a_runner_is_unpacked_with_its_programs_and_links(tmp_path: Path) -> None:
    target = tmp_path / "root"
    unpack(stored(tmp_path), target)
    listener = (target / "bin" / "Runner.Listener").stat()
    assert stat.S_IMODE(listener.st_mode) == 0o755
    assert stat.S_IMODE((target / "bin" / "Runner.Listener.py").stat().st_mode) == 0o644
    assert (target / "externals/node24/bin/tool").read_text() == "// a tool\n"


def test_an_archive_with_another_sum_leaves_nothing(tmp_path: Path) -> None:
    good = stored(tmp_path)
    good.path.write_bytes(good.path.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match=good.sha256):
        unpack(good, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file") as caught:
        unpack(Archive(tmp_path / "none.tar.gz", "0" * 64), tmp_path / "root")
    assert str(tmp_path / "none.tar.gz") in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        [entry("../out", b"x")],
        [entry("bin/../../out", b"x")],
        [entry("/out", b"x")],
        [entry("out", kind=tarfile.SYMTYPE, to="../out")],
        [entry("out", kind=tarfile.SYMTYPE, to="/etc/passwd")],
        [entry("a/out", kind=tarfile.SYMTYPE, to="../../out")],
        [entry("out", kind=tarfile.LNKTYPE, to="../runner.tar.gz")],
        [entry("dir", kind=tarfile.SYMTYPE, to="bin"), entry("dir/Runner.Listener.py", b"x")],
        [entry("bin/Runner.Listener", b"x")],
        [entry("device", kind=tarfile.CHRTYPE)],
        [entry("pipe", kind=tarfile.FIFOTYPE)],
    ],
    ids=lambda bad: bad[-1][0].name,
)
def test_what_leads_out_or_is_no_file_is_refused(tmp_path: Path, bad: list[Entry]) -> None:
    (tmp_path / "place").mkdir()
    before = sorted(os.listdir(tmp_path))
    made = stored(tmp_path, *bad)
    with pytest.raises((ConfigError, HostError)):
        unpack(made, tmp_path / "place" / "root")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "runner.tar.gz"])
    assert os.listdir(tmp_path / "place") == ["root"]


def test_a_hard_link_becomes_a_copy(tmp_path: Path) -> None:
    unpack(stored(tmp_path, entry("again", kind=tarfile.LNKTYPE, to="run.sh")), tmp_path / "root")
    assert (tmp_path / "root/again").read_bytes() == (tmp_path / "root/run.sh").read_bytes()
    assert (tmp_path / "root/again").stat().st_nlink == 1


def test_rights_for_more_than_the_owner_do_not_come_along(tmp_path: Path) -> None:
    info, content = entry("suid", b"x")
    info.mode = 0o6777
    unpack(stored(tmp_path, (info, content)), tmp_path / "root")
    assert stat.S_IMODE((tmp_path / "root/suid").stat().st_mode) == 0o755


@pytest.mark.parametrize("limits", [ArchiveLimits(entries=3), ArchiveLimits(size_bytes=100)])
def test_an_archive_that_holds_too_much_is_refused(tmp_path: Path, limits: ArchiveLimits) -> None:
    with pytest.raises(ConfigError, match="more than a runner"):
        unpack(stored(tmp_path), tmp_path / "root", limits)


def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = stored(tmp_path)
    raw = whole.path.read_bytes()[:-200]
    whole.path.write_bytes(raw)
    cut = Archive(whole.path, hashlib.sha256(raw).hexdigest())
    with pytest.raises(ConfigError):
        unpack(cut, tmp_path / "root")


def test_what_is_no_runner_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("README"))
    path = tmp_path / "other.tar.gz"
    path.write_bytes(out.getvalue())
    made = Archive(path, hashlib.sha256(out.getvalue()).hexdigest())
    with pytest.raises(ConfigError, match=r"has no bin/Runner\.Listener"):
        unpack(made, tmp_path / "root")
