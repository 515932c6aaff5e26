"""The text of a config: what YAML is taken, and within which limits."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smidr_ci.config.loader import LoadedProject, load_project, load_project_text
from smidr_ci.config.reading import decode
from smidr_ci.errors import ConfigError

HERE = Path("/nowhere")


def load(text: str, **environ: str) -> LoadedProject:
    return load_project_text(text, "smidr.yaml", directory=HERE, environ=environ)


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return caught.value


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("", "is empty", "1:1"),
        ("# only a comment\n", "is empty", "1:1"),
        ("---\n", "must be a mapping", "2:1"),
        ("name: a\n---\nname: b\n", "more than one YAML document", "2:1"),
        ("- a\n", "must be a mapping", "1:1"),
        ("just text", "must be a mapping", "1:1"),
        ("name: a\nname: b\n", "'name' twice; the first one is in line 1", "2:1"),
        ("name: a\nbuild:\n  image: x\n  image: y\n", "'image' twice", "4:3"),
        ("name: [a\n", "is not YAML", "2:1"),
        ("name: a\n\tbuild: x\n", "is not YAML", "2:1"),
        ("name: !!python/object/apply:os.system [id]\n", "tag", "1:7"),
        ("name: !custom a\n", "tag !custom", "1:7"),
        ("name: !!binary aGk=\n", "tag", "1:7"),
        ("name: !!int abc\n", "marked !!int", "1:7"),
        ("name: *missing\n", "no value before it is marked &missing", "1:7"),
        ("name: &a [*a]\n", "no value before it is marked &a", "1:11"),
        ("? [a, b]\n: c\n", "key that is not a word", "1:3"),
        ("name: a\n<<: 1\n", "merges", "2:5"),
        ("name: a\x00b\n", "U\\+0000", "1:8"),
        ("name: a\ndescription: \x1b[2J\n", "U\\+001B", "2:14"),
        ("name: " + "[" * 5000, "nested deeper", "1:39"),
        (BOMB, "counting aliases", ""),
        ("x" * (1 << 20) + "y", "larger than 1 MiB", "1:1"),
    ],
)
def test_text_that_is_no_config_is_refused_with_its_place(
    text: str, message: str, where: str
) -> None:
    error = refusal(text)
    assert re.search(message, str(error)), str(error)
    assert f"smidr.yaml:{where}" in str(error)


def test_anchors_and_merges_work_as_yaml_says() -> None:
    text = """
name: a
layers:
  - &core {name: one, git: "https://example.com/one", branch: main}
  - <<: *core
    name: two
"""
    layers = load(text).config.layers
    assert [(layer.name, layer.branch) for layer in layers] == [("one", "main"), ("two", "main")]


@pytest.mark.parametrize("written", ["on", "yes", "no", "True", "1.10", "10", "0", "-1"])
def test_text_that_yaml_takes_for_something_else_needs_quotes(written: str) -> None:
    error = refusal(f"name: a\nyocto_series: {written}\n")
    assert f"YAML reads {written} as" in error.message
    assert error.hint == f'Put it in quotes: "{written}".'
    assert error.where == "smidr.yaml:2:15"
    assert load(f'name: a\nyocto_series: "{written.lstrip("-")}"\n').config.yocto_series


@pytest.mark.parametrize("written", ["010", "1:30", "2024-01-31", "0x1F", "1_000"])
def test_numbers_of_old_yaml_stay_the_text_that_they_look_like(written: str) -> None:
    assert load(f"name: a\ndescription: {written}\n").config.description == written


@pytest.mark.parametrize("written", ["true", "True", "yes", "on"])
def test_a_flag_may_be_any_word_that_yaml_has_for_true(written: str) -> None:
    assert load(f"name: a\nbuild: {{fetch_first: {written}}}\n").config.build.fetch_first


def test_a_key_without_a_value_counts_as_not_given() -> None:
    config = load("name: a\nbuild:\nlayers:\nbase:\n  machine:\n  # distro: poky\n").config
    assert config == load("name: a\n").config


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "smidr.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\ndescription: b\r\n")
    assert load_project(path, environ={}).config.description == "b"


def test_what_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "smidr.yaml"
    path.write_bytes(b"name: a\ndescription: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        load_project(path, environ={})
    assert caught.value.where == f"{path}:2:14"


def test_an_environment_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigError, match="half a character"):
        load("name: a\ndescription: ${YOCTO_X}\n", YOCTO_X="\udcff")


def test_a_key_with_control_characters_does_not_reach_the_terminal() -> None:
    error = refusal('name: a\n"\\e[2J\\a": b\n')
    assert str(error).isprintable() or "\x1b" not in str(error)
    assert "\\x1b[2J" in error.message


def test_fifty_thousand_unknown_keys_are_refused_at_once() -> None:
    text = "name: a\n" + "".join(f"key{number}: 1\n" for number in range(20_000))
    started = time.monotonic()
    error = refusal(text)
    assert time.monotonic() - started < 5
    assert len(str(error)) < 20_000


KEYS = st.sampled_from(["name", "base", "layers", "build", "image", "git", "path", "<<", "memory"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["${YOCTO_A}", "${YOCTO_A:-", "${TOPDIR}", "8G", "-j8", "ext::sh", "../x"]),
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner, max_size=5)
    ),
    max_leaves=25,
)


def failure(raw: bytes) -> ConfigError | None:
    try:
        load(decode(raw, "smidr.yaml"), YOCTO_A="x")
    except ConfigError as error:
        return error
    return None


def is_loaded_or_refused(raw: bytes) -> None:
    started = time.monotonic()
    error = failure(raw)
    assert time.monotonic() - started < 10
    assert error is None or (error.message and error.where.startswith("smidr.yaml"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
@example(b"\xff\xfe")
@example(b"name: " + b"9" * 100_000)
@example(b"name: 1e999999999\n")
@example(b"[" * 200_000)
@example(b"{" * 200_000)
@example(b"- " * 200_000)
@example(b"? " * 100_000)
@example(b"a: " * 50_000)
@example(b"&a " * 50_000)
@example(b"name: '" + b"'" * 100_000)
@example(b"%YAML 9.9\n---\nname: a\n")
@example(b"%TAG ! !\n" * 20_000 + b"---\nname: a\n")
@example(b'name: "\\ud800"\n')
@example(b"name: a\nlayers: [" + b"{}," * 10_000 + b"]\n")
@example(b"name: a\nlayers: [" + b"{name: a, path: x}," * 5_000 + b"]\n")
@example(b"name: a\nlocal_conf: ${YOCTO_A:-" + b"${YOCTO_B:-" * 20_000)
@example(b"name: a\ndescription: " + b"${" * 200_000)
@example(b"name: a\nartifacts: ['" + b"**/" * 100_000 + b"']\n")
@example(b"name: a\nbase: {" + b"machin: 1, " * 2 + b"}\n")
@example(BOMB.encode())
def test_any_bytes_are_a_config_or_a_config_error(raw: bytes) -> None:
    is_loaded_or_refused(raw)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    is_loaded_or_refused(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_any_tree_is_a_config_or_a_config_error(tree: object) -> None:
    is_loaded_or_refused(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
