from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.errors import InternalError
from smidr_ci.workspaces.parse_cache import ParseCache, cache_key
from tests.fakes.clock import FakeClock
from tests.fakes.disk import fill, small_disk

FILES = ("cache/bb_codeparser.dat", f"tmp/cache/bb_cache.dat.{'a' * 64}")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return built(tmp_path / "top")


@pytest.fixture
def cache(tmp_path: Path) -> ParseCache:
    return ParseCache(tmp_path / "parse", clock=FakeClock())


def built(top: Path, text: bytes = b"pickle", time_ns: int = 1_700_000_000_123_456_789) -> Path:
    for name in FILES:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(text)
        os.utime(top / name, ns=(time_ns, time_ns))
    return top


def fresh(tmp_path: Path, name: str = "fresh") -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_a_fresh_directory_gets_what_was_saved_with_its_times(
    cache: ParseCache, top: Path, tmp_path: Path
) -> None:
    assert cache.save("key", top, [*FILES, "cache/missing.dat"])
    new = fresh(tmp_path)
    assert cache.seed("key", new) == 2
    for name in FILES:
        assert (new / name).read_bytes() == b"pickle"
        assert (new / name).stat().st_mtime_ns == 1_700_000_000_123_456_789
        (new / name).write_bytes(b"changed by BitBake")
    assert cache.seed("key", fresh(tmp_path, "third")) == 2
    assert (tmp_path / "third" / FILES[0]).read_bytes() == b"pickle"


def test_an_unknown_key_seeds_nothing(cache: ParseCache, tmp_path: Path) -> None:
    assert cache.seed("key", fresh(tmp_path)) == 0


def test_what_did_not_change_is_not_saved_again(cache: ParseCache, top: Path) -> None:
    assert cache.save("key", top, FILES)
    assert not cache.save("key", top, FILES)
    os.utime(top / FILES[0])
    assert cache.save("key", top, FILES)


def test_a_newer_save_replaces_the_older_as_a_whole(
    cache: ParseCache, top: Path, tmp_path: Path
) -> None:
    cache.save("key", top, FILES)
    (top / FILES[0]).write_bytes(b"newer")
    cache.save("key", top, FILES[:1])
    new = fresh(tmp_path)
    assert cache.seed("key", new) == 1
    assert (new / FILES[0]).read_bytes() == b"newer"


def test_old_generations_go_once_nobody_can_read_them(top: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    cache = ParseCache(tmp_path / "parse", clock=clock)
    clock.advance(20 * 365 * 86400)  # all that is written now is long ago by this clock
    for number in range(4):
        (top / FILES[0]).write_bytes(b"x" * number)
        assert cache.save("key", top, FILES)
    names = [name for name in os.listdir(tmp_path / "parse" / "key") if "generation" in name]
    assert len(names) == 1
    assert cache.seed("key", fresh(tmp_path)) == 2


def test_only_the_newest_variants_and_the_last_used_keys_stay(tmp_path: Path) -> None:
    cache = ParseCache(tmp_path / "parse", keys=2, variants=2)
    top = tmp_path / "top"
    names = [f"tmp/cache/bb_cache.dat.{letter * 32}" for letter in "abc"]
    for number, name in enumerate(names):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
        os.utime(top / name, (number, number))
    for number, key in enumerate(("one", "two", "one", "three")):
        cache.save(key, top, names)
        cache.seed(key, fresh(tmp_path, f"new{number}"))
        os.utime(tmp_path / "parse" / key, (1000 + number, 1000 + number))
    assert sorted(os.listdir(tmp_path / "parse")) == ["one", "three"]
    assert sorted(os.listdir(tmp_path / "new0/tmp/cache")) == [
        Path(name).name for name in names[1:]
    ]


def test_a_cache_that_is_too_big_is_saved_in_part(tmp_path: Path, top: Path) -> None:
    cache = ParseCache(tmp_path / "parse", size_bytes=8)
    assert cache.save("key", top, FILES)
    assert cache.seed("key", fresh(tmp_path)) == 1


def test_links_and_pipes_are_never_saved(cache: ParseCache, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "bb_cache.dat").write_bytes(b"password")
    top = fresh(tmp_path, "top")
    (top / "link").symlink_to(secret / "bb_cache.dat")
    (top / "folder").symlink_to(secret)
    os.mkfifo(top / "pipe")
    assert not cache.save("key", top, ["link", "folder/bb_cache.dat", "pipe", "folder"])


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_path_outside_of_the_build_directory_is_our_own_fault(
    cache: ParseCache, top: Path, name: str
) -> None:
    with pytest.raises(InternalError):
        cache.save("key", top, [name])


@pytest.mark.parametrize("damage", ["list", "file", "gone", "generation"])
def test_a_damaged_cache_seeds_nothing_and_is_saved_anew(
    cache: ParseCache, top: Path, tmp_path: Path, damage: str
) -> None:
    cache.save("key", top, FILES)
    current = (tmp_path / "parse" / "key" / "current").resolve()
    match damage:
        case "list":
            (current / "files.json").write_bytes(b"\xff{")
        case "file":
            (current / "files" / FILES[1]).write_bytes(b"")
        case "gone":
            (current / "files" / FILES[1]).unlink()
        case _:
            current.rename(current.with_name("elsewhere"))
    new = fresh(tmp_path)
    assert cache.seed("key", new) == 0
    assert [path for path in new.rglob("*") if path.is_file()] == []
    built(top, b"new pickle", 1)
    assert cache.save("key", top, FILES)
    assert cache.seed("key", new) == 2


def test_a_full_disk_costs_the_cache_and_nothing_else(top: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        cache = ParseCache(disk / "parse")
        assert cache.save("key", top, FILES)
        built(top, b"x" * 100_000, 5)
        fill(disk)
        assert not cache.save("key", top, FILES)
        assert cache.seed("key", fresh(tmp_path)) == 2
        assert (tmp_path / "fresh" / FILES[0]).read_bytes() == b"pickle"
        assert len(os.listdir(disk / "parse" / "key")) == 3


def test_seeded_files_belong_to_the_builder_when_we_are_root(top: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    cache = ParseCache(tmp_path / "parse", owner=(1234, 2345))
    cache.save("key", top, FILES)
    new = fresh(tmp_path)
    cache.seed("key", new)
    assert {path.stat().st_uid for path in new.rglob("*")} == {1234}


def test_every_part_of_a_key_counts() -> None:
    base = {"bitbake": "b", "layers": ["l", "m"], "machine": "m", "distro": "d"}
    keys = [
        cache_key(**base),  # type: ignore[arg-type]  # one dict for all parameters
        cache_key(**(base | {"layers": ["m", "l"]})),  # type: ignore[arg-type]  # the same
        cache_key(**(base | {"machine": "d", "distro": "m"})),  # type: ignore[arg-type]  # the same
        cache_key(**base, multiconfig="x"),  # type: ignore[arg-type]  # the same
        cache_key(**base, trust="untrusted"),  # type: ignore[arg-type]  # the same
    ]
    assert len(set(keys)) == len(keys)
