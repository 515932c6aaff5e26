"""What of the host's environment a build sees: proxies, the operator's list, the config's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig

__all__ = ["build_environment"]

_PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


def build_environment(
    config: ProjectConfig, agent: AgentConfig, environ: Mapping[str, str]
) -> dict[str, str]:
    """Names and values for BitBake, and through it for recipes; the config's own win."""
    names = [*_PROXIES, *(name.upper() for name in _PROXIES), *agent.environment]
    found = {name: environ[name] for name in names if environ.get(name)}
    return {**found, **config.environment}
