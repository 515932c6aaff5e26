"""Which builds would come to the same, so that one of them is enough.

Layers that follow a branch need not be resolved for that: builds that are compared wait, and all
would look their branches up later. The one look that is made for all of them is as good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from smidr_ci.builds.host import Host
from smidr_ci.builds.places import places_for
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.errors import SmidrError
from smidr_ci.layers.lockfile import LOCK_NAME, read_lock

__all__ = ["contents_of", "likeness_of"]


def likeness_of(host: Host, request: BuildRequest, targets: tuple[str, ...]) -> str:
    """The same for builds that were ordered alike; empty for one that is built for itself.

    It says nothing yet of what lies in the order's directory, see `contents_of`.
    """
    if host.agent.builds.share == "none" or _wants_its_own(request):
        return ""
    try:
        parts = [str(part) for part in _parts(host, request, targets)]
    except SmidrError:
        return ""  # the build itself will say what is wrong
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _wants_its_own(request: BuildRequest) -> bool:
    """Asked to do over what could be taken, or to leave its directory to whoever asked."""
    return request.clean or request.fresh or request.clean_image or request.keep_workspace


def _parts(host: Host, request: BuildRequest, targets: tuple[str, ...]) -> Iterator[object]:
    project = request.project
    if host.agent.builds.share == "customer":
        yield request.customer
    # Strangers with a cache of their own each have put into it what they like.
    yield from (request.trust, request.private_cache_key, request.is_confined)
    # With all variables put in, those for BitBake and its recipes among them.
    yield project.config.model_dump_json()
    yield project.path.name
    yield from (targets, request.targets, request.fetch_only, request.locked)
    # A `directories.source` is read while the build runs: only the very same directory is alike.
    yield places_for(project, host.agent, host.home, request.trust)
    yield host.agent.workspaces.is_warm(request.ref)


def contents_of(host: Host, request: BuildRequest, cancel: CancelToken) -> str:
    """A hash of what else goes into the build from its directory: `path` layers, the lockfile.

    Empty when that can't be read, or when the build is cancelled.
    """
    project = request.project
    try:
        places = places_for(project, host.agent, host.home, request.trust)
        found = host.layer_store(places, request.trust).contents(
            with_provider_layers(project.config).layers,
            base_dir=project.directory,
            confine_to=project.directory if request.is_confined else None,
            cancel=cancel,
        )
        lock = read_lock(project.directory / LOCK_NAME)
    except (SmidrError, OSError):
        return ""
    return hashlib.sha256(json.dumps([sorted(found.items()), repr(lock)]).encode()).hexdigest()
