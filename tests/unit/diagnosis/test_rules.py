from __future__ import annotations

import time
from collections import Counter, defaultdict

import pytest

from smidr_ci.diagnosis.reader import NEEDLES, RARE_NEEDLES
from smidr_ci.diagnosis.rules.base import Rule
from smidr_ci.diagnosis.rules.catalogue import RULES, candidates

_HOSTILE = [
    "/a" * 3000, "a:" * 3000, " " * 6000, "undefined reference to " * 260, "file conflicts " * 400,
    "../" * 2000, "-" * 6000, "0" * 6000, "[" * 6000, "'" * 6000, "(a, " * 1500, "x.c:1:" * 1000,
    "/work/a/b/1/" * 500, "sstate failed " * 460, "ERROR: " * 850,
]  # fmt: skip


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(rule.name for rule in RULES).items() if count > 1] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_hint_uses_only_groups_of_its_pattern(rule: Rule) -> None:
    known = set(rule.regex.groupindex)
    known |= set(rule.follow.groupindex) if rule.follow else set()
    known |= set(rule.beside.groupindex) if rule.beside else set()
    text = rule.hint.format_map(defaultdict(str, dict.fromkeys(known, "x")))
    asked: set[str] = set()

    class Asked(defaultdict[str, str]):
        def __missing__(self, key: str) -> str:
            asked.add(key)
            return ""

    rule.hint.format_map(Asked())
    assert asked <= known
    assert text
    assert text[-1] in ".;"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_hostile_line_costs_little_time(rule: Rule) -> None:
    begun = time.process_time()
    for text in _HOSTILE:
        rule.regex.search(text)
    assert time.process_time() - begun < 2


def test_a_rule_is_tried_only_on_lines_that_hold_a_needle_of_it() -> None:
    assert "disk-full" in {rule.name for rule in candidates("No space left on device")}
    assert "disk-full" not in {rule.name for rule in candidates("all is well")}


def test_no_search_word_of_the_reader_is_empty_or_double() -> None:
    words = [*NEEDLES, *RARE_NEEDLES]
    assert all(words)
    assert len(set(words)) == len(words)
