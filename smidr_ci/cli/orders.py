"""What a client sends: the config with what belongs to it, near or far."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from smidr_ci.api.client import StartRequest
from smidr_ci.api.packing import make_bundle
from smidr_ci.cli.build_options import ref_of
from smidr_ci.cli.on_agent import for_strangers, variables_in
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.loader import LoadedProject, load_project

__all__ = ["make_request"]


def make_request(
    config_path: Path,
    customer: str,
    targets: tuple[str, ...],
    given: Mapping[str, str],
    *,
    clean: bool,
    fresh: bool = False,
    clean_image: bool,
    is_local: bool,
    is_untrusted: bool = False,
) -> StartRequest:
    """Read the config here, with these variables, so that its faults show before it travels.

    An agent of this user on this host reads the layers where they are; to any other they are sent.
    Raises `ConfigError`, and `UsageError` for what can't travel.
    """
    environ = {**os.environ, **given}
    operator = AgentConfig(substitution=tuple(given))
    project = load_project(config_path, environ=environ, operator=operator)
    return StartRequest(
        customer=customer,
        config_text=project.text,
        config_name=str(config_path.absolute()) if is_local else config_path.name,
        targets=targets,
        clean=clean,
        fresh=fresh,
        ref=ref_of(os.environ),
        clean_image=clean_image,
        is_untrusted=is_untrusted,
        variables=_variables(project, environ, given, is_ours=is_local and not is_untrusted),
        environment=given,
        bundle=b"" if is_local else make_bundle(project),
        directory=project.directory if is_local else None,
    )


def _variables(
    project: LoadedProject,
    environ: Mapping[str, str],
    given: Mapping[str, str],
    *,
    is_ours: bool,
) -> dict[str, str]:
    found = variables_in(project.text, environ)
    # Nothing of ours leaves this host but what the config's own prefixes ask for.
    return {**(found if is_ours else for_strangers(found)), **given}
