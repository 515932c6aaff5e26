"""What lies in a tree: exactly what git has, at times that follow from the content."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smidr_ci.config.models import LayerEntry
from smidr_ci.errors import FailureKind, HostError, LayerError
from tests.fakes.git_repository import GitRepository, core_layer
from tests.unit.layers.conftest import Site

RECIPE = "meta/recipes-core/base/base_1.0.bb"
Y2001, Y2020 = 978_307_200, 1_577_836_800


def tree_of(site: Site, repository: GitRepository, branch: str = "main") -> Path:
    return site.sync(LayerEntry(name="poky", git=repository.url, branch=branch)).trees[0].tree


def mtime(path: Path) -> float:
    return path.lstat().st_mtime_ns / 1e9


def test_metadata_has_the_same_time_in_every_tree_with_the_same_content(
    site: Site, poky: GitRepository, tmp_path: Path
) -> None:
    first = tree_of(site, poky)
    poky.commit({"README": "more\n"})
    second = tree_of(site, poky)
    elsewhere = GitRepository(tmp_path / "elsewhere")
    elsewhere.commit(core_layer(), tick=12345)
    third = tree_of(Site(tmp_path / "other-host"), elsewhere)
    times = {mtime(tree / RECIPE) for tree in (first, second, third)}
    assert len(times) == 1
    (time,) = times
    assert time.is_integer()
    assert Y2001 <= time < Y2020


def test_changed_metadata_has_another_time(site: Site, poky: GitRepository) -> None:
    before = mtime(tree_of(site, poky) / RECIPE)
    poky.commit({RECIPE: 'SUMMARY = "new"\n'})
    assert mtime(tree_of(site, poky) / RECIPE) != before


def test_other_files_have_the_time_of_the_commit(site: Site, poky: GitRepository) -> None:
    poky.commit({"meta/files/fix.patch": "--- a\n"})
    tree = tree_of(site, poky)
    assert mtime(tree / "meta/files/fix.patch") == poky.time
    assert mtime(tree / "oe-init-build-env") == poky.time


def test_commits_of_one_second_never_share_the_time_of_changed_files(
    site: Site, poky: GitRepository
) -> None:
    # BitBake keeps a patch's checksum while the patch's time is the same.
    poky.commit({"meta/files/fix.patch": "one\n"})
    one = mtime(tree_of(site, poky) / "meta/files/fix.patch")
    poky.commit({"meta/files/fix.patch": "two\n"}, tick=0)
    two = mtime(tree_of(site, poky) / "meta/files/fix.patch")
    assert one != two


def test_files_have_the_modes_of_a_checkout_and_keep_their_executable_bit(
    site: Site, poky: GitRepository
) -> None:
    (poky.path / "oe-init-build-env").chmod(0o755)
    poky.commit()
    tree = tree_of(site, poky)
    assert stat.S_IMODE((tree / "oe-init-build-env").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / RECIPE).stat().st_mode) == 0o644
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert not list(tree.rglob(".git"))
    assert not (tree / ".smidr-owned").exists()
    assert (tree.parent / ".smidr-owned").is_file()


def test_attributes_of_the_repository_neither_run_nor_change_anything(
    site: Site, poky: GitRepository, tmp_path: Path
) -> None:
    files = {
        "raw.txt": b"$Format:%H$ $Id$\nline\n",
        "crlf.bb": b'A = "1"\n',
        "secret.txt": b"kept\n",
        "big.bin": b"version https://git-lfs.github.com/spec/v1\n",
    }
    attributes = (
        "raw.txt export-subst ident\ncrlf.bb text eol=crlf\n"
        "secret.txt export-ignore\nbig.bin filter=lfs\n*.bin filter=evil\n"
    )
    poky.write(files)
    poky.git("add", "--all")
    poky.commit({".gitattributes": attributes})
    poky.git("config", "filter.evil.smudge", f"touch {tmp_path}/ran; cat")
    tree = tree_of(site, poky)
    for name, content in files.items():
        assert (tree / name).read_bytes() == content
    assert not (tmp_path / "ran").exists()


def test_links_stay_as_they_are_and_are_not_followed_by_discovery(
    site: Site, poky: GitRepository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "conf").mkdir(parents=True)
    (outside / "conf/layer.conf").write_text('BBFILE_COLLECTIONS += "stolen"\n', encoding="utf-8")
    os.symlink("/etc/passwd", poky.path / "passwd")
    os.symlink(outside, poky.path / "meta-stolen")
    (poky.path / "meta-half").mkdir()
    os.symlink(outside / "conf", poky.path / "meta-half/conf")
    os.symlink("meta", poky.path / "meta-alias")
    poky.commit()
    layers = site.sync(LayerEntry(name="poky", git=poky.url, branch="main"))
    tree = layers.trees[0].tree
    assert os.readlink(tree / "passwd") == "/etc/passwd"
    assert [layer.path for layer in layers.trees[0].layers] == ["meta", "meta-poky"]
    with pytest.raises(LayerError):
        site.sync(LayerEntry(name="poky", git=poky.url, branch="main", layers=("meta-stolen",)))


@pytest.mark.parametrize("name", [".git", "..", ".GIT"])
def test_dangerous_names_in_a_git_tree_are_refused(
    site: Site, poky: GitRepository, name: str
) -> None:
    blob = poky.git("hash-object", "-w", "--stdin", stdin=b"evil")
    raw = b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob)
    inner = poky.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=raw)
    outer = poky.git("mktree", "--missing", stdin=f"040000 tree {inner}\tmeta\n".encode())
    commit = poky.git("commit-tree", outer, "-m", "evil")
    poky.git("update-ref", "refs/heads/evil", commit)
    with pytest.raises(LayerError, match="dangerous name") as caught:
        tree_of(site, poky, "evil")
    assert caught.value.where == "layer poky"
    leftovers = [path.name for path in (site.root / "home/trees").glob("*/*")]
    assert leftovers == []


def test_damaged_mirror_is_made_anew(site: Site, poky: GitRepository) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    tree = site.sync(entry).trees[0].tree
    assert site.store.remove_tree(site.store.list_trees()[0])
    assert not tree.exists()
    objects = site.mirror() / "objects"
    for path in sorted(objects.rglob("*")):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:30])
    assert site.sync(entry).trees[0].tree == tree
    assert (tree / RECIPE).read_text(encoding="utf-8") == 'SUMMARY = "base"\n'
    assert any("damaged" in line for line in site.said)


def test_mirror_without_its_parts_is_made_anew(site: Site, poky: GitRepository) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    site.sync(entry)
    shutil.rmtree(site.mirror() / "objects")
    poky.commit({"meta/x.inc": ""})
    assert (site.sync(entry).trees[0].tree / "meta/x.inc").is_file()


def test_leased_tree_is_not_removed(site: Site, poky: GitRepository) -> None:
    layers = site.sync(LayerEntry(name="poky", git=poky.url, branch="main"))
    (stored,) = site.store.list_trees()
    with site.store.lease(layers):
        assert not site.store.remove_tree(stored)
        assert layers.trees[0].tree.is_dir()
    assert site.store.remove_tree(stored)
    assert site.store.list_trees() == []
    with pytest.raises(LayerError, match="removed in the meantime"), site.store.lease(layers):
        pytest.fail("leased a tree that is gone")


def test_tree_that_a_power_cut_damaged_is_made_anew(site: Site, poky: GitRepository) -> None:
    tree = tree_of(site, poky)
    notes = tree.parent / "notes.json"
    earlier = json.loads(notes.read_bytes()) | {"boot": "an earlier boot"}
    notes.write_text(json.dumps(earlier), encoding="utf-8")
    assert site.store.list_trees()
    assert json.loads(notes.read_bytes())["boot"] != "an earlier boot"
    (tree / RECIPE).chmod(0o600)
    (tree / RECIPE).write_text("", encoding="utf-8")
    notes.write_text(json.dumps(earlier), encoding="utf-8")
    assert not site.store.list_trees()
    assert (tree_of(site, poky) / RECIPE).read_text(encoding="utf-8") == 'SUMMARY = "base"\n'


def test_full_disk_is_named_and_leaves_nothing(site: Site, poky: GitRepository) -> None:
    poky.commit({"meta/files/large": os.urandom(3 << 20)})
    home = site.root / "home"
    home.mkdir()
    with small_disk(home):
        with pytest.raises(LayerError) as caught:
            tree_of(site, poky)
        assert caught.value.kind is FailureKind.DISK
        assert "Make room" in caught.value.hint
        assert not list(home.glob("trees/*/*"))


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root with CAP_SYS_ADMIN can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_store_that_cannot_be_made_is_a_fault_of_the_host(site: Site, poky: GitRepository) -> None:
    (site.root / "home").write_text("in the way", encoding="utf-8")
    with pytest.raises(HostError, match="can't write to the layer store"):
        tree_of(site, poky)


def test_trees_share_the_files_that_bitbake_parses_and_no_others(
    site: Site, poky: GitRepository
) -> None:
    poky.commit({"README": "one\n", "meta/changing_1.0.bb": "A = '1'\n"})
    first = tree_of(site, poky)
    poky.commit({"meta/changing_1.0.bb": "A = '2'\n"})
    second = tree_of(site, poky)

    def inodes(path: str) -> int:
        return len({(tree / path).stat().st_ino for tree in (first, second)})

    assert inodes(RECIPE) == 1
    assert inodes("meta/changing_1.0.bb") == 2
    assert inodes("README") == 2
    assert (second / "meta/changing_1.0.bb").read_text() == "A = '2'\n"


def test_a_truncated_shared_file_is_not_used_again(site: Site, poky: GitRepository) -> None:
    first = tree_of(site, poky)
    whole = (first / RECIPE).read_bytes()
    (shared,) = [
        path
        for path in site.store.trees.joinpath(".metadata").rglob("*")
        if path.is_file() and path.stat().st_ino == (first / RECIPE).stat().st_ino
    ]
    shared.chmod(0o644)
    shared.write_bytes(b"")
    poky.commit({"README": "more\n"})
    assert (tree_of(site, poky) / RECIPE).read_bytes() == whole


def test_removing_the_last_tree_removes_what_trees_shared(site: Site, poky: GitRepository) -> None:
    tree_of(site, poky)
    (stored,) = site.store.list_trees()
    assert site.store.remove_tree(stored)
    assert not [
        path for path in site.store.trees.joinpath(".metadata").rglob("*") if path.is_file()
    ]
