"""All rules, indexed so that a line is tried only against rules whose needle it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from smidr_ci.diagnosis.rules import (
    configuring,
    core,
    fetching,
    images,
    languages,
    layers,
    machine,
    packaging,
    parsing,
    patching,
    providers,
    tools,
)
from smidr_ci.diagnosis.rules.base import Rule

__all__ = ["RULES", "candidates"]

RULES: Final[tuple[Rule, ...]] = (
    *machine.RULES,
    *core.RULES,
    *layers.RULES,
    *parsing.RULES,
    *providers.RULES,
    *packaging.RULES,
    *patching.RULES,
    *fetching.RULES,
    *images.RULES,
    *configuring.RULES,
    *languages.RULES,
    *tools.RULES,
)

_BY_NEEDLE: Final[dict[str, tuple[Rule, ...]]] = {}
for _rule in RULES:
    for _needle in _rule.needles:
        _BY_NEEDLE[_needle] = (*_BY_NEEDLE.get(_needle, ()), _rule)
_INDEX: Final = tuple(_BY_NEEDLE.items())


def candidates(text: str) -> Iterator[Rule]:
    """Rules that may match the text, each once."""
    seen: set[str] = set()
    for needle, rules in _INDEX:
        if needle in text:
            for rule in rules:
                if rule.name not in seen:
                    seen.add(rule.name)
                    yield rule
