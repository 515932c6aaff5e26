"""From a file to a checked model: the way that `smidr.yaml` and `agent.yaml` share."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from smidr_ci.config.base import KeyPath, MisfitError, Model
from smidr_ci.config.document import MAX_BYTES, Node, Place, YamlError, compose, place_of
from smidr_ci.config.problems import ConfigProblemsError, explain
from smidr_ci.config.substitution import Substitution
from smidr_ci.config.tree import Plain, Problem, SourceMap, Values, dotted, read_values
from smidr_ci.errors import ConfigError

__all__ = ["Checked", "decode", "misfit_problems", "read_config_text", "read_model"]

_Kind = TypeVar("_Kind", bound=Model)
_Tree = Any
"""Plain values of any depth."""
_ROUNDS: Final = 4
_NOT_YAML: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Checked(Generic[_Kind]):
    """A model and where each of its values stands."""

    model: _Kind
    source: SourceMap


def read_config_text(path: Path, *, hint_if_missing: str) -> str:
    """The file's text; raises `ConfigError` for what is no readable UTF-8 file of up to 1 MiB.

    A symlink must not lead out of the file's directory: a repository could point it anywhere.
    """
    where = str(path)
    try:
        real, directory = path.resolve(strict=True), path.parent.resolve(strict=True)
        if not real.is_relative_to(directory):
            raise ConfigError(
                "is a symlink that leads out of its directory",
                where=where,
                hint=f"Name the file itself: {real}",
            )
        raw = _read_regular(real)
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", where=where, hint=hint_if_missing) from error
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"can't be read: {reason}", where=where) from error
    return decode(raw, where)


def _read_regular(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "not a regular file")
        return stream.read(MAX_BYTES + 1)


def decode(raw: bytes, name: str) -> str:
    """UTF-8 text of up to 1 MiB that YAML may hold; raises `ConfigError`."""
    if len(raw) > MAX_BYTES:
        raise ConfigError("is larger than 1 MiB", where=name)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(
            f"is not UTF-8: byte 0x{raw[error.start]:02x}",
            where=f"{name}:{line}:{column}",
            hint="Save the file as UTF-8.",
        ) from error


def read_model(
    text: str,
    name: str,
    model: type[_Kind],
    *,
    substitution: Substitution | None = None,
    context: Mapping[str, Any] | None = None,
    filler: Mapping[str, Plain] | None = None,
) -> Checked[_Kind]:
    """The text as a model; raises `ConfigProblemsError` that lists all that is wrong with it.

    `filler` stands in for a missing key when the other keys are checked against each other.
    """
    try:
        values = read_values(_compose(text), name, substitution)
    except YamlError as error:
        where = f"{name}:{error.place.line}:{error.place.column}"
        raise ConfigProblemsError([Problem(error.message, where, error.hint)]) from error
    found = list(values.problems)
    try:
        checked = _validated(model, values, context)
    except ValidationError as error:
        blamed = {path for path, _ in found}
        complaints = explain(error, values.data, model, values.source)
        found += [(path, problem) for path, problem in complaints if path not in blamed]
        found += _second_look(model, values, {path for path, _ in found}, filler or {}, context)
        raise ConfigProblemsError(problem for _, problem in found) from error
    if found:
        raise ConfigProblemsError(problem for _, problem in found)
    return Checked(checked, values.source)


def _validated(model: type[_Kind], values: Values, context: Mapping[str, Any] | None) -> _Kind:
    """The model; a substituted value that looks like a number is text where text is wanted.

    `branch: ${YOCTO_BRANCH:-2.8}` can't know that the variable will hold one.
    """
    try:
        return model.model_validate(values.data, context=context)
    except ValidationError as error:
        wrong = [detail["loc"] for detail in error.errors() if detail["type"] == "string_type"]
        found = [path for path in wrong if path in values.source.substituted]
        if not found:
            raise
        for path in found:
            _put(values.data, path, values.source.written[path])
    return model.model_validate(values.data, context=context)


def _put(data: _Tree, path: KeyPath, text: str) -> None:
    for step in path[:-1]:
        data = data[step]
    data[path[-1]] = text


def misfit_problems(misfits: Iterable[MisfitError], source: SourceMap) -> list[Problem]:
    """Misfits whose `at` is a whole key path, as problems."""
    return [
        Problem(misfit.message, source.place(misfit.at), misfit.hint, dotted(misfit.at))
        for misfit in misfits
    ]


def _compose(text: str) -> Node:
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlError("is larger than 1 MiB", Place(1, 1))
    strange = _NOT_YAML.search(text)
    if strange:
        code = f"U+{ord(strange[0]):04X}"
        raise YamlError(
            f"holds the character {code}, which YAML does not allow",
            place_of(text, strange.start()),
            "Remove it; in double quotes it can be written as an escape.",
        )
    return compose(text)


def _second_look(
    model: type[Model],
    values: Values,
    blamed: set[KeyPath],
    filler: Mapping[str, Plain],
    context: Mapping[str, Any] | None,
) -> Iterator[tuple[KeyPath, Problem]]:
    """What does not fit together in the rest of the file, once the blamed values are gone.

    Checks across keys run only when each key for itself is right, so without this a file with one
    wrong type would hide two layers of one name.
    """
    blamed = set(blamed)
    for _ in range(_ROUNDS):
        fresh = list(_misfits_of_rest(model, values, blamed, filler, context))
        yield from fresh
        blamed |= {path for path, _ in fresh}
        if not fresh:
            return


def _misfits_of_rest(
    model: type[Model],
    values: Values,
    blamed: set[KeyPath],
    filler: Mapping[str, Plain],
    context: Mapping[str, Any] | None,
) -> Iterator[tuple[KeyPath, Problem]]:
    touched = {path[:length] for path in blamed for length in range(1, len(path) + 1)}
    origins: dict[KeyPath, list[int]] = {}
    rest = _without(values.data, blamed, touched, (), origins)
    if not isinstance(rest, dict):
        return
    try:
        model.model_validate({**filler, **rest}, context=context)
    except ValidationError as error:
        for path, problem in explain(error, rest, model, values.source, misfits_only=True):
            original = _original(path, origins)
            where = values.source.place(original)
            yield original, replace(problem, where=where, key=dotted(original))


def _without(
    data: Plain,
    blamed: set[KeyPath],
    touched: set[KeyPath],
    path: KeyPath,
    origins: dict[KeyPath, list[int]],
) -> Plain:
    """The data without blamed values; a list loses the whole item that holds one."""
    if isinstance(data, dict):
        return {
            key: _without(value, blamed, touched, (*path, key), origins)
            for key, value in data.items()
            if (*path, key) not in blamed
        }
    if isinstance(data, list):
        kept = [index for index in range(len(data)) if (*path, index) not in touched]
        origins[path] = kept
        return [data[index] for index in kept]
    return data


def _original(path: KeyPath, origins: Mapping[KeyPath, list[int]]) -> KeyPath:
    original: KeyPath = ()
    for step in path:
        kept = origins.get(original)
        original = (*original, kept[step] if kept and isinstance(step, int) else step)
    return original
