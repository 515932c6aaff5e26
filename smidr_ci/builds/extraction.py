"""Keep what a build left: from its workspace to the artifact store."""

from __future__ import annotations

from smidr_ci.artifacts.collect import collect
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import ArtifactRecord, BuildState
from smidr_ci.builds.mounts import BUILD, DEPLOY
from smidr_ci.builds.preparation import Preparation
from smidr_ci.errors import BuildFailedError, FailureKind
from smidr_ci.workspaces.model import Workspace

__all__ = ["extract"]


def extract(host: Host, prepared: Preparation, workspace: Workspace, journal: Journal) -> None:
    """Keep what the globs select; raises `BuildFailedError` when an explicit list finds nothing."""
    journal.enter(BuildState.EXTRACTING)
    globs = prepared.config.artifacts
    has_own_deploy = "deploy" in workspace.extra
    manifest = collect(
        workspace.extra["deploy"] if has_own_deploy else workspace.build / "tmp" / "deploy",
        globs,
        host.artifacts_of(journal.record),
        created=host.clock.now(),
        seen_as=DEPLOY if has_own_deploy else BUILD / "tmp" / "deploy",
        # In a workspace that stays, a later build could write to what it shares with the store.
        may_link=not (prepared.request.keep_workspace or workspace.warm_key),
    )
    for item in (*manifest.refused, *manifest.skipped):
        journal.observer.note(f"artifact left out: {item.path}: {item.reason}")
    for glob in manifest.unmatched:
        journal.observer.note(f"artifacts: nothing matches {glob}")
    # The globs describe what the config's own targets leave, not one chosen instead of them.
    if globs and not manifest.artifacts and not prepared.request.targets:
        raise BuildFailedError(
            f"nothing matches `artifacts`: {', '.join(globs)}",
            where=prepared.request.project.place(("artifacts",)),
            hint=f"The globs start at DEPLOY_DIR: `smidr shell --build {journal.record.build_id} --"
            " find tmp/deploy` shows what is there.",
            kind=FailureKind.ARTIFACTS,
        )
    journal.note(
        artifacts=tuple(
            ArtifactRecord(item.path, item.size_bytes, item.sha256) for item in manifest.artifacts
        )
    )
