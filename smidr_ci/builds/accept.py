"""From an order, which is a stranger's text, to a request that may be built."""

from __future__ import annotations

from typing import Any

from smidr_ci.builds.host import Host
from smidr_ci.builds.order import Order
from smidr_ci.builds.request import BuildRequest
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.confinement import stranger_problems
from smidr_ci.config.loader import load_project_text
from smidr_ci.config.problems import ConfigProblemsError
from smidr_ci.config.reading import misfit_problems
from smidr_ci.trust import Trust

__all__ = ["request_for"]


def request_for(host: Host, order: Order) -> BuildRequest:
    """Read and check the order's config as this host allows it; raises `ConfigError`.

    A confined one may not lead out of `directory`, nor choose where the host keeps things. An
    untrusted one makes no image anew and keeps no workspace: other builds would feel it.
    """
    project = load_project_text(
        order.config_text,
        order.config_name,
        directory=order.directory,
        environ=order.variables,
        operator=_as_allowed(host.agent, order),
        extra_environment=order.environment,
    )
    is_confined, is_trusted = _is_confined(order), order.trust is Trust.TRUSTED
    misfits = list(stranger_problems(project.config)) if is_confined else []
    if misfits:
        raise ConfigProblemsError(misfit_problems(misfits, project.source))
    return BuildRequest(
        project=project,
        targets=order.targets,
        customer=order.customer,
        clean=order.clean,
        fresh=order.fresh,
        clean_image=order.clean_image and is_trusted,
        fetch_only=order.fetch_only,
        locked=order.locked,
        keep_workspace=order.keep_workspace and is_trusted,
        requested_by=order.requested_by,
        is_confined=is_confined,
        trust=order.trust,
        private_cache_key=order.private_cache_key,
        ref=order.ref,
    )


def _is_confined(order: Order) -> bool:
    return order.is_confined or order.trust is Trust.UNTRUSTED


def _as_allowed(agent: AgentConfig, order: Order) -> AgentConfig:
    """The operator's settings for this order's config.

    A stranger may name any variable, since they are all the stranger's own.
    """
    if not _is_confined(order):
        asked = (*agent.substitution, *order.environment)
        return agent.model_copy(update={"substitution": asked})
    changes: dict[str, Any] = {
        "substitution": tuple(order.variables),
        "allow_config_directories": False,
    }
    return agent.model_copy(update=changes)
