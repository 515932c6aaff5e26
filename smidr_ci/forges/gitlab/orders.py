"""A job's build becomes an order for a `BuildService`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.builds.order import Order
from smidr_ci.config.reading import read_config_text
from smidr_ci.errors import ConfigError
from smidr_ci.forges.gitlab.context import JobContext
from smidr_ci.forges.gitlab.script import BuildCall
from smidr_ci.forges.gitlab.trust import ref_of, sharing_key
from smidr_ci.trust import Trust

__all__ = ["order_for"]

_USED: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_NOT_IN_CUSTOMER: Final = re.compile(r"[^a-z0-9]+", re.ASCII)
_LONGEST: Final = 48


def order_for(context: JobContext, build: BuildCall, project: Path, trust: Trust) -> Order:
    """The order for a job's build; `project` is its directory. Raises `ConfigError`.

    Of the job's variables the config gets those it names in `${...}`, and BitBake those that
    SMIDR_ENVIRONMENT lists: both end in the build's record, so what is masked is refused.
    """
    path = _config_path(project, build.config)
    text = read_config_text(path, hint_if_missing="Is SMIDR_CONFIG or -c right, and committed?")
    used = sorted(set(_USED.findall(text)) & context.variables.keys())
    listed = context.variables.get("SMIDR_ENVIRONMENT", "").replace(",", " ").split()
    environment = {name: context.variables.get(name, "") for name in listed}
    environment |= dict(build.environment)
    variables = {name: context.variables[name] for name in used}
    _refuse_secrets(context, variables, f"{build.config} uses ${{%s}}")
    _refuse_secrets(context, environment, "BitBake shall get %s")
    return Order(
        customer=context.registration.customer or _customer(context),
        config_text=text,
        config_name=build.config,
        directory=path.parent.resolve(),
        targets=build.targets,
        clean=build.clean,
        clean_image=build.clean_image,
        fetch_only=build.fetch_only,
        locked=build.locked,
        variables=variables,
        environment=environment,
        is_confined=True,
        trust=trust,
        private_cache_key="" if trust is Trust.TRUSTED else _sharing_key(context),
        ref=ref_of(context.job),
        requested_by=f"gitlab {context.registration.name}: {context.title}"[:250],
    )


def _config_path(project: Path, config: str) -> Path:
    parts = PurePosixPath(config).parts
    path = project / config
    try:
        is_inside = path.parent.resolve().is_relative_to(project.resolve())
    except (OSError, RuntimeError, ValueError):
        is_inside = False
    if not parts or ".." in parts or parts[0] == "/" or "\0" in config or not is_inside:
        raise ConfigError(
            "the config must lie in the project's directory",
            where=config[:200] or "SMIDR_CONFIG",
            hint="Give a path relative to the top of the repository.",
        )
    return path / "smidr.yaml" if path.is_dir() else path


def _refuse_secrets(context: JobContext, values: Mapping[str, str], what: str) -> None:
    for name, value in values.items():
        is_secret = name in context.variables.masked_keys
        if is_secret or any(secret in value for secret in context.secrets):
            raise ConfigError(
                f"{what % name}, which holds what is masked in GitLab and would be stored with "
                "the build",
                where="variables",
                hint="Logins for layers belong into git.credentials of the host's agent.yaml.",
            )


def _sharing_key(context: JobContext) -> str:
    return sharing_key(context.job, context.registration.url)


def _customer(context: JobContext) -> str:
    """One per project, from what the server says and a job can't change."""
    info = context.job.info
    name = info.project_path or info.project_name or "gitlab"
    text = _NOT_IN_CUSTOMER.sub("-", name.lower()).strip("-")
    number = f"-{info.project_id}" if info.project_id else ""
    short = text[: _LONGEST - len(number)].strip("-") or "gitlab"
    return f"{short}{number}"
