"""Why tasks ran again: which signatures are compared, and what is made of BitBake's words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from smidr_ci.bitbake.inside.differences import reason_of, task_of
from smidr_ci.bitbake.inside.rebuilt import explain
from smidr_ci.bitbake.inside.signatures import Signatures, births

_BEGAN = 1_800_000_000.0
_EARLIER = _BEGAN - 1000


@dataclass
class Site:
    """A build directory and a shared state directory; files tell what they depend on."""

    root: Path
    own: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """What BitBake says of two hashes beside other tasks."""
    below: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Hash -> name of each task that it depends on, and that task's hash."""
    began: float = _BEGAN
    compared: list[tuple[str, str]] = field(default_factory=list)

    def kept(self, recipe: str, task: str, digest: str, used: float, *, packed: bool) -> None:
        """A signature in shared state, with an object beside it or alone."""
        folder = self.root / "sstate" / digest[:2] / digest[2:4]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"sstate:{recipe}:core2:1.0:r0:core2:11:{digest}_{task[3:]}.tar.zst"
        for path in (folder / f"{name}.siginfo", folder / name)[: 1 + packed]:
            path.write_text(digest)
            os.utime(path, (used, used))

    def ran(self, recipe: str, task: str, digest: str, at: float = 1, *, packed: bool) -> None:
        """A task of this build, which also leaves its signature in shared state."""
        folder = self.root / "build" / "tmp" / "stamps" / "core2" / recipe
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"1.0.{task}.sigdata.{digest}"
        path.write_text(digest)
        os.utime(path, (_BEGAN + at, _BEGAN + at))
        self.kept(recipe, task, digest, _BEGAN + at, packed=packed)

    def compare(
        self, old: str, new: str, recursecb: Callable[[str, str, str], object]
    ) -> list[str]:
        """Stands for `bb.siggen.compare_sigfiles`."""
        before, now = Path(old).read_text(), Path(new).read_text()
        self.compared.append((before, now))
        for name, digest in self.below.get(now, {}).items():
            if (was := self.below.get(before, {}).get(name, digest)) != digest:
                recursecb(name, was, digest)
        return ["basehash changed from a to b", *self.own.get((before, now), [])]

    def explain(self, *, is_late: bool = False) -> list[dict[str, object]]:
        build, sstate = (str(self.root / name) for name in ("build", "sstate"))
        return explain(Signatures(build, sstate, self.began, lambda: is_late), self.compare)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def digest(letter: str) -> str:
    return letter * 64


def _chain(site: Site) -> None:
    """An image that needs a program that needs a library, whose variable changed."""
    for number, (old, new, recipe, task) in enumerate(
        [("1", "a", "library", "do_compile"), ("2", "b", "program", "do_package"),
         ("3", "c", "image", "do_image")],
    ):  # fmt: skip
        site.kept(recipe, task, digest(old), _EARLIER, packed=True)
        site.ran(recipe, task, digest(new), number, packed=True)
    for letters, name in {"2b": "library:do_compile", "3c": "/x/program_1.0.bb:do_package"}.items():
        parts = "1a" if letters == "2b" else "2b"
        for letter, part in zip(letters, parts, strict=True):
            site.below[digest(letter)] = {name: digest(part)}
    site.own[digest("1"), digest("a")] = ["Variable CFLAGS value changed from '-O1' to '-O2'"]


def test_the_root_is_named_and_not_what_depends_on_it(site: Site) -> None:
    _chain(site)
    (reason,) = site.explain()
    assert reason == {
        "recipe": "library",
        "task": "do_compile",
        "kind": "variable",
        "name": "CFLAGS",
        "old": "-O1",
        "new": "-O2",
        "others": 0,
        "recipes": ["library"],
        "recipe_count": 1,
    }


def test_each_pair_is_compared_once(site: Site) -> None:
    _chain(site)
    site.explain()
    assert len(site.compared) == len(set(site.compared)) == 3


def test_a_chain_is_followed_through_a_task_that_did_not_run(site: Site) -> None:
    site.kept("library", "do_compile", digest("1"), _EARLIER, packed=False)
    site.kept("library", "do_compile", digest("a"), _EARLIER, packed=False)
    site.kept("image", "do_image", digest("3"), _EARLIER, packed=True)
    site.ran("image", "do_image", digest("c"), packed=True)
    site.below = {
        digest("3"): {"library:do_compile": digest("1")},
        digest("c"): {"library:do_compile": digest("a")},
    }
    site.own[digest("1"), digest("a")] = ["Checksum for file a.c changed from 0 to 1"]
    (reason,) = site.explain()
    assert (reason["recipe"], reason["kind"], reason["name"]) == ("library", "file", "a.c")


