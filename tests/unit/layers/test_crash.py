"""Several processes at once, and processes that are killed in the middle."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from smidr_ci.config.models import LayerEntry
from tests.fakes.git_repository import GitRepository
from tests.fakes.git_server import GitServer
from tests.unit.layers.conftest import Site

ROOT = Path(__file__).parents[3]
SYNC = """
import sys
from pathlib import Path
from smidr_ci.cancel import CancelToken
from smidr_ci.config.models import LayerEntry
from smidr_ci.layers.store import LayerStore
home, url = Path(sys.argv[1]), sys.argv[2]
store = LayerStore(home / "mirrors", home / "trees", home / "locks")
entry = LayerEntry(name="poky", git=url, branch="main")
def say(line):
    print(line, flush=True)
layers = store.sync([entry], base_dir=home, report=say, cancel=CancelToken())
print("done", layers.trees[0].tree, flush=True)
"""


def start(site: Site, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SYNC, str(site.root / "home"), url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.usefixtures("poky")
def test_four_processes_that_want_the_same_fetch_it_once(site: Site, server: GitServer) -> None:
    running = [start(site, server.url("poky/.git")) for _ in range(4)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert len({text.splitlines()[-1] for text in said}) == 1
    assert sum("fetching" in text for text in said) == 1
    assert len(site.store.list_trees()) == 1


@pytest.mark.usefixtures("poky")
@pytest.mark.parametrize("with_git", [False, True])
def test_killed_fetch_leaves_no_lock_and_no_half_mirror(
    site: Site, server: GitServer, *, with_git: bool
) -> None:
    server.hold_packs.clear()
    process = start(site, server.url("poky/.git"))
    assert server.pack_started.wait(60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert children
    for child in children if with_git else []:
        child.kill()
    # An orphaned git goes on to its end, and the lock is its own until then.
    server.hold_packs.set()
    entry = LayerEntry(name="poky", git=server.url("poky/.git"), branch="main")
    assert site.sync(entry).trees[0].layers


def test_fetch_killed_with_its_git_is_swept_away(
    site: Site, poky: GitRepository, server: GitServer
) -> None:
    entry = LayerEntry(name="poky", git=server.url("poky/.git"), branch="main")
    site.sync(entry)
    mirror = site.mirror()
    poky.commit({"meta/x.inc": "A = '1'\n"})
    # What git leaves behind when it is killed while it writes.
    (mirror / "shallow.lock").write_text("", encoding="utf-8")
    (mirror / "refs/smidr/commits/x.lock").write_text("", encoding="utf-8")
    (mirror / "objects/pack").mkdir(exist_ok=True)
    (mirror / "objects/pack/tmp_pack_abc").write_bytes(b"PACK")
    assert (site.sync(entry).trees[0].tree / "meta/x.inc").is_file()
    assert not list(mirror.glob("objects/pack/tmp_*"))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; the kernel tells when the process has ended instead."""
    ended = os.pidfd_open(process.pid)
    try:
        while not condition() and not select.select([ended], [], [], 0.001)[0]:
            pass
    finally:
        os.close(ended)


@pytest.mark.parametrize("files", [50, 400])
def test_killed_checkout_is_made_anew(site: Site, poky: GitRepository, files: int) -> None:
    poky.commit({f"meta/files/{n}.inc": f"A = '{n}'\n" * 50 for n in range(1000)})
    process = start(site, poky.url)
    trees = site.root / "home/trees"
    wait_for(lambda: len(list(trees.glob("*/.new-*/tree/meta/files/*"))) > files, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not site.store.list_trees() or process.returncode == 0
    tree = site.sync(LayerEntry(name="poky", git=poky.url, branch="main")).trees[0].tree
    assert len(list((tree / "meta/files").iterdir())) == 1000
    assert not list(trees.glob("*/.new-*"))
