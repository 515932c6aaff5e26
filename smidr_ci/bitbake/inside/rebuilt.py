"""Why tasks ran again: compares this build's signatures with those that earlier builds left.

Runs after a build in a container of its own, where only its answer can be written. BitBake's own
code reads the signatures, whose format differs between releases (older ones are pickles).
Facts: bb/siggen.py (compare_sigfiles), OE-Core's sstate.bbclass (sstate_eventhandler).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

from .differences import reason_of, task_of
from .signatures import Signature, Signatures

__all__ = ["ANSWER", "explain", "main"]

ANSWER = "rebuilt.jsonl"
_TOPDIR = "/smidr/build"
_SSTATE = "/smidr/sstate"
_SHARED = "/smidr/shared/sstate"
_SECONDS = 15.0
_MAX_COMPARED = 400
_MAX_ROOTS = 200
_MAX_REASONS = 5
_MAX_RECIPES = 5

Compare = Callable[..., List[str]]
Root = Tuple[Signature, Dict[str, Any]]


def main(folder: str, arguments: list[str]) -> int:
    """Arguments: BitBake's folder and when the build began; writes `rebuilt.jsonl` in `folder`."""
    bitbake, began = arguments
    sys.path.insert(0, os.path.join(bitbake, "lib"))
    compare = importlib.import_module("bb.siggen").compare_sigfiles
    deadline = time.monotonic() + _SECONDS
    shared = _SHARED if os.path.isdir(_SHARED) else ""
    signatures = Signatures(
        _TOPDIR, _SSTATE, float(began), lambda: time.monotonic() > deadline, shared
    )
    with open(os.path.join(folder, ANSWER), "w", encoding="ascii") as out:
        out.writelines(json.dumps(reason) + "\n" for reason in explain(signatures, compare))
    return 0


def explain(signatures: Signatures, compare: Compare) -> list[dict[str, Any]]:
    """The first reasons, each with the recipes that ran again for it."""
    roots = _roots(signatures, compare)
    roots.sort(key=lambda root: root[0].written)
    return _grouped(roots)[:_MAX_REASONS]


def _roots(signatures: Signatures, compare: Compare) -> list[Root]:
    """Tasks whose own input changed; those that only depend on them are passed through."""
    certain, guessed = signatures.changed()
    todo = certain[::-1]
    seen: set[tuple[str, str, str]] = set()
    known: set[tuple[str, str]] = set()
    roots: list[Root] = []
    while (todo or guessed) and len(seen) < _MAX_COMPARED and len(roots) < _MAX_ROOTS:
        if not todo:
            todo.append(guessed.pop(0))
            if (todo[0][1].hash, todo[0][1].task) in known:
                todo.pop()
                continue
        if signatures.is_late():
            break
        old, new = todo.pop()
        if (old.hash, new.hash, new.task) in seen:
            continue
        seen.add((old.hash, new.hash, new.task))
        known.add((new.hash, new.task))
        below: list[tuple[str, str, str]] = []
        lines = compare(old.path, new.path, recursecb=_collector(below))
        reason = reason_of(lines, new.task)
        if reason is not None:
            roots.append((new, reason))
        for name, before, now in below:
            pair = [signatures.find(digest, task_of(name)) for digest in (before, now)]
            if pair[0] is not None and pair[1] is not None:
                todo.append((pair[0], pair[1]))
    return roots


def _collector(below: list[tuple[str, str, str]]) -> Callable[[str, str, str], None]:
    """Notes tasks whose hash differs instead of comparing them at once, however deep they are."""
    return lambda name, before, now: below.append((name, before, now))


def _grouped(roots: list[Root]) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for signature, reason in roots:
        group = groups.setdefault(
            json.dumps(reason, sort_keys=True),
            {**reason, "recipe": signature.recipe, "task": signature.task, "recipes": []},
        )
        if signature.recipe not in group["recipes"]:
            group["recipes"].append(signature.recipe)
    for group in groups.values():
        group["recipe_count"] = len(group["recipes"])
        del group["recipes"][_MAX_RECIPES:]
    return list(groups.values())
