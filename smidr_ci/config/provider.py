"""`base.provider`: the repositories of BitBake and the core layers, when `layers` has none.

Release names and BitBake's branches: OE-Core's `BB_MIN_VERSION` and the Yocto Project's release
notes. From whinlatter on there is no combined repository (poky) any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from smidr_ci.config.base import MisfitError
from smidr_ci.config.models import LayerEntry, ProjectConfig
from smidr_ci.config.problems import nearest
from smidr_ci.errors import ConfigError

__all__ = ["BITBAKE_BRANCHES", "PROVIDERS", "provider_problem", "with_provider_layers"]

PROVIDERS: Final = ("poky", "oe-core")

BITBAKE_BRANCHES: Final = {
    "dunfell": "1.46",
    "gatesgarth": "1.48",
    "hardknott": "1.50",
    "honister": "1.52",
    "kirkstone": "2.0",
    "langdale": "2.2",
    "mickledore": "2.4",
    "nanbield": "2.6",
    "scarthgap": "2.8",
    "styhead": "2.10",
    "walnascar": "2.12",
    "whinlatter": "2.16",
    "wrynose": "2.18",
    "master": "master",
}
"""BitBake's branch for each release of OE-Core."""

_WITHOUT_POKY: Final = ("whinlatter", "wrynose", "master")
_RELEASE_TAG: Final = re.compile(r"yocto-[0-9][0-9.]*|[a-z]+-[0-9]+\.[0-9.]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class _Repository:
    name: str
    git: str
    mirror: str


_POKY: Final = _Repository(
    "poky", "https://git.yoctoproject.org/poky", "https://github.com/yoctoproject/poky.git"
)
_BITBAKE: Final = _Repository(
    "bitbake",
    "https://git.openembedded.org/bitbake",
    "https://github.com/openembedded/bitbake.git",
)
_CORE: Final = _Repository(
    "openembedded-core",
    "https://git.openembedded.org/openembedded-core",
    "https://github.com/openembedded/openembedded-core.git",
)
_META_YOCTO: Final = _Repository(
    "meta-yocto",
    "https://git.yoctoproject.org/meta-yocto",
    "https://github.com/yoctoproject/meta-yocto.git",
)


def provider_problem(config: ProjectConfig) -> MisfitError | None:
    """What `with_provider_layers` would raise, with the key to blame; None when all is well."""
    try:
        _provided(config)
    except MisfitError as problem:
        return problem
    return None


def with_provider_layers(config: ProjectConfig) -> ProjectConfig:
    """The config with entries in front of `layers` for what the provider supplies.

    Repositories that `layers` names already are left as they are. Raises `ConfigError`.
    """
    try:
        added = _provided(config)
    except MisfitError as problem:
        raise ConfigError(problem.message, hint=problem.hint) from problem
    return config.model_copy(update={"layers": (*added, *config.layers)}) if added else config


def _provided(config: ProjectConfig) -> tuple[LayerEntry, ...]:
    provider = config.base.provider
    if provider is None:
        return ()
    if provider not in PROVIDERS:
        _check_names_a_layer(provider, config)
        return ()
    present = {name for layer in config.layers for name in _names(layer)}
    if "poky" in present or provider in {layer.name for layer in config.layers}:
        return ()
    version = config.base.version or config.yocto_series
    wanted = _repositories(provider, _series(config))
    missing = [repository for repository in wanted if repository.name not in present]
    if missing and version is None:
        raise MisfitError(
            f"provider {provider} needs a version",
            ("base", "provider"),
            "Set yocto_series (such as scarthgap), or base.version.",
        )
    return tuple(_entry(repository, version or "", config) for repository in missing)


def _check_names_a_layer(provider: str, config: ProjectConfig) -> None:
    names = [layer.name for layer in config.layers]
    if provider in names:
        return
    close = nearest(provider, (*PROVIDERS, *names))
    raise MisfitError(
        f"provider {provider} is neither poky nor oe-core nor the name of a layer",
        ("base", "provider"),
        f"Did you mean `{close}`?" if close else f"Layers: {', '.join(names) or 'none'}.",
    )


def _names(layer: LayerEntry) -> tuple[str, str]:
    source = (layer.git or layer.path or "").rstrip("/").removesuffix(".git")
    return layer.name, re.split(r"[/:]", source)[-1]


def _series(config: ProjectConfig) -> str | None:
    """The release, as far as the config tells."""
    known = (config.base.version, config.yocto_series)
    return next((name for name in known if name in BITBAKE_BRANCHES), config.yocto_series)


def _repositories(provider: str, series: str | None) -> tuple[_Repository, ...]:
    if provider == "oe-core":
        return (_BITBAKE, _CORE)
    return (_BITBAKE, _CORE, _META_YOCTO) if series in _WITHOUT_POKY else (_POKY,)


def _entry(repository: _Repository, version: str, config: ProjectConfig) -> LayerEntry:
    return LayerEntry(
        name=repository.name,
        git=repository.git,
        mirrors=(repository.mirror,),
        layers=() if repository is _BITBAKE else None,
        **_ref(repository, version, config),
    )


def _ref(repository: _Repository, version: str, config: ProjectConfig) -> dict[str, str]:
    if _RELEASE_TAG.fullmatch(version) and version not in BITBAKE_BRANCHES:
        return {"tag": version}
    if repository is _POKY and _COMMIT.fullmatch(version):
        return {"commit": version}
    if repository is not _BITBAKE:
        return {"branch": version}
    branch = BITBAKE_BRANCHES.get(_series(config) or "")
    if branch is None:
        raise MisfitError(
            f"which BitBake goes with {version} is not known",
            ("base", "version") if config.base.version else ("yocto_series",),
            "Set yocto_series to a release such as scarthgap, or add a layers entry for bitbake.",
        )
    return {"branch": branch}
