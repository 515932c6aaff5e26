"""The part of `agent.yaml` about what becomes of artifacts."""

from __future__ import annotations

from smidr_ci.config.base import Model
from smidr_ci.config.stores import StoreSettings
from smidr_ci.config.values import Flag

__all__ = ["ArtifactSettings", "ExternalStore"]


class ExternalStore(StoreSettings):
    """Where files go that are too big for GitLab or GitHub; see docs/stores.md."""

    untrusted: Flag = False
    """Whether files of untrusted builds may go there too, below `untrusted/`."""


class ArtifactSettings(Model):
    """What becomes of artifacts that the forge does not take."""

    external_store: ExternalStore | None = None
    """Where files go that are too big for GitLab or GitHub, which then get links to them."""
