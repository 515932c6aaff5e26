"""Tries a line against the rules and takes the message out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from smidr_ci.diagnosis.frames import Head, head_of, is_frame_message
from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.reader import Hit
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where
from smidr_ci.diagnosis.rules.catalogue import candidates

__all__ = [
    "ECHO_RULE",
    "FRAME_RULE",
    "MESSAGE_RULE",
    "NAMED_RULE",
    "PARSE_RULE",
    "RETRY_RULE",
    "Matched",
    "best_match",
    "plain",
]

MESSAGE_RULE: Final = Rule(
    "bitbake-message",
    Category.OTHER,
    r"",
    (),
    Weight.LIKELY + 2,
    hint="The recipe or class says why the task stops.",
    by_task=True,
)
ECHO_RULE: Final = Rule(
    "bitbake-echo",
    Category.OTHER,
    r"",
    (),
    Weight.ECHO,
    hint="The first error is above this line, in the task's log.",
    by_task=True,
    cause_visible=False,
)
FRAME_RULE: Final = Rule(
    "bitbake-frame",
    Category.OTHER,
    r"",
    (),
    Weight.FRAME,
    hint="The text does not hold the cause.",
    by_task=True,
    cause_visible=False,
)
NAMED_RULE: Final = replace(FRAME_RULE, name="bitbake-task-failed", weight=Weight.FRAME - 5)
RETRY_RULE: Final = Rule(
    "server-retry",
    Category.SERVER,
    r"",
    (),
    Weight.LIKELY,
    hint="BitBake's server does not answer: another BitBake holds the build directory, or the "
    "server died. See bitbake-cookerdaemon.log there, and remove a stale bitbake.lock.",
    retryable=True,
    cause_visible=False,
)
PARSE_RULE: Final = Rule(
    "parse-message",
    Category.PARSE_ERROR,
    r"",
    (),
    Weight.LIKELY + 2,
    hint="Code of this recipe or of a class it inherits refuses to be parsed; the line says why.",
    stands_alone=True,
)


@dataclass(frozen=True, slots=True)
class Matched:
    """A rule that applies, and the line that it makes the message."""

    rule: Rule
    weight: int
    message: str
    groups: Mapping[str, str]
    number: int
    offset: int


def plain(rule: Rule, hit: Hit, *, skip_head: bool = False) -> Matched:
    """The line itself as message of a rule that needs no match; or the next, if it is empty."""
    if skip_head:
        for near in hit.after(2):
            if near.text.body.strip() and not head_of(near.text.body):
                return Matched(rule, rule.weight, near.text.shown, {}, near.number, near.offset)
    return Matched(rule, rule.weight, hit.text.shown, {}, hit.number, hit.offset)


def best_match(hit: Hit, head: Head | None, task: str | None) -> Matched | None:
    """The weightiest rule for the line; of equals the first in the catalogue."""
    body = hit.text.body
    best, groups = _best_rule(body, head, task)
    is_message = not hit.text.in_block and head is not None and head.level in _LOUD
    if head and is_message and (best is None or best.is_generic):
        wrapped = _best_unwrapped(hit, head, task)
        if wrapped is not None:
            return wrapped
    if best is None:
        return None
    known = {name: value for name, value in groups.items() if value}
    if not hit.is_complete:
        # The log was cut in this line: what reaches its end may be half a name.
        known = {name: value for name, value in known.items() if not body.endswith(value)}
    if best.beside is not None:
        known |= _beside(best, hit)
    return _with_next_line(best, hit, known)


_LOUD: Final = frozenset({"ERROR", "WARNING"})
_Groups = Mapping[str, str | None]


def _best_rule(body: str, head: Head | None, task: str | None) -> tuple[Rule | None, _Groups]:
    best: Rule | None = None
    groups: _Groups = {}
    for rule in candidates(body):
        if best is not None and not _is_better(rule, best, task):
            continue
        if rule.tasks and not (_is_task(task, rule.tasks) if task else not rule.needs_task):
            continue
        text = _text_for(rule, body, head)
        if text is not None and (match := rule.regex.search(text)):
            best, groups = rule, match.groupdict()
    return best, groups


def _text_for(rule: Rule, body: str, head: Head | None) -> str | None:
    """What of the line the rule may look at: the message, all of it, or nothing."""
    if head is None:
        return None if rule.where is Where.MESSAGE else body
    if head.level == "OUTPUT":
        return head.message
    if rule.where is Where.OUTPUT:
        return None if head.task else body
    return head.message


def _best_unwrapped(hit: Hit, head: Head, task: str | None) -> Matched | None:
    """Mails and terminals break long messages: try again with the next lines joined on."""
    if is_frame_message(head.message):
        return None
    message = head.message
    for near in hit.after(2):
        if head_of(near.text.body) or not near.text.body:
            return None
        message = f"{message} {near.text.body.strip()}"
        rule, groups = _best_rule(message, replace(head, message=message, task="do_"), task)
        if rule is None or rule.is_generic:
            continue
        known = {name: value for name, value in groups.items() if value}
        if rule.regex.search(near.text.body):
            return Matched(rule, rule.weight, near.text.shown, known, near.number, near.offset)
        return Matched(rule, rule.weight, hit.text.shown, known, hit.number, hit.offset)
    return None


def _is_better(rule: Rule, best: Rule, task: str | None) -> bool:
    if rule.is_generic != best.is_generic:
        return best.is_generic
    # A rule for certain tasks is only a guess while the task is unknown.
    is_guess, was_guess = bool(rule.tasks and not task), bool(best.tasks and not task)
    if is_guess != was_guess:
        return was_guess
    return rule.weight > best.weight


def _beside(rule: Rule, hit: Hit) -> dict[str, str]:
    for near in hit.after(rule.next_within):
        if near.is_complete and rule.beside and (match := rule.beside.search(near.text.body)):
            return {name: value for name, value in match.groupdict().items() if value}
    return {}


def _is_task(task: str, prefixes: tuple[str, ...]) -> bool:
    return task.startswith(prefixes) or ("setscene" in prefixes and task.endswith("_setscene"))


def _with_next_line(rule: Rule, hit: Hit, groups: Mapping[str, str]) -> Matched:
    shown = hit.text.shown
    if rule.follow is not None:
        for near in hit.after(rule.next_within):
            text = near.text.body
            if (head := head_of(text)) and not near.text.in_block:
                # Some lists come as one ERROR a line, their items indented.
                if not head.message.startswith(" "):
                    break
                text = head.message
            if match := rule.follow.search(text):
                found = {name: value for name, value in match.groupdict().items() if value}
                if not near.is_complete:
                    found = {}
                message = near.text.shown
                return Matched(
                    rule, rule.weight, message, {**groups, **found}, near.number, near.offset
                )
    return Matched(rule, rule.weight, shown, groups, hit.number, hit.offset)
