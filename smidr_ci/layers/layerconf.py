"""Reads what `conf/layer.conf` says of a layer, as text: nothing in it is run.

BitBake's assignments and appends are followed, `${VAR}` of the same file is put in; inline Python
can't be, so a value that needs it counts as not said.
"""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.layers.model import FoundLayer

__all__ = ["CORE_NAMES", "parse_layer_conf"]

CORE_NAMES: Final = "${LAYERSERIES_CORENAMES}"
"""Stands in `FoundLayer.series` when a layer says that it fits whatever the core is."""

_ASSIGNMENT: Final = re.compile(
    r"(?:export\s+)?(?P<name>[A-Za-z0-9_.+${}-]+?)(?P<late>[:_](?:append|prepend))?\s*"
    r"(?P<op>\?\?=|\?=|:=|\+=|=\+|\.=|=\.|=)\s*(?P<quote>[\"'])(?P<value>.*)(?P=quote)\s*",
    re.DOTALL,
)
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z0-9_.+-]+)\}")
_VERSION: Final = re.compile(r"\([^)]*\)")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_MAX_DEPTH: Final = 8
_MAX_VALUE: Final = 64 * 1024


def parse_layer_conf(text: str, path: str) -> tuple[FoundLayer, ...]:
    """One `FoundLayer` for each collection that the file names; `path` is the layer's folder."""
    values = _read(text)
    core_series = _words(values.get("LAYERSERIES_CORENAMES", ""))
    names = dict.fromkeys(_words(_expand(values.get("BBFILE_COLLECTIONS", ""), values)))
    found = []
    for name in names:

        def said(variable: str, name: str = name) -> str:
            return _expand(values.get(f"{variable}_{name}", ""), values)

        priority = said("BBFILE_PRIORITY").strip()
        found.append(
            FoundLayer(
                collection=name,
                path=path,
                priority=int(priority) if re.fullmatch(r"-?[0-9]{1,6}", priority) else 0,
                depends=_dependencies(said("LAYERDEPENDS")),
                series=_series(said("LAYERSERIES_COMPAT")),
                recommends=_dependencies(said("LAYERRECOMMENDS")),
                core_series=core_series,
            )
        )
    return tuple(found)


def _read(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    late: list[tuple[str, str, str]] = []
    for line in _logical_lines(text):
        found = _ASSIGNMENT.fullmatch(line)
        if found is None:
            continue
        name, value = _expand(found["name"], values), found["value"]
        if found["late"]:
            late.append((name, found["late"][1:], value))
        else:
            values[name] = _assign(values.get(name), found["op"], value)[:_MAX_VALUE]
    for name, kind, value in late:
        old = values.get(name, "")
        values[name] = (old + value if kind == "append" else value + old)[:_MAX_VALUE]
    return values


def _logical_lines(text: str) -> list[str]:
    lines: list[str] = []
    parts: list[str] = []
    for line in text.splitlines():
        if not parts and line.lstrip().startswith("#"):
            continue
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        lines.append("".join([*parts, line]).strip())
        parts = []
    return lines


def _assign(old: str | None, operator: str, value: str) -> str:
    if operator in {"?=", "??="}:
        return value if old is None else old
    if operator == "+=":
        return f"{old or ''} {value}"
    if operator == "=+":
        return f"{value} {old or ''}"
    if operator == ".=":
        return (old or "") + value
    if operator == "=.":
        return value + (old or "")
    return value


def _expand(value: str, values: dict[str, str], depth: int = 0) -> str:
    def put_in(found: re.Match[str]) -> str:
        name = found[1]
        if name in values and depth < _MAX_DEPTH:
            return _expand(values[name], values, depth + 1)
        return CORE_NAMES if found[0] == CORE_NAMES else ""

    return _REFERENCE.sub(put_in, value)[:_MAX_VALUE]


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for word in value.split() if _WORD.fullmatch(word))


def _series(value: str) -> tuple[str, ...]:
    if "${@" in value:
        return ()
    return tuple(w for w in value.split() if w == CORE_NAMES or _WORD.fullmatch(w))


def _dependencies(value: str) -> tuple[str, ...]:
    # "core (>= 12) openembedded-layer:1": a version stands in brackets or, long ago, after a colon.
    plain = _VERSION.sub(" ", value.split("${@", 1)[0])
    return _words(" ".join(word.split(":", 1)[0] for word in plain.split()))
