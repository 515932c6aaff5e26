"""Collecting garbage is what one does on a full disk, so it must work there."""

from __future__ import annotations

from pathlib import Path

from smidr_ci.builds.gc import GcOptions, ready_caches, run_gc
from smidr_ci.caches.lru import Caps
from smidr_ci.cancel import CancelToken
from tests.fakes.cache_home import CacheHome
from tests.fakes.disk import make_full, small_disk


def test_garbage_goes_when_not_even_an_empty_file_can_be_made(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        home = CacheHome(disk / "home")
        home.record(1, days=3)  # makes the database
        for number in range(1, 21):
            home.sstate_object(number, days=number + 50)
            home.download(f"a{number}.tar.gz", days=number + 50)
        ready_caches(home.host)  # as each build does
        make_full(disk, names=True)
        caps = {"sstate": Caps(max_size=0), "downloads": Caps(max_size=0)}
        options = GcOptions(caches=frozenset(caps), caps=caps)
        done = run_gc(home.host, options, CancelToken(), lambda _: None)
        home.host.store.close()
        assert {item.cache: item.problem for item in done} == {"sstate": "", "downloads": ""}
        assert list(home.sstate.rglob("*.tar.zst")) == []
        assert list(home.downloads.glob("*.tar.gz")) == []
