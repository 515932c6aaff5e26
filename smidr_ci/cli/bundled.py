"""A project config with all that an agent elsewhere needs to build it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smidr_ci.api.packing import make_bundle
from smidr_ci.cli.on_agent import variables_in
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.loader import load_project

__all__ = ["Bundled", "bundled"]


@dataclass(frozen=True)
class Bundled:
    """What travels."""

    text: str
    variables: Mapping[str, str]
    bundle: bytes


def bundled(config_path: Path, given: Mapping[str, str]) -> Bundled:
    """Read the config here, with these variables and our environment, and pack what it names.

    Raises `ConfigError`, and `UsageError` for what can't travel.
    """
    environ = {**os.environ, **given}
    operator = AgentConfig(substitution=tuple(given))
    project = load_project(config_path, environ=environ, operator=operator)
    variables = {
        name: value
        for name, value in variables_in(project.text, environ).items()
        if name in given or name.startswith(("YOCTO_", "SMIDR_"))
    }
    return Bundled(project.text, variables, make_bundle(project))