def test_one_reason_for_many_recipes_is_told_once(site: Site) -> None:
    for number in range(8):
        name, old, new = f"recipe{number}", f"{number}1" * 32, f"{number}a" * 32
        site.kept(name, "do_compile", old, _EARLIER, packed=True)
        site.ran(name, "do_compile", new, number, packed=True)
        site.own[old, new] = ["Variable DISTRO value changed from 'a' to 'b'"]
    (reason,) = site.explain()
    assert reason["recipe_count"] == 8
    assert reason["recipes"] == [f"recipe{number}" for number in range(5)]


def test_the_version_used_last_is_what_a_task_is_compared_with(site: Site) -> None:
    site.kept("a", "do_compile", digest("1"), _EARLIER, packed=True)
    site.kept("a", "do_compile", digest("2"), _EARLIER - 500, packed=True)
    site.ran("a", "do_compile", digest("c"), packed=True)
    site.own[digest("1"), digest("c")] = ["Checksum for file a.c changed from 0 to 1"]
    assert len(site.explain()) == 1
    assert site.compared == [(digest("1"), digest("c"))]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_task_without_an_object_counts_when_its_signature_is_of_this_build(
    site: Site, is_new: bool
) -> None:
    site.kept("a", "do_fetch", digest("1"), _EARLIER - 1e9, packed=False)
    site.ran("a", "do_fetch", digest("c"), packed=False)
    site.own[digest("1"), digest("c")] = ["Checksum for file a.c changed from 0 to 1"]
    site.began = site.root.stat().st_ctime - 5 if is_new else _BEGAN
    if is_new and not births([str(site.root)])[0]:
        pytest.skip("the file system does not say when a file was made")
    assert len(site.explain()) == is_new


def test_another_architecture_of_a_recipe_is_no_predecessor(site: Site) -> None:
    folder = site.root / "sstate" / "11"
    folder.mkdir(parents=True)
    name = f"sstate:a:other:1.0:r0:other:11:{digest('1')}_compile.tar.zst.siginfo"
    (folder / name).write_text(digest("1"))
    os.utime(folder / name, (_EARLIER, _EARLIER))
    site.ran("a", "do_compile", digest("c"), packed=True)
    assert site.explain() == []
    assert site.compared == []


def test_what_is_built_for_the_first_time_needs_no_reason(site: Site) -> None:
    site.ran("new", "do_compile", digest("c"), packed=True)
    assert site.explain() == []


def test_a_scan_that_takes_too_long_gives_no_answer(site: Site) -> None:
    _chain(site)
    assert site.explain(is_late=True) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["The checksum for file a.c changed from 1 to 2"], ("file", "a.c")),
        (["Dependency on checksum of file b.patch was added"], ("file", "b.patch")),
        (["Variable do_compile value changed:\n@@ -1 +1 @@\n-a\n+b"], ("code", "do_compile")),
        (['Variable CFLAGS value changed:\n"-O2 {+-g+}"'], ("variable", "CFLAGS")),
        (["Dependency on Variable X was removed"], ("variable", "X")),
        (["Dependency on task a:do_b was added with hash 12"], ("task", "a:do_b")),
        (["Taint (by forced/invalidated task) changed from None to x"], ("forced", None)),
        (
            [
                "Variable A value changed from '1' to '2'",
                "Variable PV value changed from '1' to '2'",
            ],
            ("variable", "PV"),
        ),
        (
            ["Variable A value changed from '1' to '2'", "Checksum for file x changed from 1 to 2"],
            ("file", "x"),
        ),
    ],
)
def test_the_most_telling_difference_is_the_reason(
    lines: list[str], expected: tuple[str, str | None]
) -> None:
    reason = reason_of(["basehash changed from a to b", *lines], "do_compile")
    assert reason is not None
    assert (reason["kind"], reason.get("name")) == expected
    assert reason["others"] == len(lines) - 1


def test_hashes_of_other_tasks_are_no_reason_of_a_task_itself() -> None:
    lines = ["Hash for task dependency a:do_b changed from 1 to 2", "runtaskdeps changed:"]
    assert reason_of(lines, "do_compile") is None


@pytest.mark.parametrize(
    "name",
    ["a:do_x", "mc:one:a:do_x", "/l/a_1.0.bb:do_x", "a_1.bb:do_x:virtual:native"],
)
def test_the_task_is_found_in_the_names_of_all_releases(name: str) -> None:
    assert task_of(name) == "do_x"
