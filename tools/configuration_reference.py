"""The page docs/configuration.md, from the models of `smidr.yaml` and `agent.yaml`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.base import Model
from smidr_ci.config.matching import Called
from smidr_ci.config.models import ProjectConfig

__all__ = ["configuration_page"]

_INTRO = Path(__file__).with_name("configuration_intro.md")
_SIMPLE = {bool: "`true` or `false`", int: "number", float: "number", str: "text"}


def configuration_page() -> str:
    """The whole page as Markdown."""
    parts = [
        _INTRO.read_text(encoding="utf-8").rstrip(),
        "## smidr.yaml",
        *_sections(ProjectConfig, ""),
        "## agent.yaml",
        *_sections(AgentConfig, ""),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(model: type[Model], name: str) -> Iterator[str]:
    """The table of one model, then those of the sections in it."""
    if name:
        yield f"### `{name}`"
        yield _text(model.__doc__ or "")
    rows = [_row(key, info) for key, info in model.model_fields.items()]
    yield "\n".join(("| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows))
    for key, info in model.model_fields.items():
        inner, is_list = _model_in(info.annotation)
        if inner is not None:
            yield from _sections(inner, f"{name}.{key}".lstrip(".") + ("[]" if is_list else ""))


def _row(key: str, info: FieldInfo) -> str:
    cells = (f"`{key}`", _kind_of(info), _default(info), _text(info.description or ""))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _text(docstring: str) -> str:
    return " ".join(docstring.split())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value in ((), {}, "") or isinstance(value, Model):
        return ""
    if "size" in _kind_of(info):
        return f"`{value // 1024**3}G`"
    return f"`{json.dumps(value).strip(chr(34))}`"


def _kind_of(info: FieldInfo) -> str:
    return _called(info.metadata) or _kind(info.annotation)


def _called(metadata: Any) -> str | None:  # noqa: ANN401 - pydantic keeps any object there
    return next((item.name for item in metadata if isinstance(item, Called)), None)


def _kind(annotation: Any) -> str:  # noqa: ANN401 - a type form
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _called(args[1:]) or _kind(args[0])
    if origin in {Union, UnionType}:
        return " or ".join(_kind(choice) for choice in args if choice is not NoneType)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in args)
    if origin is tuple:
        inner, _ = _model_in(args[0])
        return "list, see below" if inner else f"list: {_kind(args[0])}"
    is_section = isinstance(annotation, type) and issubclass(annotation, Model)
    return "section, see below" if is_section else _SIMPLE[annotation]


def _model_in(annotation: Any) -> tuple[type[Model] | None, bool]:  # noqa: ANN401 - a type form
    """The section that a key holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation, False
    for choice in get_args(annotation):
        inner, is_list = _model_in(choice)
        if inner is not None:
            return inner, is_list or get_origin(annotation) is tuple
    return None, False
