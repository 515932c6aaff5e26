"""A shell in a build's container: fresh, or in the directory that a failed build left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from smidr_ci.bitbake.driver_files import shell_command
from smidr_ci.builds.accept import request_for
from smidr_ci.builds.host import Host
from smidr_ci.builds.ids import new_build_id
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.order import order_of
from smidr_ci.builds.places import Places, places_for
from smidr_ci.builds.preparation import Preparation, equip, furnish, prepare
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.config.loader import LoadedProject, load_project_text
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.containers.runtime import ContainerSpec
from smidr_ci.errors import UsageError
from smidr_ci.trust import Trust
from smidr_ci.workspaces.model import Workspace

__all__ = ["request_of", "run_shell"]


def request_of(host: Host, record: BuildRecord) -> BuildRequest:
    """The request of a past build, with its layers at the commits that it used.

    A local layer is taken as it is now. Raises `ConfigError`.
    """
    if record.order:
        request = request_for(host, order_of(record))
        return replace(request, project=_pinned(request.project, record))
    path = Path(record.config_path)
    project = load_project_text(
        record.config_text,
        record.config_path,
        directory=path.parent,
        environ=host.environ,
        operator=host.agent,
    )
    return BuildRequest(
        project=_pinned(project, record),
        targets=record.targets,
        customer=record.customer,
        trust=record.trust,
        is_confined=record.trust is Trust.UNTRUSTED,
    )


def _pinned(project: LoadedProject, record: BuildRecord) -> LoadedProject:
    config = with_provider_layers(project.config)
    layers = tuple(
        entry.model_copy(
            update={"commit": record.layer_commits[entry.name], "branch": None, "tag": None}
        )
        if entry.git and entry.name in record.layer_commits
        else entry
        for entry in config.layers
    )
    return replace(project, config=config.model_copy(update={"layers": layers}))


def run_shell(
    host: Host,
    request: BuildRequest,
    build: BuildRecord | None,
    command: Sequence[str],
    cancel: CancelToken,
    report: Callable[[str], None],
) -> int:
    """Run the command interactively to its end; its exit code.

    `build` names whose kept directory to use. Raises `SmidrError`.
    """
    places = places_for(request.project, host.agent, host.home, request.trust)
    prepared = prepare(host, request, request.targets, places, report, cancel)
    with (
        host.layer_store(places).lease(prepared.layers),
        _workspace(host, prepared, places, build) as (workspace, spec),
    ):
        shell = replace(
            spec,
            role="shell",
            command=shell_command(command),
            environment={"TERM": host.environ.get("TERM", "dumb")},
        )
        report(f"build directory: {workspace.build}")
        return host.runtime.run_interactive(shell)


@contextlib.contextmanager
def _workspace(
    host: Host, prepared: Preparation, places: Places, build: BuildRecord | None
) -> Iterator[tuple[Workspace, ContainerSpec]]:
    store = host.workspace_store(places)
    if build is None:
        build_id = new_build_id("shell")
        workspace = store.lease(f"shell-{os.getuid()}", build_id, places.private_roots)
        fill = furnish
    else:
        found = store.reopen(build.shared_run or build.build_id)
        if found is None:
            raise UsageError(
                f"the directory of build {build.build_id} is gone",
                hint="Only failed builds are kept, until others need the room; build with --keep.",
            )
        workspace, fill = found, equip
    try:
        spec, _ = fill(host, prepared, workspace, workspace.path / "control")
        yield workspace, spec
    finally:
        store.release(workspace, keep=build is not None)
        if host.own_readers is not None:
            host.own_readers.stop()
