"""What of the host's environment a build sees: proxies, the operator's list, the config's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from smidr_ci.builds.stranger import without_logins
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig
from smidr_ci.trust import Trust

__all__ = ["build_environment"]

_PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


def build_environment(
    config: ProjectConfig,
    agent: AgentConfig,
    environ: Mapping[str, str],
    trust: Trust = Trust.TRUSTED,
) -> dict[str, str]:
    """Names and values for BitBake, and through it for recipes; the config's own win.

    A stranger gets the proxies without logins, and nothing of the operator's list.
    """
    proxies = _of(environ, (*_PROXIES, *(name.upper() for name in _PROXIES)))
    if trust is Trust.UNTRUSTED:
        return {**without_logins(proxies), **config.environment}
    return {**proxies, **_of(environ, agent.environment), **config.environment}


def _of(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: environ[name] for name in names if environ.get(name)}
