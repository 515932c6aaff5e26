"""The part of `agent.yaml` that says what hosts share of their caches, and how."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from smidr_ci.config.base import MisfitError
from smidr_ci.config.stores import StoreAccess, StoreSettings, WebUrl
from smidr_ci.config.values import Flag

__all__ = ["SharedCaches"]


class SharedCaches(StoreAccess):
    """A store that hosts share: builds read sstate and downloads from it, agents upload theirs."""

    upload: Flag = True
    """Whether the agent uploads what trusted builds made and downloaded. Without, it only reads."""
    downloads: Flag = True
    """Whether downloads are shared too, and not sstate alone."""
    repositories: Flag = False
    """Whether trusted builds pack the git repositories that they fetch
    (BB_GENERATE_MIRROR_TARBALLS), which is how these can be shared; it takes time and disk."""
    read_url: WebUrl | None = None
    """Where builds read instead, without login: a cache or CDN before the store."""

    @model_validator(mode="after")
    def _check_repositories(self) -> Self:
        if self.repositories and not self.downloads:
            raise MisfitError(
                "repositories are downloads, which are not shared",
                ("repositories",),
                "Leave out downloads: false.",
            )
        return self

    @property
    def written(self) -> StoreSettings:
        """The store that agents upload to."""
        access = {name: getattr(self, name) for name in StoreAccess.model_fields}
        return StoreSettings.model_construct(**access)

    @property
    def read(self) -> StoreSettings:
        """The store that builds read from."""
        if self.read_url is None:
            return self.written
        return StoreSettings.model_construct(url=self.read_url)
