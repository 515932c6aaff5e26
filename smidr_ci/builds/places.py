"""Which host directories a build uses: the project's own choice, the operator's, or the home's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smidr_ci.caches.private import PRIVATE_CACHE
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.loader import LoadedProject
from smidr_ci.errors import ConfigError
from smidr_ci.home import Home
from smidr_ci.trust import Trust

__all__ = ["Places", "places_for", "usual_places"]


@dataclass(frozen=True)
class Places:
    """Absolute host directories; those that are None are not used."""

    layers: Path
    downloads: Path
    sstate: Path
    workspaces: Path
    tmp: Path | None = None
    """Root under which each build gets a TMPDIR of its own."""
    deploy: Path | None = None
    """Root under which each build gets a DEPLOY_DIR of its own."""
    source: Path | None = None
    """Mounted read-only at `/smidr/src`."""
    private: Path | None = None
    """Root under which an untrusted build gets caches of its own."""

    @property
    def written(self) -> tuple[Path, ...]:
        """Where the build writes."""
        fixed = (self.workspaces, self.downloads, self.sstate)
        return (*fixed, *self.private_roots.values())

    @property
    def private_roots(self) -> dict[str, Path]:
        """Roots besides the workspaces' own in which a build gets a private directory."""
        roots = {"tmp": self.tmp, "deploy": self.deploy, PRIVATE_CACHE: self.private}
        return {name: root for name, root in roots.items() if root is not None}


def usual_places(agent: AgentConfig, home: Home) -> Places:
    """Those of builds whose config names none: the operator's choice, else the home's."""
    named = agent.directories
    return Places(
        layers=named.layers or home.layers,
        downloads=named.downloads or home.downloads,
        sstate=named.sstate or home.sstate,
        workspaces=named.workspaces or home.workspaces,
    )


def places_for(
    project: LoadedProject, agent: AgentConfig, home: Home, trust: Trust = Trust.TRUSTED
) -> Places:
    """Resolve `directories`; raises `ConfigError` for a source directory that does not exist."""
    named, usual = project.config.resolved_directories, usual_places(agent, home)

    def own(text: str | None) -> Path | None:
        return None if text is None else project.host_path(text).resolve()

    places = Places(
        layers=own(named.layers) or usual.layers,
        downloads=own(named.downloads) or usual.downloads,
        sstate=own(named.sstate) or usual.sstate,
        workspaces=own(named.build) or usual.workspaces,
        tmp=own(named.tmp),
        deploy=own(named.deploy),
        source=own(named.source),
        private=home.private_caches if trust is Trust.UNTRUSTED else None,
    )
    if places.source is not None and not places.source.is_dir():
        raise ConfigError(
            f"directories.source is no directory: {places.source}",
            where=project.place(("directories", "source")),
            hint="Name a directory that exists, relative to the config.",
        )
    return places
