"""How a registration with GitHub gets its runners: what its `settings` hold of that, checked."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from smidr_ci.errors import ConfigError
from smidr_ci.forges.registration import Registration

__all__ = ["Mode", "RunnerOptions", "check_labels", "check_scale_set"]

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/=:-]{0,99}", re.ASCII)
_SCALE_SET: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_MOST_LABELS: Final = 50
_ARCHITECTURES: Final = {"x86_64": "X64", "aarch64": "ARM64", "armv7l": "ARM"}
_GENERIC: Final = frozenset(
    {"self-hosted", "linux", "windows", "macos", "x64", "x86", "arm", "arm64"}
)
"""Labels that any self-hosted runner has: a job that asks for nothing else is not meant for us."""


class Mode(StrEnum):
    """Who brings the runners."""

    ATTACH = "attach"
    """The operator: official runners that run on this host as services."""
    JIT = "jit"
    """The agent, for each waiting job that it finds in GitHub's lists."""
    SCALE_SET = "scale-set"
    """The agent, as many as GitHub says at the queue of a scale set."""


@dataclass(frozen=True)
class RunnerOptions:
    """Of one registration."""

    mode: Mode = Mode.ATTACH
    labels: tuple[str, ...] = ()
    """What jobs ask for in `runs-on`, besides what every runner has."""
    scale_set: str = ""
    """Its name, which is what jobs ask for."""
    group: str = ""
    """An organisation's runner group by name; empty for the default one."""

    @classmethod
    def of(cls, registration: Registration) -> RunnerOptions:
        """Those of a registration; raises `ConfigError`."""
        found: Mapping[str, Any] = registration.settings
        mode, labels = found.get("mode") or Mode.ATTACH, found.get("labels") or ()
        name, group = found.get("scale_set") or "", found.get("runner_group") or ""
        where = f"registration {registration.name}"
        is_typed = isinstance(name, str) and isinstance(group, str)
        if mode not in set(Mode) or not is_typed or not isinstance(labels, list | tuple):
            raise ConfigError(
                "mode, labels, scale_set and runner_group don't fit together",
                where=where,
                hint="Register again with 'smidr runner register --forge github'.",
            )
        made = cls(Mode(mode), tuple(check_labels(labels, where)), name, group)
        if made.mode is Mode.SCALE_SET:
            check_scale_set(made.scale_set, where)
        if made.mode is Mode.JIT and not made.labels:
            raise ConfigError("has no labels that jobs could ask for", where=where)
        return made

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Those that a JIT runner gets: GitHub adds none by itself."""
        own = ("self-hosted", "Linux", _ARCHITECTURES.get(platform.machine(), "X64"))
        known = {label.lower() for label in own}
        return (*own, *(label for label in self.labels if label.lower() not in known))

    def takes(self, wanted: Iterable[str]) -> bool:
        """Whether a job that asks for these labels is for this host.

        GitHub gives a job to any runner that has all of them; at least one must be ours alone.
        """
        asked = {label.lower() for label in wanted}
        ours = {label.lower() for label in self.all_labels}
        return bool(asked - _GENERIC) and asked <= ours


def check_labels(labels: Iterable[object], where: str) -> list[str]:
    """The labels without repetition; raises `ConfigError` for what GitHub would not take."""
    kept: dict[str, str] = {}
    for label in labels:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise ConfigError(
                f"{str(label)[:80]!r} can't be a label",
                where=where,
                hint="Use up to 100 of letters, digits, '.', '_', '/', '=', ':' and '-'.",
            )
        kept.setdefault(label.lower(), label)
    if len(kept) > _MOST_LABELS:
        raise ConfigError(f"more than {_MOST_LABELS} labels", where=where)
    if kept and not set(kept) - _GENERIC:
        raise ConfigError(
            "every self-hosted runner has these labels: jobs of other hosts would come here",
            where=where,
            hint="Give one that is this host's or pool's own, such as smidr.",
        )
    return list(kept.values())


def check_scale_set(name: str, where: str) -> str:
    """The name; raises `ConfigError` for what can't be one."""
    if not _SCALE_SET.fullmatch(name) or name.lower() in _GENERIC:
        raise ConfigError(
            f"{name[:80]!r} can't be a scale set's name",
            where=where,
            hint="Use up to 63 of letters, digits, '.', '_' and '-', such as smidr-lab1.",
        )
    return name
