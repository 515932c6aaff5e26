"""What builds leave behind when their process is killed: containers and workspaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smidr_ci.builds.host import Host
from smidr_ci.containers.runtime import Handle
from smidr_ci.errors import EngineError
from smidr_ci.workspaces.model import RestingWorkspace
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["Leftover", "find_leftovers", "usual_workspaces"]


@dataclass(frozen=True)
class Leftover:
    """Something that nobody uses any more; `remove` takes it away."""

    text: str
    remove: Callable[[], object]


def find_leftovers(host: Host) -> list[Leftover]:
    """Containers of builds without a living process, then workspaces that a crash left.

    An engine that does not answer has no containers to show. What an agent's build left is
    for the next agent.
    """
    try:
        handles = [item for item in host.runtime.list_builds() if not _is_owned(host, item)]
    except EngineError:
        handles = []
    workspaces = usual_workspaces(host)
    waiting = {item.build_id for item in host.store.find_orphans() if item.is_resumable}
    return [
        *(_container(host, handle) for handle in handles if handle.build_id not in waiting),
        *(
            _workspace(workspaces, item)
            for item in workspaces.leftovers()
            if item.build_id not in waiting and not _has_owner(host, item.build_id)
        ),
    ]


def _is_owned(host: Host, handle: Handle) -> bool:
    # A shell's container ends with its terminal, and carries no build's claim.
    return handle.role not in {"build", "rebuilt"} or host.store.is_owned(handle.build_id)


def _has_owner(host: Host, build_id: str) -> bool:
    # An agent that has just begun owns builds whose workspaces it has not adopted yet.
    return bool(build_id) and host.store.is_owned(build_id)


def usual_workspaces(host: Host) -> WorkspaceStore:
    """Workspaces of builds whose config names no directory for them."""
    return host.workspace_store(host.places)


def _container(host: Host, handle: Handle) -> Leftover:
    state = "running" if handle.is_running else "ended"
    text = f"{state} container of build {handle.build_id}, whose smidr process is gone"
    return Leftover(text, lambda: host.runtime.remove(handle))


def _workspace(store: WorkspaceStore, item: RestingWorkspace) -> Leftover:
    text = f"workspace {item.path} of build {item.build_id or 'unknown'}, left by a crash"
    return Leftover(text, lambda: store.discard(item))
