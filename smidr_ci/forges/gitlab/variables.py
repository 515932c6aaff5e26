"""A job's variables: which one wins, what references in their values become, which are files.

One pass of expansion, as GitLab documents it: a value that comes out of a reference is not
expanded again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from smidr_ci.forges.gitlab.payload import Variable

__all__ = ["JobVariables", "expand", "expand_text"]

# What follows a dollar sign: ${NAME}, ${ (with whatever is in it), a special sign, a name.
_REFERENCE: Final = re.compile(
    r"\$(?:\{(?P<braced>[^}]*)\}|(?P<open>\{)|(?P<special>[*#$@!?\-0-9])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*))",
    re.ASCII,
)
_IS_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MAX_VALUE: Final = 1024 * 1024


@dataclass(frozen=True)
class JobVariables(Mapping[str, str]):
    """Expanded variables; the value of a file variable is the path of its file."""

    values_by_key: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str] = field(repr=False)
    """Content by key."""
    masked_keys: frozenset[str]
    secrets: tuple[str, ...] = field(repr=False)
    """What must not be shown, also of variables that a later one replaced."""

    def __getitem__(self, key: str) -> str:
        return self.values_by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A yes or no as Go reads it (`1`, `t`, `true`, ...); the default for anything else."""
        word = self.get(key, "")
        if word in {"1", "t", "T", "true", "TRUE", "True"}:
            return True
        if word in {"0", "f", "F", "false", "FALSE", "False"}:
            return False
        return default


def expand(
    variables: Iterable[Variable], *, file_directory: PurePath | None = None
) -> JobVariables:
    """Expand a job's variables; later ones win. `file_directory` is where their files will lie.

    Without it a file variable's value is its content. Names that no shell can have are left out.
    """
    given = [item for item in variables if _IS_NAME.fullmatch(item.key)]
    winners = {item.key: item for item in given}
    raw = {key: _as_seen(item, file_directory) for key, item in winners.items()}
    values: dict[str, str] = {}
    files: dict[str, str] = {}
    secrets: list[str] = []
    for item in given:
        is_opaque = item.is_raw or "$" not in item.value
        value = item.value if is_opaque else expand_text(item.value, raw)
        if item.is_masked:
            secrets += [value, item.value]
        if winners[item.key] is not item:
            continue
        if item.is_file and file_directory is not None:
            files[item.key] = value
            value = raw[item.key]
        values[item.key] = value
    masked = frozenset(key for key, item in winners.items() if item.is_masked)
    return JobVariables(values, files, masked, tuple(dict.fromkeys(secrets)))


def expand_text(text: str, values: Mapping[str, str]) -> str:
    """Replace `$NAME` and `${NAME}`; `$$` is a dollar sign, what is unknown is empty."""

    def replaced(found: re.Match[str]) -> str:
        if found["special"] is not None:
            return "$" if found["special"] == "$" else ""
        if found["open"] is not None:
            return ""
        return values.get(found["braced"] if found["braced"] is not None else found["name"], "")

    # References to a long value, many times over, must not fill the memory.
    parts, size, position = [], 0, 0
    for found in _REFERENCE.finditer(text):
        piece = text[position : found.start()] + replaced(found)
        parts.append(piece)
        size += len(piece)
        position = found.end()
        if size > _MAX_VALUE:
            return "".join(parts)[:_MAX_VALUE]
    return "".join(parts) + text[position:]


def _as_seen(variable: Variable, file_directory: PurePath | None) -> str:
    if variable.is_file and file_directory is not None:
        return str(file_directory / variable.key)
    return variable.value
