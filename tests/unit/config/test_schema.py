"""The JSON schema: valid, described, and never stricter than the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from smidr_ci.config.loader import load_project_text
from smidr_ci.config.schema import project_schema
from smidr_ci.config.starters import STARTERS, write_starter
from smidr_ci.errors import ConfigError
from tests.fakes.config_keys import EXAMPLES, Key, iter_keys

VALIDATOR = Draft202012Validator(project_schema())
KEYS = tuple(iter_keys())


def is_valid(raw: object) -> bool:
    return VALIDATOR.is_valid(raw)


def is_loaded(raw: object) -> bool:
    text = yaml.safe_dump(raw, allow_unicode=True)
    try:
        load_project_text(text, "x", directory=Path("/x"), environ={"YOCTO_A": "8"})
    except ConfigError:
        return False
    return True


def test_the_schema_is_valid_and_says_which_draft_it_is() -> None:
    schema = project_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert all(is_valid(example) for example in schema["examples"])


def test_every_key_is_described() -> None:
    schema = project_schema()
    sections = [schema, *(part for name, part in schema["$defs"].items() if name != "Variable")]
    for section in sections:
        assert section["description"]
        for key, part in section["properties"].items():
            target = part.get("anyOf", [{}])[0].get("$ref", "#/$defs/none").rsplit("/", 1)[-1]
            assert part.get("description") or schema["$defs"][target]["description"], key


@pytest.mark.parametrize("starter", STARTERS)
def test_every_starter_is_valid(tmp_path: Path, starter: str) -> None:
    raw = yaml.safe_load(write_starter(tmp_path, "demo", starter).read_text())
    assert list(VALIDATOR.iter_errors(raw)) == []


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_key_is_taken_with_a_value_a_variable_or_nothing(key: Key) -> None:
    raw = key.raw_with()
    assert list(VALIDATOR.iter_errors(raw)) == []
    holder: Any = raw
    for step in key.path[:-1]:
        holder = holder[step]
    if isinstance(key.example, str | int | float):
        holder[key.path[-1]] = "${YOCTO_A:-x}"
        assert list(VALIDATOR.iter_errors(raw)) == []
    if key.name not in {"name", "layers[].name", "layers[].git", "layers[].path"}:
        holder[key.path[-1]] = None
        assert list(VALIDATOR.iter_errors(raw)) == []
        assert is_loaded(raw)


WRONG: list[Any] = [
    None, 0, -1, 1.5, True, "", "x y", "\n", "..", "/", "-x", [], ["a b"], [1], [None], {},
    {"a": 1}, {"a b": "c"}, "8G", "-j8", "true", "${TOPDIR}", "${YOCTO_A}", "a://b",
    "a" * 70,
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_what_the_schema_refuses_the_loader_refuses_too(key: Key) -> None:
    for value in WRONG:
        raw = key.raw_with()
        holder: Any = raw
        for step in key.path[:-1]:
            holder = holder[step]
        holder[key.path[-1]] = value
        if not is_valid(raw):
            assert not is_loaded(raw), (key.name, value)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"name": "a", "unknown": 1},
        {"name": "a", "layers": [{"name": "a"}]},
        {"name": "a", "layers": [{"name": "a", "git": "https://x.de/y", "path": "z"}]},
        {"name": "a", "layers": [{"name": "a", "git": "ext::sh"}]},
        {"name": "a", "build": {"parallel_make": "many"}},
        {"name": "a", "container": {"bootstrap": "alwys"}},
        {"name": "a", "artifacts": ["../x"]},
    ],
)
def test_an_editor_sees_the_usual_faults(raw: dict[str, Any]) -> None:
    assert not is_valid(raw)
    assert not is_loaded(raw)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 9999), st.sampled_from(WRONG), st.text(max_size=8)
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(EXAMPLES)), VALUES, max_size=4))
def test_any_config_that_the_schema_refuses_is_refused(values: dict[str, Any]) -> None:
    raw: dict[str, Any] = {"name": "a"}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        if section == "layers[]":
            raw["layers"] = [{"name": "a", "git": "https://example.com/x", key: value}]
        elif section:
            raw.setdefault(section, {})[key] = value
        else:
            raw[key] = value
    if not is_valid(raw):
        assert not is_loaded(raw)
