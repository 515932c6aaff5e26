"""Hand a failed build's files to diagnosis, and keep the logs of the tasks that failed."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.execute import Execution
from smidr_ci.builds.preparation import Preparation
from smidr_ci.cancel import CancelToken
from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.diagnosis.model import Diagnosis, DiagnosisContext, LayerMount
from smidr_ci.files import open_untrusted
from smidr_ci.workspaces.model import Workspace

__all__ = ["diagnose_build"]

_TOPDIR: Final = PurePosixPath("/smidr/build")
_LOGS_KEPT: Final = 50
_LOG_BYTES: Final = 16 * 1024 * 1024


def diagnose_build(
    prepared: Preparation,
    workspace: Workspace,
    control: Path,
    execution: Execution,
    cancel: CancelToken,
) -> Diagnosis:
    """Findings of a build that did not succeed; the failed tasks' logs go beside `control`."""
    failures = (failure.logfile for failure in execution.progress.failures if failure.logfile)
    logs = list(_keep_logs(failures, workspace, control.parent / "logs"))
    result = execution.result
    context = DiagnosisContext(
        layers=tuple(_mounts(prepared)),
        targets=prepared.targets,
        exit_code=execution.exit.code if result is None else result.exit_code,
        oom_kills=max(result.oom_kills if result else 0, int(execution.exit.oom_killed)),
        timed_out=bool(result and result.timed_out),
        cancelled=cancel.is_cancelled,
    )
    console, events = (control / CONTROL_FILES[name] for name in ("console", "events"))
    return diagnose(
        # A driver that did not come to start wrote neither.
        console if console.exists() else io.BytesIO(),
        events=events if events.exists() else None,
        task_logs=logs,
        context=context,
    )


def _mounts(prepared: Preparation) -> Iterator[LayerMount]:
    for tree in prepared.layers.trees:
        yield LayerMount(
            container_path=str(tree.mount_point),
            name=tree.name,
            repo_url=tree.origin,
            commit=tree.commit,
            tree=str(tree.tree),
            is_project=tree.commit.startswith("local-"),
        )


def _keep_logs(logs: Iterable[str], workspace: Workspace, destination: Path) -> Iterator[Path]:
    for number, name in enumerate(dict.fromkeys(logs)):
        source = _on_host(name, workspace)
        if source is None or number >= _LOGS_KEPT:
            continue
        with contextlib.suppress(OSError), open_untrusted(source) as log:
            destination.mkdir(exist_ok=True)
            kept = destination / f"{number:02d}-{source.parent.parent.parent.name}-{source.name}"
            with kept.open("wb") as out:
                log.seek(max(0, source.stat().st_size - _LOG_BYTES))
                shutil.copyfileobj(log, out)
            yield kept


def _on_host(name: str, workspace: Workspace) -> Path | None:
    """The host path of a file below TOPDIR; None when it leads out, by a link too."""
    path = PurePosixPath(name)
    if not path.is_relative_to(_TOPDIR):
        return None
    roots = [workspace.build, *workspace.extra.values()]
    inner = path.relative_to(_TOPDIR)
    host = workspace.build / inner
    if "tmp" in workspace.extra and inner.parts[:1] == ("tmp",):
        host = workspace.extra["tmp"].joinpath(*inner.parts[1:])
    real = host.resolve()
    return real if any(real.is_relative_to(root.resolve()) for root in roots) else None
