"""The JSON schema of `smidr.yaml`, for editors: it never refuses what smidr takes."""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema

from smidr_ci.config.models import ProjectConfig

__all__ = ["SCHEMA_ID", "project_schema"]

SCHEMA_ID: Final = "urn:smidr:smidr.yaml:1"
_Schema = dict[str, Any]
_EXAMPLE: Final = {
    "name": "gateway",
    "yocto_series": "scarthgap",
    "base": {"provider": "poky", "machine": "qemux86-64"},
    "build": {"image": "core-image-minimal"},
}
_VARIABLE: Final = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:[-+]|\})",
    "description": "A value from the environment: ${VAR}, ${VAR:-default} or ${VAR:+text}.",
}
_VARIABLE_REF: Final = {"$ref": "#/$defs/Variable"}
_ONE_SOURCE: Final = [
    {"required": ["git"], "properties": {"git": {"type": "string"}}},
    {"required": ["path"], "properties": {"path": {"type": "string"}}},
]


def project_schema() -> _Schema:
    """JSON schema, draft 2020-12; descriptions are the attributes' docstrings."""
    generated = ProjectConfig.model_json_schema(mode="validation", schema_generator=_Generator)
    definitions = {name: _opened(part) for name, part in generated.pop("$defs").items()}
    definitions["LayerEntry"]["oneOf"] = _ONE_SOURCE
    definitions["Variable"] = dict(_VARIABLE)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **_opened(generated),
        "title": "smidr.yaml",
        "examples": [_EXAMPLE],
        "$defs": definitions,
    }


class _Generator(GenerateJsonSchema):
    """pydantic's generator without the titles that repeat each key."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - pydantic's hook
        return False


def _opened(model: _Schema) -> _Schema:
    """A model's schema that also takes empty keys, and `${VAR}` in place of any single value."""
    required = model.get("required", ())
    properties = {
        key: _property(part, is_required=key in required)
        for key, part in model.get("properties", {}).items()
    }
    return {**model, "description": _one_line(model["description"]), "properties": properties}


def _property(part: _Schema, *, is_required: bool) -> _Schema:
    outer: _Schema = {}
    if "description" in part:
        outer["description"] = _one_line(part["description"])
    if part.get("default") is not None and not isinstance(part["default"], dict):
        outer["default"] = part["default"]
    inner = {key: value for key, value in part.items() if key not in {"description", "default"}}
    choices = _choices(inner)
    if not is_required:
        choices = [*choices, {"type": "null"}]
    return {**outer, **(choices[0] if len(choices) == 1 else {"anyOf": choices})}


def _choices(part: _Schema) -> list[_Schema]:
    """The alternatives of a value, flat and without null; `${VAR}` where a single value may be."""
    plain = [choice for choice in _flat(part) if choice != {"type": "null"}]
    closed = [choice for choice in plain if _is_closed(choice)]
    return [*map(_with_open_items, plain), *([_VARIABLE_REF] if closed else [])]


def _flat(part: _Schema) -> list[_Schema]:
    if "anyOf" not in part:
        return [part]
    return [flat for choice in part["anyOf"] for flat in _flat(choice)]


def _is_closed(part: _Schema) -> bool:
    """Whether it is a single value that not every string would do for."""
    is_single = part.get("type") in {"string", "integer", "number", "boolean"} or "enum" in part
    return is_single and part != {"type": "string"}


def _with_open_items(part: _Schema) -> _Schema:
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            choices = _choices(part[key])
            return {**part, key: choices[0] if len(choices) == 1 else {"anyOf": choices}}
    return part


def _one_line(text: str) -> str:
    return " ".join(text.split())
