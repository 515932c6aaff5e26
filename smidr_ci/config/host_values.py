"""The types of single values that only `agent.yaml` has."""

from __future__ import annotations

from typing import Annotated

from smidr_ci.config.matching import Matching

__all__ = ["BuilderUser", "Variable"]

Variable = Annotated[str, Matching("name", "[A-Za-z_][A-Za-z0-9_]{0,127}", "a variable's name")]
BuilderUser = Annotated[
    str,
    Matching(
        "uid:gid or user",
        "[1-9][0-9]{0,9}(:[0-9]{1,10})?|[a-z_][a-z0-9_-]{0,31}",
        "the name of a user or uid:gid in numbers, and not root",
        refused="^root$",
    ),
]
