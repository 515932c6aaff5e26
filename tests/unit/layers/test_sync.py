"""From entries to trees: what a build gets, and that it gets it again without git."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.config.models import LayerEntry
from smidr_ci.errors import CancelledError, LayerError
from tests.fakes.git_repository import GitRepository, core_layer, layer_conf
from tests.unit.layers.conftest import Site

Make = Callable[[str], GitRepository]


def test_combined_repository_gives_bitbake_core_and_init_script(
    site: Site, poky: GitRepository
) -> None:
    layers = site.sync(LayerEntry(name="poky", git=poky.url, branch="main"))
    assert layers.bblayers == (
        PurePosixPath("/smidr/layers/poky/meta"),
        PurePosixPath("/smidr/layers/poky/meta-poky"),
    )
    assert layers.bitbake == PurePosixPath("/smidr/layers/poky/bitbake")
    assert layers.bitbake_version == (2, 8)
    assert layers.init_script == PurePosixPath("/smidr/layers/poky/oe-init-build-env")
    assert layers.has_oe_core
    (tree,) = layers.trees
    assert (tree.origin, tree.ref) == (poky.url, "main")
    assert tree.commit == poky.git("rev-parse", "HEAD")


def test_split_repositories_give_the_same(site: Site, make_repository: Make) -> None:
    files = core_layer()
    bitbake, core = make_repository("bitbake"), make_repository("core")
    bitbake.commit(
        {k.removeprefix("bitbake/"): v for k, v in files.items() if k.startswith("bitbake/")}
    )
    core.commit({k: v for k, v in files.items() if not k.startswith("bitbake/")})
    layers = site.sync(
        LayerEntry(name="core", git=core.url, branch="main", layers=("meta",)),
        LayerEntry(name="bitbake", git=bitbake.url, branch="main", layers=()),
    )
    assert layers.bitbake == PurePosixPath("/smidr/layers/bitbake")
    assert layers.bblayers == (PurePosixPath("/smidr/layers/core/meta"),)
    assert layers.init_script == PurePosixPath("/smidr/layers/core/oe-init-build-env")


def test_bare_bitbake_project_needs_no_core(site: Site, make_repository: Make) -> None:
    own = make_repository("own")
    own.commit(
        {
            "conf/layer.conf": layer_conf("hello"),
            "bitbake/bin/bitbake": "",
            "bitbake/lib/bb/__init__.py": "__version__ = '2.18.0'\n",
        }
    )
    layers = site.sync(LayerEntry(name="own", git=own.url))
    assert layers.bblayers == (PurePosixPath("/smidr/layers/own"),)
    assert layers.bitbake_version == (2, 18)
    assert layers.init_script is None
    assert not layers.has_oe_core


def test_locked_sync_of_present_trees_runs_no_git_at_all(
    site: Site, poky: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    first = site.sync(entry)
    lock = site.lock(entry)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert site.sync(entry, lock=lock, locked=True) == first


def test_pinned_commit_that_is_present_needs_no_repository(site: Site, poky: GitRepository) -> None:
    commit = poky.git("rev-parse", "HEAD")
    entry = LayerEntry(name="poky", git=poky.url, commit=commit, branch="main")
    first = site.sync(entry)
    poky.path.rename(poky.path.with_name("gone"))
    assert site.sync(entry) == first


def test_new_commit_makes_a_new_tree_and_leaves_the_old_one_alone(
    site: Site, poky: GitRepository
) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    old = site.sync(entry).trees[0].tree
    poky.commit({"meta/conf/new.inc": "A = '1'\n"})
    new = site.sync(entry).trees[0].tree
    assert new != old
    assert (new / "meta/conf/new.inc").is_file()
    assert not (old / "meta/conf/new.inc").exists()


def test_lock_wins_over_a_branch_that_moved_on(site: Site, poky: GitRepository) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    lock = site.lock(entry)
    pinned = poky.git("rev-parse", "HEAD")
    poky.commit({"meta/x.inc": ""})
    assert site.sync(entry, lock=lock).trees[0].commit == pinned
    assert site.sync(entry).trees[0].commit != pinned


def test_update_of_the_lock_keeps_pins_only_when_told_to(site: Site, poky: GitRepository) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    old = site.lock(entry)
    poky.commit({"meta/x.inc": ""})
    assert site.lock(entry, old=old) == old
    assert site.lock(entry) != old


def test_locked_refuses_entries_without_a_pin_and_names_them_all(
    site: Site, poky: GitRepository
) -> None:
    entries = [
        LayerEntry(name="poky", git=poky.url, branch="main"),
        LayerEntry(name="other", git=poky.url, branch="other"),
    ]
    with pytest.raises(LayerError) as caught:
        site.sync(*entries, locked=True)
    assert "poky" in str(caught.value)
    assert "other" in str(caught.value)
    assert "smidr lock" in caught.value.hint


def test_locked_refuses_a_pin_for_another_branch(site: Site, poky: GitRepository) -> None:
    lock = site.lock(LayerEntry(name="poky", git=poky.url, branch="main"))
    poky.git("branch", "other")
    with pytest.raises(LayerError, match=r"is pinned in smidr.lock for .* branch:main"):
        site.sync(LayerEntry(name="poky", git=poky.url, branch="other"), lock=lock, locked=True)


def test_annotated_tag_leads_to_its_commit(site: Site, poky: GitRepository) -> None:
    poky.git("tag", "--annotate", "--message=release", "v1")
    commit = poky.git("rev-parse", "HEAD")
    poky.commit({"meta/x.inc": ""})
    assert site.sync(LayerEntry(name="poky", git=poky.url, tag="v1")).trees[0].commit == commit


def test_entry_without_ref_follows_the_branch_of_the_series(
    site: Site, poky: GitRepository
) -> None:
    poky.git("checkout", "--quiet", "-b", "scarthgap")
    commit = poky.commit({"meta/x.inc": ""})
    poky.git("checkout", "--quiet", "main")
    entry = LayerEntry(name="poky", git=poky.url)
    assert site.sync(entry, series="scarthgap").trees[0].commit == commit
    assert site.sync(entry).trees[0].commit != commit


def test_missing_branch_is_named_with_its_neighbours(site: Site, poky: GitRepository) -> None:
    poky.git("branch", "scarthgap")
    with pytest.raises(LayerError) as caught:
        site.sync(LayerEntry(name="poky", git=poky.url, branch="scarthgab"))
    assert "branch scarthgab does not exist" in caught.value.message
    assert "scarthgap" in caught.value.hint
    assert caught.value.where == "layer poky"


def test_branch_that_is_a_tag_is_told(site: Site, poky: GitRepository) -> None:
    poky.git("tag", "v1")
    with pytest.raises(LayerError) as caught:
        site.sync(LayerEntry(name="poky", git=poky.url, branch="v1"))
    assert "tag: v1" in caught.value.hint


def test_commit_on_the_branch_is_accepted_and_remembered(site: Site, poky: GitRepository) -> None:
    old = poky.git("rev-parse", "HEAD")
    poky.commit({"meta/x.inc": ""})
    entry = LayerEntry(name="poky", git=poky.url, commit=old, branch="main")
    assert site.sync(entry).trees[0].commit == old
    poky.path.rename(poky.path.with_name("gone"))
    assert site.sync(entry).trees[0].commit == old


def test_commit_of_another_branch_is_refused_even_when_its_tree_is_present(
    site: Site, poky: GitRepository
) -> None:
    poky.git("checkout", "--quiet", "-b", "side")
    aside = poky.commit({"meta/x.inc": ""})
    poky.git("checkout", "--quiet", "main")
    poky.commit({"meta/y.inc": ""})
    site.sync(LayerEntry(name="poky", git=poky.url, commit=aside))
    with pytest.raises(LayerError, match=f"{aside} is not on branch main"):
        site.sync(LayerEntry(name="poky", git=poky.url, commit=aside, branch="main"))


def test_commit_that_nobody_has_is_an_error(site: Site, poky: GitRepository) -> None:
    with pytest.raises(LayerError, match="does not serve this commit") as caught:
        site.sync(LayerEntry(name="poky", git=poky.url, commit="0" * 39 + "1"))
    assert caught.value.where == "layer poky"


def test_id_of_something_else_than_a_commit_is_an_error(site: Site, poky: GitRepository) -> None:
    blob = poky.git("rev-parse", "HEAD:oe-init-build-env")
    with pytest.raises(LayerError, match=f"{blob}: bad file"):
        site.sync(LayerEntry(name="poky", git=poky.url, commit=blob))


def test_all_layers_in_trouble_are_named_at_once(site: Site, poky: GitRepository) -> None:
    with pytest.raises(LayerError) as caught:
        site.sync(
            LayerEntry(name="poky", git=poky.url, branch="main"),
            LayerEntry(name="one", git=f"file://{site.root}/none", branch="main"),
            LayerEntry(name="two", git=poky.url, branch="none"),
        )
    text = str(caught.value)
    assert "layer one" in text
    assert "layer two" in text
    assert "layer poky" not in text


def test_selected_folder_that_is_no_layer_is_named_with_those_found(
    site: Site, poky: GitRepository
) -> None:
    with pytest.raises(LayerError) as caught:
        site.sync(LayerEntry(name="poky", git=poky.url, branch="main", layers=("meta-none",)))
    assert "meta-none" in caught.value.message
    assert "meta-poky" in caught.value.hint


def test_test_layers_can_be_selected_by_name(site: Site, poky: GitRepository) -> None:
    layers = site.sync(
        LayerEntry(name="poky", git=poky.url, branch="main", layers=("meta", "meta-selftest"))
    )
    assert [layer.collection for layer in layers.trees[0].layers] == ["core", "selftest"]


def test_submodules_are_named_and_stay_empty(
    site: Site, poky: GitRepository, make_repository: Make
) -> None:
    inner = make_repository("inner")
    inner.commit({"conf/layer.conf": layer_conf("inner")})
    poky.git("submodule", "add", "--quiet", inner.url, "meta-inner")
    poky.commit()
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    layers = site.sync(entry)
    assert list((layers.trees[0].tree / "meta-inner").iterdir()) == []
    assert any("submodules are not fetched" in line for line in site.said)
    with pytest.raises(LayerError) as caught:
        site.sync(entry.model_copy(update={"layers": ("meta", "meta-inner")}))
    assert "entries of their own" in caught.value.hint


def test_scheme_that_the_operator_forbids_is_refused(site: Site, poky: GitRepository) -> None:
    site.options["schemes"] = ("https",)
    with pytest.raises(LayerError, match="file URLs are not allowed"):
        site.sync(LayerEntry(name="poky", git=poky.url, branch="main"))


def test_two_entries_of_one_name_are_refused(site: Site, poky: GitRepository) -> None:
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    with pytest.raises(LayerError, match="two entries of `layers` are called poky"):
        site.sync(entry, entry)


def test_cancelled_sync_says_so_and_leaves_nothing_half_done(
    site: Site, poky: GitRepository
) -> None:
    site.cancel.cancel("enough")
    entry = LayerEntry(name="poky", git=poky.url, branch="main")
    with pytest.raises(CancelledError):
        site.sync(entry)
    site.cancel = CancelToken()
    assert site.sync(entry).trees[0].layers


def test_repository_of_another_user_can_be_used(site: Site, poky: GitRepository) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    for folder, names, files in os.walk(poky.path):
        for name in [".", *names, *files]:
            os.chown(Path(folder, name), 12345, 12345, follow_symlinks=False)
    assert site.sync(LayerEntry(name="poky", git=poky.url, branch="main")).trees[0].layers
