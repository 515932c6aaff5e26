"""Loading `smidr.yaml`: places, remedies, all faults at once, substitution, files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.config.loader import LoadedProject, load_project, load_project_text
from smidr_ci.config.problems import ConfigProblemsError
from smidr_ci.config.tree import Problem
from smidr_ci.errors import ConfigError, FailureKind


def load(text: str, **environ: str) -> LoadedProject:
    return load_project_text(text, "smidr.yaml", directory=Path("/project"), environ=environ)


def problems(text: str, **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigProblemsError) as caught:
        load(text, **environ)
    assert caught.value.kind is FailureKind.CONFIG
    return caught.value.problems


@pytest.mark.parametrize(
    ("line", "message", "where", "hint"),
    [
        ("imagge: x", "unknown key `imagge`", "2:1", "Did you mean `build.image`"),
        ("desciption: x", "unknown key `desciption`", "2:1", "Did you mean `description`?"),
        ("machine: x", "unknown key `machine`", "2:1", "`base.machine` or `build.machine`"),
        ("xyzzy: x", "unknown key `xyzzy`", "2:1", "Keys here: advanced, artifacts, base"),
        ("xyzzy:", "unknown key `xyzzy`", "2:1", "Keys here"),
        ("build: {imag: x}", "unknown key `build.imag`", "2:9", "Did you mean `image`?"),
        (
            "layers: [{name: a, path: b, nam: c}]",
            "unknown key `layers[0].nam`",
            "2:29",
            "Did you mean `name`?",
        ),
        ("layers: [{path: x}]", "the key `layers[0].name` is missing", "2:10", "Add name:"),
        ("base: poky", "`base` must be a mapping, one `key: value` per line, not text", "2:7", ""),
        (
            "layers: {a: b}",
            "`layers` must be a list, one `- item` per line, not a mapping",
            "2:9",
            "",
        ),
        ("base: {machine: [a]}", "`base.machine` must be text, not a list", "2:17", ""),
        ("build: {fetch_first: 1}", "must be true or false, not a number", "2:22", ""),
        ("build: {bb_number_threads: x}", "must be a whole number, not text ('x')", "2:28", ""),
        ("build: {bb_number_threads: 0}", "should be greater than or equal to 1", "2:28", ""),
        ("packages: {classes: [rmp]}", "`packages.classes[0]` is 'rmp'", "2:22", "mean `rpm`?"),
        ("container: {bootstrap: xyz}", "is 'xyz'", "2:24", "Allowed: never, auto, always."),
        (
            "container: {memory: lots}",
            "`container.memory` is 'lots', which is not a size",
            "2:21",
            "",
        ),
        ("environment: {PATH: x}", "the variable 'PATH' can't be given to a build", "2:21", ""),
        ("environment: {A: 1}", "`environment.A` must be text", "2:18", 'Put it in quotes: "1".'),
        ("base: {version: 1.10}", "YAML reads 1.10 as a number", "2:17", 'quotes: "1.10".'),
        ("config_version: 2", "`config_version`", "2:17", ""),
    ],
)
def test_each_fault_names_key_place_and_remedy(
    line: str, message: str, where: str, hint: str
) -> None:
    (problem,) = problems(f"name: a\n{line}\n")
    assert message in problem.message
    assert problem.where == f"smidr.yaml:{where}"
    assert hint in problem.hint


def test_all_faults_of_a_file_come_at_once_in_its_order() -> None:
    found = problems(
        """
desciption: x
yocto_series: 1.10
layers:
  - name: a
    git: ext::sh
  - name: twin
    path: x
  - name: twin
    path: y
  - name: c
build:
  sstate: one
  parallel_make: many
directories:
  sstate: two
container:
  memory: 1M
