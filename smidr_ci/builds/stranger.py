"""What an untrusted build may have of the operator's: settings, logins, proxies, images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from smidr_ci.builds.credentials import credentials_of
from smidr_ci.builds.parallelism import least
from smidr_ci.config.agent import AgentConfig
from smidr_ci.images.guard import ImageGuard
from smidr_ci.layers.credentials import Credentials
from smidr_ci.trust import Trust

__all__ = ["SCHEMES", "image_guard", "logins_for", "settings_for", "without_logins"]

SCHEMES: Final = ("https", "http", "git", "ssh")
"""Of the URLs of a stranger's layers: no file of this host."""


def settings_for(agent: AgentConfig, trust: Trust) -> AgentConfig:
    """The operator's settings as a build of this trust goes by them."""
    if trust is Trust.TRUSTED:
        return agent
    rules, limits, engine = agent.trust, agent.limits, agent.engine
    narrowed = {
        "cpus_per_build": least(rules.untrusted_cpus, limits.cpus_per_build),
        "memory_per_build": least(rules.untrusted_memory, limits.memory_per_build),
    }
    network = {"network": rules.untrusted_network or engine.network}
    return agent.model_copy(
        update={
            "environment": (),
            "limits": limits.model_copy(update=narrowed),
            "engine": engine.model_copy(update=network),
        }
    )


def logins_for(agent: AgentConfig, environ: Mapping[str, str]) -> Credentials:
    """What git may show of the operator's for a stranger's layers: as a rule nothing.

    Never the netrc and ssh keys of whoever runs smidr.
    """
    allowed = set(agent.trust.untrusted_may_use_credentials)
    every = credentials_of(agent.git, environ)
    return Credentials(hosts=tuple(entry for entry in every.hosts if entry.host in allowed))


def image_guard(agent: AgentConfig) -> ImageGuard:
    """What a stranger's config may do with images."""
    allowed = frozenset(agent.trust.untrusted_may_use_credentials)
    return ImageGuard(agent.trust.knows_image, allowed.__contains__)


def without_logins(proxies: Mapping[str, str]) -> dict[str, str]:
    """Proxies without user and password; one that can't be read is left out."""
    found = {}
    for name, value in proxies.items():
        if name.lower() == "no_proxy" or "@" not in value:
            found[name] = value
            continue
        try:
            parts = urlsplit(value)
        except ValueError:
            continue
        if parts.netloc:  # without a scheme there is no telling where a password ends
            place = parts.netloc.rpartition("@")[2]
            found[name] = urlunsplit(parts._replace(netloc=place))
    return found
