"""Whether a workflow's steps build with smidr. Workflows are strangers' text; see `docs/github.md`.

It says which jobs are worth a runner. It keeps nobody out who means to come in: a step can name
our action and never reach it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

from smidr_ci.config.document import Mapping, Node, Scalar
from smidr_ci.config.document import Sequence as Items

__all__ = ["entry", "is_named", "local_action", "runs_smidr", "steps_of", "text_of"]

_MOST_STEPS: Final = 500
_MOST_LINES: Final = 2000
_LONGEST_LINE: Final = 1000
_MOST_PARTS: Final = 20
_SEPARATORS: Final = re.compile(r"[;&|(){}`]|\$\(")
_BEFORE: Final = frozenset({"exec", "sudo", "env", "time", "nice", "command", "then", "do", "!"})
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w{0,99}=")
_PYTHON: Final = re.compile(r"python[\d.]{0,6}")
_NEVER: Final = frozenset({"false", "${{ false }}", "${{false}}"})


def entry(node: Node | None, name: str) -> Node | None:
    """What a mapping has under a key; None for everything else."""
    if not isinstance(node, Mapping):
        return None
    found = node.entries.get(name)
    return found[1] if found is not None else None


def text_of(node: Node | None) -> str:
    """A single value's text; empty for everything else."""
    return node.text.strip() if isinstance(node, Scalar) else ""


def steps_of(node: Node | None) -> Iterator[Mapping]:
    """The steps of a job, or of a composite action's `runs`, but for those that never run."""
    steps = entry(node, "steps")
    if not isinstance(steps, Items):
        return
    for step in steps.items[:_MOST_STEPS]:
        if isinstance(step, Mapping) and text_of(entry(step, "if")).lower() not in _NEVER:
            yield step


def runs_smidr(step: Mapping, actions: Sequence[str]) -> bool:
    """Whether a step uses one of the actions with a config, or runs `smidr ci build`."""
    used = text_of(entry(step, "uses"))
    if used:
        name = used.partition("@")[0].lower()
        is_ours = any(fnmatchcase(name, pattern.lower()) for pattern in actions)
        return is_ours and bool(text_of(entry(entry(step, "with"), "config")))
    return any(map(_builds, _commands(text_of(entry(step, "run")))))


def local_action(step: Mapping) -> str:
    """The directory of the workspace whose action a step uses; empty for all others."""
    used = text_of(entry(step, "uses"))
    return used.removeprefix("./").strip("/") if used.startswith("./") else ""


def _commands(script: str) -> Iterator[list[str]]:
    """The words of each command, roughly as a shell would see them."""
    joined = script.replace("\\\n", " ")
    for line in joined.splitlines()[:_MOST_LINES]:
        for part in _SEPARATORS.split(line[:_LONGEST_LINE]):
            words = part.split()
            comment = next((at for at, word in enumerate(words) if word.startswith("#")), None)
            if words[:comment]:
                yield words[:comment]


def _builds(words: list[str]) -> bool:
    rest = list(words)
    while rest and (rest[0] in _BEFORE or _VARIABLE.match(rest[0])):
        rest.pop(0)
    if not rest:
        return False
    program = rest.pop(0).strip("\"'").rpartition("/")[2]
    if _PYTHON.fullmatch(program) and rest[:2] == ["-m", "smidr_ci"]:
        program, rest = "smidr", rest[2:]
    plain = [word for word in rest if not word.startswith("-")]
    return program == "smidr" and (plain[:2] == ["ci", "build"] or plain[:1] == ["build"])


def is_named(job_id: str, job: Mapping, shown: str) -> bool:
    """Whether GitHub may show a job of the workflow under this name.

    Expressions in the name may be anything; a matrix adds its values in parentheses.
    """
    template = text_of(entry(job, "name")) or job_id
    parts = _fixed_parts(template)
    if _fits(parts, shown):
        return True
    has_matrix = entry(entry(job, "strategy"), "matrix") is not None
    return has_matrix and shown.endswith(")") and _fits([*parts[:-1], f"{parts[-1]} (", ")"], shown)


def _fixed_parts(template: str) -> list[str]:
    """The text around the expressions `${{ ... }}`."""
    parts: list[str] = []
    rest = template
    while len(parts) < _MOST_PARTS and "${{" in rest:
        before, _, after = rest.partition("${{")
        parts.append(before)
        rest = after.partition("}}")[2]
    return [*parts, rest.partition("${{")[0]]


def _fits(parts: list[str], text: str) -> bool:
    """Whether the text is the parts in order, with anything between two; in linear time."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return text == first
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    if not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in parts[1:-1]:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
