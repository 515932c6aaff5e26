"""What somebody asks for: one build of one project config."""

from __future__ import annotations

from dataclasses import dataclass

from smidr_ci.config.loader import LoadedProject
from smidr_ci.trust import Trust

__all__ = ["BuildRequest"]


@dataclass(frozen=True)
class BuildRequest:
    """A project config and how this one build of it shall run."""

    project: LoadedProject
    targets: tuple[str, ...] = ()
    """Instead of the config's own targets, when not empty."""
    customer: str = "default"
    clean: bool = False
    """Carry nothing over from earlier builds but downloads and sstate."""
    fresh: bool = False
    """Go on in no earlier build's directory."""
    clean_image: bool = False
    """Pull or build the builder image again."""
    fetch_only: bool = False
    """Fetch the sources of everything the targets need, and stop."""
    locked: bool = False
    """Refuse a layer that `smidr.lock` does not pin."""
    keep_workspace: bool = False
    """Keep the build directory also after success."""
    requested_by: str = ""
    """Who asked, for history."""
    is_confined: bool = False
    """From a stranger: layers with a `path` must lie below the config's directory."""
    trust: Trust = Trust.TRUSTED
    private_cache_key: str = ""
    """See `Order`."""
    ref: str = ""
    """See `Order`."""

    @property
    def is_trusted(self) -> bool:
        """Whether it may write to the shared caches and see what is the operator's."""
        return self.trust is Trust.TRUSTED
