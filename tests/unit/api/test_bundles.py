"""Bundles: what a client sends arrives as it was, and what an attacker sends leaves nothing."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smidr_ci.api.bundles import (
    MAX_UNPACKED_BYTES,
    leads_out,
    receive_bundle,
    sweep_incoming,
)
from smidr_ci.api.limits import MAX_BUNDLE_BYTES
from smidr_ci.api.packing import make_bundle
from smidr_ci.clock import SystemClock
from smidr_ci.config.loader import LoadedProject, load_project
from smidr_ci.errors import ConfigError, SmidrError, TooLargeError, UsageError
from smidr_ci.files import MARKER_NAME
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock

FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


def member(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


def packed(*members: tuple[tarfile.TarInfo, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=layout) as archive:
        for info, content in members:
            if content:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def everything_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def refused(home: Home, data: bytes) -> UsageError:
    """The refusal; nothing may be left of the attempt."""
    with pytest.raises(UsageError) as caught:
        receive_bundle(home, data)
    assert everything_below(home.incoming) == []
    return caught.value


def project(tmp_path: Path, text: str) -> LoadedProject:
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    (folder / "smidr.yaml").write_text(f"name: a\n{text}\n")
    return load_project(folder / "smidr.yaml", environ={"HOME": str(tmp_path)})


@pytest.fixture
def with_layer(tmp_path: Path) -> LoadedProject:
    layer = tmp_path / "project" / "meta-a"
    (layer / "conf").mkdir(parents=True)
    (layer / "conf" / "layer.conf").write_text('BBFILE_COLLECTIONS += "a"\n')
    (layer / "run.sh").write_text("#!/bin/sh\n")
    (layer / "run.sh").chmod(0o755)
    (layer / "link").symlink_to("conf/layer.conf")
    (layer / ("long-" * 40)).mkdir()
    (layer / ("long-" * 40) / ("name-" * 30)).write_text("deep")
    (layer / "grüße.bb").write_text("umlaut")
    (layer.parent / "smidr.lock").write_text("{}")
    return project(tmp_path, "layers: [{name: a, path: meta-a}]")


def test_what_a_client_sends_arrives_as_it_was(with_layer: LoadedProject, home: Home) -> None:
    root = receive_bundle(home, make_bundle(with_layer))
    sent = with_layer.directory
    expected = [name for name in everything_below(sent) if name != "smidr.yaml"]
    assert everything_below(root) == sorted([*expected, MARKER_NAME])
    assert (root / "meta-a/run.sh").stat().st_mode & 0o777 == 0o755
    assert (root / "meta-a/conf/layer.conf").stat().st_mode & 0o777 == 0o644
    assert os.readlink(root / "meta-a/link") == "conf/layer.conf"
    assert (root / "meta-a/grüße.bb").read_text() == "umlaut"


def test_the_same_content_gives_the_same_bytes(with_layer: LoadedProject) -> None:
    first = make_bundle(with_layer)
    for path in with_layer.directory.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert make_bundle(with_layer) == first


def test_nothing_needed_is_nothing_sent(tmp_path: Path, home: Home) -> None:
    assert make_bundle(project(tmp_path, "")) == b""
    assert everything_below(receive_bundle(home, b"")) == [MARKER_NAME]


def test_git_directories_and_ignored_files_stay_at_home(
    with_layer: LoadedProject, home: Home
) -> None:
    layer = with_layer.directory / "meta-a"
    subprocess.run(["git", "init", "-q", str(layer)], check=True)
    (layer / ".gitignore").write_text("build/\n")
    (layer / "build").mkdir()
    (layer / "build" / "big.o").write_text("output")
    names = everything_below(receive_bundle(home, make_bundle(with_layer)))
    assert "meta-a/.gitignore" in names
    assert not [name for name in names if "big.o" in name or ".git/" in name]


def test_the_source_directory_travels_too(tmp_path: Path, home: Home) -> None:
    loaded = project(tmp_path, "directories: {source: src}")
    (loaded.directory / "src").mkdir()
    (loaded.directory / "src" / "main.c").write_text("int main;")
    root = receive_bundle(home, make_bundle(loaded))
    assert (root / "src/main.c").read_text() == "int main;"


@pytest.mark.parametrize("path", ["/etc", "../other", "~/meta", "..", "sub/../../other", "link"])
def test_a_layer_from_elsewhere_can_not_be_sent(tmp_path: Path, path: str) -> None:
    (tmp_path / "other").mkdir()
    loaded = project(tmp_path, f"layers: [{{name: a, path: {path}}}]")
    (loaded.directory / "link").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="lies outside of the config's directory") as caught:
        make_bundle(loaded)
    assert caught.value.where.endswith("smidr.yaml:2:26")
    assert "Put it into git" in caught.value.hint


def test_a_layer_that_is_missing_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="meta-x is no directory"):
        make_bundle(project(tmp_path, "layers: [{name: a, path: meta-x}]"))


@pytest.mark.parametrize("target", ["/dev/null", "../../../etc", "a/../../../../x"])
def test_a_link_that_leads_out_is_named_before_anything_is_sent(
    with_layer: LoadedProject, target: str
) -> None:
    (with_layer.directory / "meta-a/bad").symlink_to(target)
    with pytest.raises(UsageError, match=r"meta-a/bad"):
        make_bundle(with_layer)


def test_too_much_is_refused_and_the_biggest_files_named(with_layer: LoadedProject) -> None:
    big = with_layer.directory / "meta-a/firmware.bin"
    with big.open("wb") as file:
        file.truncate(MAX_UNPACKED_BYTES + 1)
    with pytest.raises(TooLargeError, match=r"firmware\.bin \(268\.4 MB\)"):
        make_bundle(with_layer)
    big.write_bytes(os.urandom(MAX_BUNDLE_BYTES + 1))
    with pytest.raises(TooLargeError, match=r"compressed; biggest: meta-a/firmware\.bin"):
        make_bundle(with_layer)


def test_unpacking_gives_a_marked_directory_that_only_the_agent_reaches(home: Home) -> None:
    root = receive_bundle(home, packed((member("a/b"), b"x")))
    assert stat.S_IMODE(home.incoming.stat().st_mode) == 0o700
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert (root / MARKER_NAME).is_file()
    assert receive_bundle(home, packed((member("a/b"), b"x"))) != root


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tar_programs_write_is_understood(home: Home, layout: int) -> None:
    name = (
        f"{'d' * 90}/{'f' * 80}" if layout == tarfile.USTAR_FORMAT else "d" * 200 + "/" + "f" * 99
    )
    target = "x" * (90 if layout == tarfile.USTAR_FORMAT else 300)
    data = packed(
        (member("./", tarfile.DIRTYPE), b""),
        (member("./e", tarfile.DIRTYPE), b""),
        (member(f"./{name}"), b"content"),
        (member("l", tarfile.SYMTYPE, linkname=target), b""),
        layout=layout,
    )
    root = receive_bundle(home, data)
    assert (root / name).read_bytes() == b"content"
    assert (root / "e").is_dir()
    assert os.readlink(root / "l") == target


def test_what_gnu_tar_writes_is_understood(home: Home, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / ("n" * 150)).write_text("x")
    made = subprocess.run(
        ["tar", "-C", str(tmp_path / "in"), "-czf", "-", "."], capture_output=True, check=True
    )
    root = receive_bundle(home, made.stdout)
    assert (root / "sub" / ("n" * 150)).read_text() == "x"


HOSTILE = [
    ("an absolute path", [(member("/etc/passwd"), b"x")]),
    ("leads out of it", [(member("a/../../x"), b"x")]),
    ("a hard link", [(member("a", tarfile.LNKTYPE, linkname="/etc/passwd"), b"")]),
    ("a device", [(member("a", tarfile.CHRTYPE, devmajor=1, devminor=3), b"")]),
    ("a device", [(member("a", tarfile.BLKTYPE), b"")]),
    ("a FIFO", [(member("a", tarfile.FIFOTYPE), b"")]),
    ("of an unknown kind", [(member("a", tarfile.CONTTYPE), b"")]),
    ("setuid", [(member("a", mode=0o4755), b"x")]),
    ("setgid", [(member("a", mode=0o2755), b"x")]),
    ("twice", [(member("a"), b"x"), (member("a"), b"y")]),
    ("'b/../a'", [(member("a"), b"x"), (member("b/../a"), b"y")]),
    ("'./a' twice", [(member("a"), b"x"), (member("./a"), b"y")]),
    ("below a file", [(member("a"), b"x"), (member("a/b"), b"y")]),
    ("below a symbolic", [(member("a", tarfile.SYMTYPE, linkname="b"), b""),
                          (member("a/x"), b"y")]),
    ("to '/etc'", [(member("a", tarfile.SYMTYPE, linkname="/etc"), b"")]),
    ("to '../x'", [(member("a", tarfile.SYMTYPE, linkname="../x"), b"")]),
    ("leads out of it, to '../..'", [(member("a", tarfile.SYMTYPE, linkname="../.."), b""),
               (member("c/b", tarfile.SYMTYPE, linkname="."), b"")]),
    ("no usable target", [(member("a", tarfile.SYMTYPE, linkname="x\ny"), b"")]),
    ("no .git", [(member("a/.git/config"), b"x")]),
    ("'a/.GIT/'", [(member("a/.GIT", tarfile.DIRTYPE), b"")]),
    ("of smidr's", [(member(MARKER_NAME), b"x")]),
    ("control character", [(member("a\nb"), b"x")]),
    ("too long or too deep", [(member("a/" * 100), b"")]),
    ("is too long", [(member("x" * 300), b"x")]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "members"), HOSTILE)
def test_a_hostile_entry_is_refused_by_name_and_leaves_nothing(
    home: Home, words: str, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    assert words in refused(home, packed(*members)).message


def test_a_chain_of_links_can_not_climb_out_together(home: Home) -> None:
    # Each for itself, read as text, stays inside.
    chain = [
        (member("d/d/up", tarfile.SYMTYPE, linkname="../.."), b""),
        (member("out", tarfile.SYMTYPE, linkname="d/d/up/../secret"), b""),
    ]
    assert "'out' leads out" in refused(home, packed(*chain)).message


def test_links_in_a_circle_end(home: Home) -> None:
    circle = [
        (member("a", tarfile.SYMTYPE, linkname="b/x/y"), b""),
        (member("b", tarfile.SYMTYPE, linkname="a/x/y"), b""),
    ]
    assert "leads out" in refused(home, packed(*circle)).message
    assert leads_out("self", {"self": "self"})


def test_a_small_archive_can_not_fill_the_disk(home: Home) -> None:
    info = member("zeros")
    info.size = MAX_UNPACKED_BYTES + 1
    head = gzip.compress(info.tobuf(tarfile.PAX_FORMAT))
    assert "bigger than 256 MiB unpacked" in refused(home, head).message


def test_padding_without_end_is_noticed_in_constant_memory(home: Home) -> None:
    data = gzip.compress(bytes(64 << 20), 9) * 8  # 512 MiB of end-of-archive blocks
    tracemalloc.start()
    error = refused(home, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "far too big" in error.message
    assert peak < 8 << 20


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_giant_header_is_not_even_read(home: Home, kind: bytes) -> None:
    info = member("././@LongLink", kind)
    info.size = 200 << 20
    raw = info.tobuf(tarfile.USTAR_FORMAT)
    assert "far too long name" in refused(home, gzip.compress(raw)).message


def test_too_many_entries_are_refused(home: Home) -> None:
    data = packed((member("a/b/c"), b"x"), (member("d"), b""))
    assert everything_below(receive_bundle(home, data, max_entries=5))
    with pytest.raises(TooLargeError, match="more than 4 entries"):
        receive_bundle(home, data, max_entries=4)


def test_headers_without_entries_end_too(home: Home) -> None:
    info = member("././@PaxHeader", b"x")
    data = gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) * 160_001, 1)
    assert "too many entries" in refused(home, data).message


def with_name(header: bytes, name: bytes, size: bytes | None = None) -> bytes:
    raw = bytearray(header)
    raw[:100] = name.ljust(100, b"\0")
    if size is not None:
        raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize(
    "size",
    [b"\xff" * 12, b"\x80" + bytes(3) + struct.pack(">q", 1 << 40), b"-00000000001", b"9" * 12],
)
def test_a_size_that_can_not_be_right_is_refused(home: Home, size: bytes) -> None:
    header = with_name(member("a").tobuf(tarfile.USTAR_FORMAT), b"a", size)
    assert "number that can't be right" in refused(home, gzip.compress(header)).message


@pytest.mark.parametrize(
    "records",
    [
        b"30 path=a\n",
        b"9 path=a",
        b"0 path=a\n",
        b"-9 path=a\n",
        b"99999999999999999999 path=a\n",
        b"10 path=a\0\n",
        b"path=a\n",
        b"11 size=-1\n",
        b"17 size=1234567890123456789\n",
        b"25 GNU.sparse.major=1\n",
        b"12 path=\xff\xfe\n",
        b"6 a=b\n" * 65,
    ],
)
def test_a_pax_header_that_lies_is_refused(home: Home, records: bytes) -> None:
    head = member("x", b"x")
    head.size = len(records)
    raw = head.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0")
    raw += member("a").tobuf(tarfile.USTAR_FORMAT) + bytes(1024)
    refused(home, gzip.compress(raw))


@pytest.mark.parametrize(
    "data", [b"x", b"\x1f\x8b", b"PK\x03\x04", gzip.compress(b"x" * 2000, mtime=0)]
)
def test_what_is_no_archive_is_told_so(home: Home, data: bytes) -> None:
    assert "bundle" in refused(home, data).message


def test_a_cut_or_changed_archive_is_noticed(home: Home) -> None:
    data = packed((member("a"), os.urandom(5000)))
    refused(home, data[: len(data) // 2])
    refused(home, data[:-5])
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    refused(home, bytes(flipped))


def test_too_big_a_bundle_is_not_looked_at(home: Home) -> None:
    with pytest.raises(TooLargeError, match="33554432 are taken"):
        receive_bundle(home, bytes(MAX_BUNDLE_BYTES + 1))


NAMES = st.one_of(
    st.sampled_from(["a", "b", "a/b", "a/b/c", "../x", "/x", ".", "..", "a/..", "./a", "a//b"]),
    st.text("ab/.~\n\u20ac", min_size=1, max_size=12),
)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, b"9"]
)
MEMBERS = st.lists(st.tuples(NAMES, KINDS, NAMES, st.binary(max_size=600)), max_size=12)


def built(members: list[tuple[str, bytes, str, bytes]]) -> bytes:
    pairs = [
        (member(name, kind, linkname=target), content if kind == tarfile.REGTYPE else b"")
        for name, kind, target, content in members
    ]
    return packed(*pairs)


def links_below(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_symlink())


@FUZZ
@given(MEMBERS)
def test_no_archive_writes_or_points_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str, bytes]]
) -> None:
    base = tmp_path_factory.mktemp("fuzz")
    home = Home(base / "home")
    home.root.mkdir()
    with suppress(UsageError):
        root = receive_bundle(home, built(members))
        for link in links_below(root):
            assert Path(os.path.realpath(link)).is_relative_to(root)
        for path in root.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
            assert not mode & 0o7000
        sent = {name for name, kind, _, _ in members if kind == tarfile.REGTYPE}
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.name != MARKER_NAME:
                assert any(os.path.normpath(name) == str(path.relative_to(root)) for name in sent)
    assert everything_below(base)[:1] in ([], ["home"])
    assert set(os.listdir(home.root)) <= {"incoming"}


@FUZZ
@given(MEMBERS, st.data())
def test_damaged_bytes_give_an_error_of_ours_or_a_tree(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[tuple[str, bytes, str, bytes]],
    data: st.DataObject,
) -> None:
    home = Home(tmp_path_factory.mktemp("fuzz"))
    raw = bytearray(gzip.decompress(built(members)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 3000)))
        raw[at] = data.draw(st.integers(0, 255))
    with suppress(SmidrError):
        receive_bundle(home, gzip.compress(bytes(raw), 1))


@FUZZ
@given(st.binary(max_size=2000))
def test_any_bytes_at_all_give_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    home = Home(tmp_path_factory.mktemp("fuzz"))
    for data in (raw or b"x", gzip.compress(raw)):
        with suppress(UsageError):
            receive_bundle(home, data)


def test_what_never_became_a_build_goes_after_an_hour(home: Home) -> None:
    clock = FakeClock(SystemClock().now())
    old = receive_bundle(home, packed((member("a/b"), b"x")))
    (home.incoming / "not-ours").mkdir()
    clock.advance(timedelta(minutes=59).total_seconds())
    sweep_incoming(home, clock)
    assert old.is_dir()
    clock.advance(120)
    sweep_incoming(home, clock)
    assert os.listdir(home.incoming) == ["not-ours"]


def test_sweeping_where_nothing_came_yet_is_fine(home: Home) -> None:
    sweep_incoming(home)
    assert not home.incoming.exists()


def test_a_config_that_names_a_place_outside_is_refused_by_either_side(tmp_path: Path) -> None:
    # The client's own check speaks of sending; nothing is read from there.
    loaded = project(tmp_path, "directories: {source: ..}")
    with pytest.raises((UsageError, ConfigError), match="can't send"):
        make_bundle(loaded)
