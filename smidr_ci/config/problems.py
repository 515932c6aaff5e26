"""pydantic's complaints in the words of the file: which key, where, what instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from smidr_ci.config.base import KeyPath, MisfitError, MisfitsError
from smidr_ci.config.matching import shown
from smidr_ci.config.tree import Plain, Problem, SourceMap, dotted
from smidr_ci.errors import ConfigError

__all__ = ["ConfigProblemsError", "explain", "nearest"]

_Tree = Any
"""Plain values of any depth."""
_MAX_LISTED: Final = 50
_MAX_EXPLAINED: Final = 200
_WANTED: Final = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list, one `- item` per line",
    "dict_type": "a mapping, one `key: value` per line",
    "model_type": "a mapping, one `key: value` per line",
    "model_attributes_type": "a mapping, one `key: value` per line",
    "string_type": "text",
}


class ConfigProblemsError(ConfigError):
    """Everything that is wrong with one file; `problems` has the parts, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=_reading_order))
        first = self.problems[0]
        if len(self.problems) == 1:
            super().__init__(first.message, where=first.where, hint=first.hint)
            return
        listed = "\n".join(_line(problem) for problem in self.problems[:_MAX_LISTED])
        more = len(self.problems) - _MAX_LISTED
        rest = f"\n  and {more} more" if more > 0 else ""
        super().__init__(
            f"{len(self.problems)} problems\n{listed}{rest}", where=first.where.rsplit(":", 2)[0]
        )


def _reading_order(problem: Problem) -> tuple[int, int, str]:
    line, column = problem.where.rsplit(":", 2)[1:]
    return int(line), int(column), problem.message


def _line(problem: Problem) -> str:
    hint = f"\n    {problem.hint}" if problem.hint else ""
    return f"  {problem.where}: {problem.message}{hint}"


def explain(
    error: ValidationError,
    data: Plain,
    model: type[BaseModel],
    source: SourceMap,
    *,
    misfits_only: bool = False,
) -> list[tuple[KeyPath, Problem]]:
    """One problem per complaint, with the path of the value to blame; at most some hundred."""
    found: list[tuple[KeyPath, Problem]] = []
    for detail in error.errors(include_url=False, include_input=False)[:_MAX_EXPLAINED]:
        cause = detail.get("ctx", {}).get("error")
        if misfits_only and not isinstance(cause, MisfitError | MisfitsError):
            continue
        path = _path_in(data, detail["loc"], detail["type"])
        for at, message, hint in _sayings(detail, path, data, model, source):
            where = source.place(at, of_key=detail["type"] == "extra_forbidden")
            found.append((at, Problem(message, where, hint, dotted(at))))
    return found


def _path_in(data: _Tree, loc: KeyPath, kind: str) -> KeyPath:
    """The location without the parts that pydantic adds for unions and keys."""
    path: KeyPath = ()
    for index, step in enumerate(loc):
        is_item = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if is_item or (isinstance(data, dict) and step in data):
            data = data[step]
        elif not (kind == "missing" and index == len(loc) - 1):
            continue
        path = (*path, step)
    return path


def _sayings(
    detail: ErrorDetails, path: KeyPath, data: Plain, model: type[BaseModel], source: SourceMap
) -> Iterator[tuple[KeyPath, str, str]]:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, MisfitsError):
        for misfit in cause.faults:
            yield (*path, *misfit.at), misfit.message, misfit.hint
    elif isinstance(cause, MisfitError):
        yield (*path, *cause.at), cause.message, cause.hint
    elif detail["type"] == "extra_forbidden":
        yield path, *_unknown_key(path, model)
    elif detail["type"] == "missing":
        yield path, f"the key `{dotted(path)}` is missing", f"Add {path[-1]}: <value>."
    else:
        yield path, *_bad_value(detail, path, data, source)


def _unknown_key(path: KeyPath, model: type[BaseModel]) -> tuple[str, str]:
    key = str(path[-1])
    message = f"unknown key `{dotted(path)[:120]}`"
    keys = _keys_at(model, path[:-1])
    elsewhere = [dotted(other) for other in _all_keys(model) if other[-1] == key]
    if elsewhere:
        return message, f"Did you mean {' or '.join(f'`{other}`' for other in elsewhere)}?"
    close = nearest(key, keys)
    if close:
        return message, f"Did you mean `{close}`?"
    far = nearest(key, (dotted(other) for other in _all_keys(model)), by_last_word=True)
    if far:
        return message, f"Did you mean `{far}`?"
    return message, f"Keys here: {', '.join(sorted(keys))}."


def _bad_value(
    detail: ErrorDetails, path: KeyPath, data: Plain, source: SourceMap
) -> tuple[str, str]:
    key = f"`{dotted(path)}`" if path else "the file"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in {"value_error", "assertion_error"}:
        return f"{key} {context['error']}", ""
    if kind == "literal_error":
        value, expected = _at(data, path), str(context["expected"])
        allowed = expected.replace("'", "").replace(" or ", ", ").split(", ")
        close = nearest(str(value), allowed)
        hint = f"Did you mean `{close}`?" if close else f"Allowed: {', '.join(allowed)}."
        return f"{key} is {shown(value)}", hint
    if kind in _WANTED:
        return _wrong_type(key, kind, _at(data, path), source.written.get(path))
    return f"{key}: {detail['msg'].replace('Input should', 'should')}", ""


def _wrong_type(key: str, kind: str, value: Plain, written: str | None) -> tuple[str, str]:
    if value is None:
        return f"{key} has no value; it must be {_WANTED[kind]}", ""
    if kind == "string_type" and written is not None:
        read_as = "true or false" if isinstance(value, bool) else "a number"
        return (
            f"{key} must be text, but YAML reads {shown(written)[1:-1]} as {read_as}",
            f'Put it in quotes: "{written[:60]}".',
        )
    names = {str: "text", bool: "true or false", int: "a number", float: "a number"}
    what = names.get(type(value), "a list" if isinstance(value, list) else "a mapping")
    given = f"{what} ({shown(written or value)})" if not isinstance(value, list | dict) else what
    return f"{key} must be {_WANTED[kind]}, not {given}", ""


def _at(data: _Tree, path: KeyPath) -> _Tree:
    for step in path:
        data = data[step]
    return data


def nearest(word: str, words: Iterable[str], *, by_last_word: bool = False) -> str | None:
    """The word most like it, if any is like it at all; `a.b` may stand for `b`, but then closer."""
    lowered = {known.rsplit(".", by_last_word)[-1].lower(): known for known in words}
    likeness = 0.75 if by_last_word else 0.6
    close = difflib.get_close_matches(word[:64].lower().replace("-", "_"), lowered, 1, likeness)
    return lowered[close[0]] if close else None


def _keys_at(model: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return tuple(model.model_fields)


@lru_cache
def _all_keys(model: type[BaseModel], path: KeyPath = ()) -> tuple[KeyPath, ...]:
    keys: list[KeyPath] = []
    for name, info in model.model_fields.items():
        keys.append((*path, name))
        inner = _model_in(info.annotation)
        keys += _all_keys(inner, (*path, name)) if inner else ()
    return tuple(keys)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
