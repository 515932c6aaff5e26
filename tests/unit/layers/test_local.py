"""Local `path:` layers: a snapshot by content, never the directory itself."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from smidr_ci.config.models import LayerEntry
from smidr_ci.errors import LayerError
from tests.fakes.git_repository import GitRepository, core_layer, layer_conf
from tests.unit.layers.conftest import Site

OWN = {
    "meta-own/conf/layer.conf": layer_conf("own", depends="core", compat="scarthgap"),
    "meta-own/recipes-x/x/x_1.0.bb": 'SUMMARY = "x"\n',
    "meta-own/recipes-x/x/fix.patch": "--- a\n",
}


@pytest.fixture
def project(site: Site) -> GitRepository:
    repository = GitRepository(site.root / "project")
    repository.commit({**core_layer(), **OWN})
    return repository


def sync(site: Site, path: str = "project", **options: object) -> Path:
    return site.sync(LayerEntry(name="own", path=path), **options).trees[0].tree


def test_edit_during_a_build_does_not_reach_the_snapshot(
    site: Site, project: GitRepository
) -> None:
    tree = sync(site)
    project.write({"meta-own/recipes-x/x/x_1.0.bb": "broken"})
    assert (tree / "meta-own/recipes-x/x/x_1.0.bb").read_text(encoding="utf-8").startswith("SUMM")
    edited = sync(site)
    assert edited != tree
    assert (edited / "meta-own/recipes-x/x/x_1.0.bb").read_text(encoding="utf-8") == "broken"


@pytest.mark.usefixtures("project")
def test_unchanged_directory_gives_the_same_tree(site: Site) -> None:
    assert sync(site) == sync(site)


def test_fresh_checkout_of_the_same_content_is_the_same_tree(
    site: Site, project: GitRepository
) -> None:
    first = sync(site)
    shutil.copytree(project.path, site.root / "second")
    assert sync(site, "second") == first


def test_metadata_time_equals_that_of_a_git_layer_with_the_same_content(
    site: Site, project: GitRepository
) -> None:
    recipe = "meta-own/recipes-x/x/x_1.0.bb"
    local = sync(site) / recipe
    git = site.sync(LayerEntry(name="git", git=project.url, branch="main")).trees[0].tree / recipe
    assert local.stat().st_mtime_ns == git.stat().st_mtime_ns


def test_changed_patch_has_another_time(site: Site, project: GitRepository) -> None:
    patch = "meta-own/recipes-x/x/fix.patch"
    before = (sync(site) / patch).stat().st_mtime
    project.write({patch: "--- b\n"})
    assert (sync(site) / patch).stat().st_mtime != before


def test_edit_that_keeps_size_and_time_is_seen(site: Site, project: GitRepository) -> None:
    patch = project.path / "meta-own/recipes-x/x/fix.patch"
    old = time.time() - 3600
    os.utime(patch, (old, old))
    before = sync(site)
    patch.write_text("--- b\n", encoding="utf-8")
    os.utime(patch, (old, old))
    assert sync(site) != before


def test_ignored_files_are_left_out_and_new_ones_are_not(
    site: Site, project: GitRepository
) -> None:
    project.write({".gitignore": "tmp/\n", "tmp/huge": "x", "meta-own/new.inc": "A = '1'\n"})
    (project.path / "meta/classes/base.bbclass").unlink()
    tree = sync(site)
    assert not (tree / "tmp").exists()
    assert (tree / "meta-own/new.inc").is_file()
    assert not (tree / "meta/classes/base.bbclass").exists()


def test_ignored_directory_that_is_named_is_taken_whole(site: Site, project: GitRepository) -> None:
    project.write({".gitignore": "own/\n"})
    shutil.copytree(project.path, site.root / "project/own", ignore=shutil.ignore_patterns(".git"))
    assert (sync(site, "project/own") / "meta/conf/layer.conf").is_file()


def test_repositories_inside_are_part_of_it(site: Site, project: GitRepository) -> None:
    inner = GitRepository(project.path / "meta-inner")
    inner.commit({"conf/layer.conf": layer_conf("inner", compat="scarthgap")})
    inner.write({"conf/extra.inc": ""})
    tree = sync(site)
    assert (tree / "meta-inner/conf/layer.conf").is_file()
    assert (tree / "meta-inner/conf/extra.inc").is_file()
    assert not (tree / "meta-inner/.git").exists()


def test_directory_without_git_is_taken_whole_but_for_odd_files(site: Site) -> None:
    root = site.root / "plain"
    for name, content in {**core_layer(), **OWN}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    os.mkfifo(root / "meta/pipe")
    os.symlink("/etc", root / "meta/etc")
    (root / "oe-init-build-env").chmod(0o755)
    tree = sync(site, "plain")
    assert not (tree / "meta/pipe").exists()
    assert os.readlink(tree / "meta/etc") == "/etc"
    assert os.access(tree / "oe-init-build-env", os.X_OK)


def test_smidrs_own_directory_inside_the_project_is_left_out(
    site: Site, project: GitRepository
) -> None:
    site.root = project.path
    tree = site.sync(LayerEntry(name="own", path=".")).trees[0].tree
    assert not (tree / "home").exists()


def test_users_repository_is_not_written_to(site: Site, project: GitRepository) -> None:
    project.write({"meta-own/new.inc": ""})

    def state() -> dict[str, tuple[int, int]]:
        found = {}
        for path in project.path.rglob("*"):
            info = path.lstat()
            found[str(path)] = (info.st_mtime_ns, info.st_size)
        return found

    before = state()
    sync(site)
    assert state() == before


def test_settings_of_the_users_repository_run_nothing(
    site: Site, project: GitRepository, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n", encoding="utf-8")
    hook.chmod(0o755)
    project.git("config", "core.fsmonitor", str(hook))
    sync(site)
    assert not (tmp_path / "ran").exists()


def test_missing_directory_is_named(site: Site) -> None:
    with pytest.raises(LayerError, match="none does not exist") as caught:
        sync(site, "none")
    assert caught.value.where == "layer own"


def test_untrusted_project_cannot_name_a_directory_outside(
    site: Site, project: GitRepository
) -> None:
    os.symlink("/etc", project.path / "meta-etc")
    for path in ("/etc", "..", "meta-etc"):
        with pytest.raises(LayerError, match="leads out of the project"):
            sync(site, path, base_dir=project.path, confine_to=project.path)