local_conf: ${YOCTO_UNSET}
"""
    )
    assert [(problem.where.split(":")[1], problem.key) for problem in found] == [
        ("2", "name"),
        ("2", "desciption"),
        ("3", "yocto_series"),
        ("6", "layers[0].git"),
        ("9", "layers[2].name"),
        ("11", "layers[3]"),
        ("13", "build.sstate"),
        ("14", "build.parallel_make"),
        ("18", "container.memory"),
        ("19", "local_conf"),
    ]


def test_the_error_lists_every_fault_with_its_own_place() -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        load("name: a\nfoo: 1\nbar: 2\n")
    text = str(caught.value)
    assert text.startswith("smidr.yaml: 2 problems\n")
    assert "smidr.yaml:2:1: unknown key `foo`" in text
    assert "smidr.yaml:3:1: unknown key `bar`" in text


def test_a_single_fault_stands_for_itself() -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        load("name: a\nfoo: 1\n")
    assert caught.value.where == "smidr.yaml:2:1"
    assert caught.value.message == "unknown key `foo`"


def test_a_fault_in_one_layer_does_not_invent_faults_in_others() -> None:
    found = problems("name: a\nbase: {provider: b}\nlayers: [{name: b, git: x y, path: q}]\n")
    assert [problem.key for problem in found] == ["layers[0].git"]


def test_substituted_values_have_the_type_that_the_key_wants() -> None:
    config = load(
        """
name: a
description: ${YOCTO_NUMBER}
build:
  parallel_make: ${YOCTO_JOBS:-8}
  bb_number_threads: ${YOCTO_NUMBER}
  fetch_first: ${YOCTO_FETCH:-true}
  image: ${YOCTO_NONE:-}
layers:
  - {name: bitbake, path: "x-${YOCTO_NUMBER}"}
  - name: other
    git: https://example.com/x
    branch: ${YOCTO_BRANCH:-2.8}
""",
        YOCTO_NUMBER="12",
    ).config
    assert config.description == "12"
    assert config.build.parallel_make == 8
    assert config.build.bb_number_threads == 12
    assert config.build.fetch_first is True
    assert config.build.image is None
    assert config.layers[0].path == "x-12"
    assert config.layers[1].branch == "2.8"


def test_a_quoted_value_stays_text_after_substitution() -> None:
    found = problems('name: a\nbuild: {bb_number_threads: "${YOCTO_N}"}\n', YOCTO_N="12")
    assert "must be a whole number, not text" in found[0].message


def test_a_value_can_not_bring_keys_of_its_own() -> None:
    evil = 'x"\nadvanced: {bb_no_network: true}\n# '
    config = load('name: a\ndescription: "${YOCTO_D}"\n', YOCTO_D=evil).config
    assert config.description == evil
    assert not config.advanced.bb_no_network


def test_keys_are_not_substituted() -> None:
    assert "unknown key" in problems("name: a\n${YOCTO_KEY}: 1\n", YOCTO_KEY="build")[0].message


def test_bitbakes_own_variables_pass_through() -> None:
    config = load('name: a\nlocal_conf: A = "${TOPDIR}/${@x}/${YOCTO_A}"\n', YOCTO_A="b").config
    assert config.local_conf == ('A = "${TOPDIR}/${@x}/b"',)


def test_places_are_found_by_tuple_and_by_text() -> None:
    loaded = load("name: a\nlayers:\n  - name: b\n    git: https://example.com/b\n")
    assert loaded.place(("layers", 0, "git")) == "smidr.yaml:4:10"
    assert loaded.place("layers[0].git") == "smidr.yaml:4:10"
    assert loaded.place("layers[0].branch") == "smidr.yaml:3:5"
    assert loaded.place("advanced.bb_hashserve") == "smidr.yaml:1:1"


def test_paths_of_the_config_start_from_its_directory(tmp_path: Path) -> None:
    (tmp_path / "smidr.yaml").write_text("name: a\n")
    loaded = load_project(tmp_path / "smidr.yaml", environ={"HOME": "/home/ada"})
    assert loaded.host_path("x/y") == tmp_path / "x/y"
    assert loaded.host_path("/srv") == Path("/srv")
    assert loaded.host_path("~/d") == Path("/home/ada/d")
    assert loaded.text == "name: a\n"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_project(tmp_path / "smidr.yaml", environ={})
    assert "smidr init" in caught.value.hint


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "device"])
def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "smidr.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises(ConfigError, match="can't be read"):
        load_project(path, environ={})


def test_a_symlink_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root: x\n")
    inside = tmp_path / "repo"
    inside.mkdir()
    (inside / "smidr.yaml").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="leads out of its directory"):
        load_project(inside / "smidr.yaml", environ={})


def test_a_symlink_inside_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("name: a\n")
    (tmp_path / "smidr.yaml").symlink_to("configs/a.yaml")
    assert load_project(tmp_path / "smidr.yaml", environ={}).config.name == "a"


def test_a_file_over_one_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "smidr.yaml"
    path.write_text("name: a\n" + "#" * (1 << 20))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_project(path, environ={})
