from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.artifacts.deploy import DeployTree
from smidr_ci.artifacts.globs import find

FILES = (
    "images/qemu/core.wic",
    "images/qemu/core.manifest",
    "images/qemu/.hidden",
    "images/qemu/sub/deep.bin",
    "images/other/core.wic",
    "rpm/noarch/a.rpm",
    "top.txt",
)


def plant(root: Path, names: tuple[str, ...] = FILES) -> DeployTree:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return DeployTree(root)


def chosen(tree: DeployTree, glob: str) -> list[str]:
    return [item.name for item in find(tree, glob)]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("images/qemu/core.wic", ["images/qemu/core.wic"]),
        ("images/*/core.wic", ["images/other/core.wic", "images/qemu/core.wic"]),
        ("images/**/*.wic", ["images/other/core.wic", "images/qemu/core.wic"]),
        ("**/*.bin", ["images/qemu/sub/deep.bin"]),
        ("images/qemu/sub", ["images/qemu/sub/deep.bin"]),
        ("images/qemu/sub/", ["images/qemu/sub/deep.bin"]),
        ("./images//qemu/[cd]*.m?nifest", ["images/qemu/core.manifest"]),
        ("**", sorted(FILES)),
        ("*", sorted(FILES)),
        ("[!i]*", ["rpm/noarch/a.rpm", "top.txt"]),
        ("top.txt/**", []),
        ("*/**", sorted(set(FILES) - {"top.txt"})),
        ("images/*", sorted(name for name in FILES if name.startswith("images/"))),
        ("**/qemu/**/**/deep.*", ["images/qemu/sub/deep.bin"]),
        ("CORE.wic", []),
        ("../**", []),
        ("", sorted(FILES)),
    ],
)
def test_globs_choose(tmp_path: Path, glob: str, expected: list[str]) -> None:
    assert chosen(plant(tmp_path), glob) == expected


def test_links_to_directories_are_followed_by_name_but_not_by_wildcards(tmp_path: Path) -> None:
    tree = plant(tmp_path)
    (tmp_path / "latest").symlink_to("images/qemu")
    (tmp_path / "images" / "loop").symlink_to("..")
    (tmp_path / "out").symlink_to("/etc")
    assert chosen(tree, "latest/*.wic") == ["images/qemu/core.wic"]
    assert chosen(tree, "images/loop/latest/*.wic") == ["images/qemu/core.wic"]
    assert chosen(tree, "lates?/*.wic") == []
    assert chosen(tree, "out/passwd") == []
    assert chosen(tree, "**") == sorted([*FILES, "latest", "images/loop", "out"])


def test_a_glob_made_to_be_slow_is_not(tmp_path: Path) -> None:
    deep = "/".join(["a"] * 40)
    tree = plant(tmp_path, tuple(f"{deep}/{'a' * 60}{number}" for number in range(50)))
    start = time.perf_counter()
    assert chosen(tree, "/".join(["**", "a*a*a*a*a*a*a*a*a*b"] * 8)) == []
    assert len(chosen(tree, "/".join(["**", "a"] * 8) + "/**")) == 50
    assert time.perf_counter() - start < 5


def test_a_tree_deeper_than_a_path_can_be_is_reported_not_followed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (found,) = find(DeployTree(tmp_path), "**")
    assert len(found.name) > 3900
    os.system(f"rm -rf {tmp_path}/deeper")  # pytest's own removal can't


name = st.text(st.sampled_from("ab.*?[]!-"), min_size=1, max_size=4).filter(
    lambda text: text not in {".", ".."}
)


@given(st.lists(st.lists(name, min_size=1, max_size=3).map("/".join), max_size=6), st.data())
def test_an_escaped_name_finds_itself_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("deploy")
    made = []
    for path in names:
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        except OSError:
            continue  # one is a file where the other wants a directory
        if (root / path).is_file():
            made.append(path)
    tree = DeployTree(root)
    assert set(chosen(tree, "**")) == set(made)
    if made:
        path = data.draw(st.sampled_from(made))
        escaped = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
        assert chosen(tree, escaped) == [path]


@given(st.text(max_size=12))
def test_any_text_as_a_glob_stays_inside_and_does_not_fail(
    tmp_path_factory: pytest.TempPathFactory, glob: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    if not root.exists():
        plant(root)
    assert set(chosen(DeployTree(root), glob.replace("\x00", ""))) <= set(FILES)
