"""A build begins: an id, a claim, and a record that says `queued`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.request import BuildRequest
from smidr_ci.files import make_marked_dir, remove_marked_tree
from smidr_ci.locks import KernelLock

__all__ = ["enlist"]


def enlist(
    host: Host, request: BuildRequest, order: Order | None = None, source: Path | None = None
) -> tuple[BuildRecord, KernelLock]:
    """Store a build as queued; its record, and the claim that its driver must hold.

    With its order an agent can go on with it after a restart. `source`, which came with the
    order, becomes the build's. Raises `SmidrError`; then nothing is stored.
    """
    targets = request.project.config.require_targets(request.targets)
    build_id, claim = host.store.reserve(request.customer)
    try:
        if order is not None and source is not None:
            order = replace(order, directory=_brought(host, build_id, source))
        host.store.add(record := _record(host, request, build_id, targets, order))
    except BaseException:
        remove_marked_tree(host.home.builds / build_id, host.home.builds)
        claim.release()
        raise
    return record, claim


def _brought(host: Host, build_id: str, source: Path) -> Path:
    home = make_marked_dir(host.home.builds / build_id) / "source"
    source.rename(home)
    return home


def _config_path(request: BuildRequest, order: Order | None) -> str:
    if order is None:
        return str(request.project.path.absolute())
    if order.is_confined:
        return order.config_name
    return str(order.directory / Path(order.config_name).name)


def _record(
    host: Host,
    request: BuildRequest,
    build_id: str,
    targets: tuple[str, ...],
    order: Order | None,
) -> BuildRecord:
    project = request.project
    return BuildRecord(
        build_id=build_id,
        customer=request.customer,
        project=project.config.name,
        targets=targets,
        state=BuildState.QUEUED,
        created=host.clock.now(),
        config_text=project.text,
        config_path=_config_path(request, order),
        description=project.config.description,
        requested_by=request.requested_by,
        trust=request.trust,
        owner_pid=os.getpid(),
        is_resumable=order is not None,
        order=order.to_json() if order is not None else {},
    )
