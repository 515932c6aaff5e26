"""The config as builds use it: variables put in, older names moved, the provider's layers added."""

from __future__ import annotations

import yaml

from smidr_ci.config.loader import LoadedProject
from smidr_ci.config.models import Build, ProjectConfig
from smidr_ci.config.provider import with_provider_layers

__all__ = ["resolved_config", "resolved_yaml"]

_OLDER = ("sstate", "tmp", "deploy", "package_classes", "extra_image_features", "inherit_classes")


def resolved_config(config: ProjectConfig) -> ProjectConfig:
    """The same config with every setting under its one proper name; raises `ConfigError`."""
    config = with_provider_layers(config)
    unset = {key: Build.model_fields[key].default for key in (*_OLDER, "machine")}
    features = {
        "extra_image_features": config.image_features,
        "inherit_classes": config.inherit_classes,
    }
    return config.model_copy(
        update={
            "base": config.base.model_copy(update={"machine": config.resolved_machine}),
            "build": config.build.model_copy(update=unset),
            "directories": config.resolved_directories,
            "packages": config.packages.model_copy(update={"classes": config.package_classes}),
            "features": config.features.model_copy(update=features),
        }
    )


def resolved_yaml(loaded: LoadedProject) -> str:
    """The resolved config as YAML that can be loaded again; keys without a value are left out."""
    config = resolved_config(loaded.config)
    older = {"build": {*_OLDER, "machine"}}
    plain = config.model_dump(mode="json", exclude_none=True, exclude=older)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1 << 16)
    return f"# {loaded.path.name} as it is used\n{text}"
