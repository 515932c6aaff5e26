"""Artifacts are chosen and packed as the official runner does it, in little memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from smidr_ci.errors import ConfigError, SmidrError
from smidr_ci.forges.gitlab.archive import LEVELS, gzip_pieces, raw_pieces, zip_pieces
from smidr_ci.forges.gitlab.patterns import Pattern
from smidr_ci.forges.gitlab.replay import Piece, Replay
from smidr_ci.forges.gitlab.selection import Selection, Tree, select


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}\n")


def choose(
    root: Path, paths: list[str], exclude: Iterable[str] = (), lines: list[str] | None = None
) -> list[str]:
    heard = lines if lines is not None else []
    return select(
        Tree(root), paths=paths, exclude=list(exclude), warn=heard.append, note=heard.append
    ).paths


def packed(root: Path, paths: list[str], level: int = LEVELS["default"]) -> zipfile.ZipFile:
    selection = Selection(Tree(root), choose(root, paths))
    pieces = zip_pieces(selection, level=level, warn=lambda _: None)
    return zipfile.ZipFile(io.BytesIO(b"".join(bytes(piece.data) for piece in pieces)))


@pytest.mark.parametrize(
    ("glob", "path", "is_match"),
    [
        ("a/**/*.txt", "a/b/c/x.txt", True),
        ("a/**/*.txt", "a/x.txt", True),
        ("a/**/*.txt", "b/x.txt", False),
        ("a/*", "a/b/c", False),
        ("a/**.txt", "a/x.txt", True),
        ("a/**.txt", "a/b/x.txt", False),
        ("**", "x/.y", True),
        ("*", ".hidden", True),
        ("?[a-c]", "zb", True),
        ("[^a]x", "ax", False),
        ("[!a]x", "bx", True),
        ("{a,b/c}/x", "b/c/x", True),
        ("{a,{b,c}}x", "cx", True),
        (r"\{a,b\}", "{a,b}", True),
        (r"a\*b", "axb", False),
        (r"a\*b", "a*b", True),
        ("dir/", "dir/file", False),
    ],
)
def test_globs_mean_what_doublestar_says(glob: str, path: str, is_match: bool) -> None:
    assert Pattern.of(glob).matches(path) is is_match


def test_a_glob_made_to_be_slow_is_not() -> None:
    assert not Pattern.of("*a" * 40 + "b").matches("a" * 250)
    assert not Pattern.of("**/" * 60 + "x").matches("/".join("a" * 300))
    with pytest.raises(ConfigError, match="too many alternatives"):
        Pattern.of("{a,b}" * 12)


def test_92_paths_and_exclude_choose_as_the_official_runner_does(tmp_path: Path) -> None:
    make(tmp_path, "a/x.txt", "a/b/y.txt", "a/b/z.log", "a/c/w.txt", "other")
    assert choose(tmp_path, ["a/**/*.txt"], ["a/b/**"]) == ["a/c/w.txt", "a/x.txt"]
    assert choose(tmp_path, ["a"]) == [
        "a", "a/b", "a/b/y.txt", "a/b/z.log", "a/c", "a/c/w.txt", "a/x.txt",
    ]  # fmt: skip
    assert choose(tmp_path, ["**"], ["**"]) == []
    assert choose(tmp_path, ["./a/../other"]) == ["other"]
    assert choose(tmp_path, [str(tmp_path / "other")]) == ["other"]
    assert "a/b/y.txt" in choose(tmp_path, ["a/b"], ["a/b/"])


def test_93_what_is_outside_or_missing_is_a_warning(tmp_path: Path) -> None:
    lines: list[str] = []
    assert choose(tmp_path, ["../x", "/etc/passwd", "nothing", ""], lines=lines) == []
    assert "not a subpath" in lines[0]
    assert "not a subpath" in lines[1]
    assert "nothing: no matching files" in lines[2]
    assert "empty" in lines[3]


def test_93_links_are_chosen_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(outside, "secret")
    root = tmp_path / "root"
    make(root, "real/file")
    (root / "way").symlink_to(outside)
    assert choose(root, ["**/secret", "way/secret", "way/**"]) == ["way"]
    assert choose(root, ["*"]) == ["real", "real/file", "way"]


def test_94_untracked_files_pass_the_same_exclude(tmp_path: Path) -> None:
    lines: list[str] = []
    selection = select(
        Tree(tmp_path),
        paths=[],
        exclude=["*.tmp"],
        untracked=["ä.txt", "b.tmp"],
        warn=lines.append,
        note=lines.append,
    )
    assert selection.paths == ["ä.txt"]
    assert lines == ["untracked: found 1 files", "*.tmp: excluded 1 files"]


def test_92_a_zip_keeps_modes_links_directories_and_times(tmp_path: Path) -> None:
    make(tmp_path, "d/run.sh", "d/ü.txt")
    (tmp_path / "d/run.sh").chmod(0o4755)
    (tmp_path / "d/link").symlink_to("run.sh")
    (tmp_path / "d/empty").mkdir()
    os.utime(tmp_path / "d/run.sh", (1_700_000_001, 1_700_000_001))
    archive = packed(tmp_path, ["d"])
    assert archive.testzip() is None
    assert archive.namelist() == ["d/", "d/empty/", "d/link", "d/run.sh", "d/ü.txt"]
    modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes["d/run.sh"] == stat.S_IFREG | 0o755, "without setuid"
    assert stat.S_ISLNK(modes["d/link"])
    assert archive.read("d/link") == b"run.sh"
    assert stat.S_ISDIR(modes["d/empty/"])
    entry = archive.getinfo("d/run.sh")
    assert entry.date_time == (2023, 11, 14, 22, 13, 20)
    assert int.from_bytes(entry.extra[5:9], "little") == 1_700_000_001


def test_another_program_takes_the_zip_from_a_file(tmp_path: Path) -> None:
    make(tmp_path, "in/a", "in/b/c")
    (tmp_path / "in/link").symlink_to("b/c")
    selection = Selection(Tree(tmp_path), choose(tmp_path, ["in"]))
    (tmp_path / "x.zip").write_bytes(
        b"".join(bytes(piece.data) for piece in zip_pieces(selection, warn=print))
    )
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", tmp_path / "x.zip", tmp_path / "out"], check=True
    )
    assert (tmp_path / "out/in/b/c").read_text() == "content of in/b/c\n"


def test_pipes_are_left_out_with_a_warning(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    make(tmp_path, "file")
    lines: list[str] = []
    selection = Selection(Tree(tmp_path), ["file", "pipe"])
    content = b"".join(bytes(piece.data) for piece in zip_pieces(selection, warn=lines.append))
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["file"]
    assert lines == ["pipe: left out, it is neither file, directory nor link"]


def test_compressed_images_are_stored_and_text_is_deflated(tmp_path: Path) -> None:
    (tmp_path / "image.wic.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(200_000))
    (tmp_path / "unnamed").write_bytes(b"hsqs" + bytes(200_000))
    (tmp_path / "log.txt").write_bytes(b"line\n" * 50_000)
    archive = packed(tmp_path, ["*"])
    kinds = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert kinds == {
        "image.wic.zst": zipfile.ZIP_STORED,
        "unnamed": zipfile.ZIP_STORED,
        "log.txt": zipfile.ZIP_DEFLATED,
    }
    fastest = packed(tmp_path, ["log.txt"], LEVELS["fastest"])
    assert fastest.getinfo("log.txt").compress_type == zipfile.ZIP_STORED


def test_90_gzip_has_a_member_for_each_file(tmp_path: Path) -> None:
    make(tmp_path, "r/a.xml", "r/b.xml", "r/ж.xml")
    selection = Selection(Tree(tmp_path), choose(tmp_path, ["r"]))
    content = b"".join(bytes(piece.data) for piece in gzip_pieces(selection, warn=lambda _: None))
    assert gzip.decompress(content).decode() == (
        "content of r/a.xml\ncontent of r/b.xml\ncontent of r/ж.xml\n"
    )
    assert content[10:16] == b"a.xml\0"
    rest = zlib.decompressobj(31)
    assert rest.decompress(content) == b"content of r/a.xml\n"
    assert rest.unused_data.startswith(b"\x1f\x8b")


def test_raw_takes_exactly_one_file(tmp_path: Path) -> None:
    make(tmp_path, "one", "two")
    pieces = raw_pieces(Selection(Tree(tmp_path), ["one"]), warn=lambda _: None)
    assert b"".join(bytes(piece.data) for piece in pieces) == b"content of one\n"
    with pytest.raises(SmidrError, match="2 files were chosen where the format takes one"):
        list(raw_pieces(Selection(Tree(tmp_path), ["one", "two"]), warn=lambda _: None))


def test_a_replay_gives_the_same_bytes_and_packs_nothing_twice(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(1_500_000)
    (tmp_path / "big.xz").write_bytes(noise)
    (tmp_path / "text").write_bytes(b"abc" * 400_000)
    made = 0

    def counted() -> Iterable[Piece]:
        nonlocal made
        for piece in zip_pieces(Selection(Tree(tmp_path), ["big.xz", "text"]), warn=lambda _: None):
            made += len(piece.data)
            yield piece

    with Replay(counted(), tmp_path) as replay:
        for part in (1, 2, 4):  # attempts that break off
            stream = replay.chunks()
            for _ in range(part):
                next(stream)
        whole = b"".join(map(bytes, replay.chunks()))
        again = b"".join(map(bytes, replay.chunks()))
        assert whole == again
        assert replay.is_complete
        assert made == len(whole) == replay.produced_bytes
        assert replay.spooled_bytes < 20_000, "the image's bytes are not copied"
    archive = zipfile.ZipFile(io.BytesIO(whole))
    assert archive.read("big.xz") == noise


def test_a_file_that_changes_between_attempts_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "big.xz"
    path.write_bytes(bytes(300_000))
    with Replay(zip_pieces(Selection(Tree(tmp_path), ["big.xz"]), warn=print), tmp_path) as replay:
        list(replay.chunks())
        path.write_bytes(bytes(300_001))
        with pytest.raises(SmidrError, match="changed while it was uploaded"):
            list(replay.chunks())


def test_a_stream_that_failed_never_looks_complete(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with Replay(
        zip_pieces(Selection(Tree(tmp_path), ["a", "gone"]), warn=print), tmp_path
    ) as replay:
        for _ in range(2):
            with pytest.raises(SmidrError, match="can't read an artifact"):
                list(replay.chunks())
        assert not replay.is_complete


_MEASURE = """
import sys
from pathlib import Path
from smidr_ci.forges.gitlab.archive import zip_pieces
from smidr_ci.forges.gitlab.replay import Replay
from smidr_ci.forges.gitlab.selection import Selection, Tree
def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
root = Path(sys.argv[1])
before = peak_kib()
with Replay(zip_pieces(Selection(Tree(root), ["image.wic.zst"]), warn=print), root) as replay:
    for _ in range(2):
        total = sum(len(chunk) for chunk in replay.chunks())
print(total, peak_kib() - before)
"""


def test_memory_does_not_grow_with_the_artifact(tmp_path: Path) -> None:
    with (tmp_path / "image.wic.zst").open("wb") as file:
        file.truncate(1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    total, grown_kib = map(int, done.stdout.split())
    assert total > 1 << 30
    assert grown_kib < 16 * 1024
