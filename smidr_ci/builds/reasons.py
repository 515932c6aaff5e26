"""Reasons why tasks ran again, as a stranger's container wrote them and as a sentence.

A reason: `recipe` and `task` whose own input changed first, `kind` (file, variable, code, task,
dependencies, forced), `name`, `how` (added, removed), `old` and `new` or `text` (what differs),
`others` (further differences), `recipes` (some that ran again for it) and `recipe_count`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from smidr_ci.files import open_untrusted
from smidr_ci.text import printable

__all__ = ["read_reasons", "reason_sentence"]

_MAX_BYTES: Final = 64 * 1024
_MAX_REASONS: Final = 5
_MAX_RECIPES: Final = 5
_MAX_TEXT: Final = 600
_MAX_COUNT: Final = 1_000_000
_SHOWN: Final = 120
_TEXTS: Final = ("recipe", "task", "kind", "name", "how", "old", "new", "text")
_NEEDED: Final = ("recipe", "task", "kind")
_SECRET: Final = re.compile(r"token|secret|passw|credential|private|api_?key", re.IGNORECASE)
_LAYERS: Final = re.compile(r"^(?:/smidr/layers/|\./)")


def read_reasons(path: Path) -> tuple[Mapping[str, Any], ...]:
    """What the file says, as far as it makes sense; values of secret variables are left out.

    Raises `OSError`.
    """
    with open_untrusted(path) as file:
        lines = file.read(_MAX_BYTES).splitlines()
    found = (_reason(line) for line in lines)
    return tuple(reason for reason in found if reason is not None)[:_MAX_REASONS]


def _reason(line: bytes) -> Mapping[str, Any] | None:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    reason: dict[str, Any] = {
        name: _text(raw[name]) for name in _TEXTS if isinstance(raw.get(name), str)
    }
    if not all(reason.get(name) for name in _NEEDED):
        return None
    if _SECRET.search(reason.get("name", "")):
        reason = {key: reason[key] for key in reason if key not in {"old", "new", "text"}}
    recipes = raw.get("recipes")
    names = [_text(item) for item in recipes if isinstance(item, str)] if recipes else []
    reason["recipes"] = names[:_MAX_RECIPES] or [reason["recipe"]]
    reason["recipe_count"] = max(_count(raw.get("recipe_count")), len(reason["recipes"]))
    reason["others"] = _count(raw.get("others"))
    return reason


def _text(value: str) -> str:
    return printable(value[:_MAX_TEXT], keep_newlines=True)


def _count(value: object) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return min(max(value, 0), _MAX_COUNT) if is_count and isinstance(value, int) else 0


def reason_sentence(reason: Mapping[str, Any]) -> str:
    """Such as `hello:do_fetch, because file hello.c changed`, on one line."""
    others = reason["recipe_count"] - len(reason["recipes"])
    more = [f"and {others} more"] if others > 0 else []
    recipes = [name for name in reason["recipes"] if name != reason["recipe"]]
    who = ", ".join([f"{reason['recipe']}:{reason['task']}", *recipes, *more])
    also = f" (and {reason['others']} more differences)" if reason["others"] else ""
    return printable(f"{who}, because {_what(reason)}{also}")


def _what(reason: Mapping[str, Any]) -> str:
    kind, name, how = reason["kind"], reason.get("name", ""), reason.get("how", "")
    if how:
        return f"{_NOUNS.get(kind, kind)} {_LAYERS.sub('', name)} was {how}"
    if kind == "code":
        return f"the code of {name} changed{_words(reason)}"
    if kind == "variable":
        if "old" in reason and "new" in reason:
            old, new = (_clip(reason[side]) for side in ("old", "new"))
            return f"variable {name} changed from '{old}' to '{new}'"
        return f"variable {name} changed{_words(reason)}"
    if kind == "file":
        return f"file {_LAYERS.sub('', name)} changed"
    return _OTHER.get(kind, f"{kind} {name} changed")


def _words(reason: Mapping[str, Any]) -> str:
    """The lines that differ of a text, or its words, as BitBake marks them."""
    text = reason.get("text", "").strip()
    if "\n" in text:
        changed = [line for line in text.splitlines() if re.match(r"[+-](?![+-]{2})", line)]
        text = "; ".join(" ".join(line.split()) for line in changed)
    return f": {_clip(text)}" if text else ""


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_NOUNS: Final = MappingProxyType(
    {"file": "file", "variable": "the use of variable", "task": "the dependency on"}
)
_OTHER: Final = MappingProxyType(
    {
        "dependencies": "it depends on other variables now",
        "forced": "it was forced, or always runs (nostamp)",
    }
)
