"""All caches of a host as things that can be collected.

Only the host's own directories: what a project config puts elsewhere is its owner's to look after.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.builds.needs import active_builds
from smidr_ci.builds.places import Places
from smidr_ci.builds.retention import forget_workspaces
from smidr_ci.caches.file_cache import FileCache, downloads_cache, sstate_cache
from smidr_ci.caches.item_cache import Item, ItemCache, marked_folders
from smidr_ci.caches.job_archives import job_archive_items
from smidr_ci.caches.layer_items import layer_cache
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import EngineError
from smidr_ci.images.model import StoredImage
from smidr_ci.workspaces.model import RestingWorkspace
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["CACHES", "collectables"]

CACHES: Final = (
    "sstate", "downloads", "layers", "workspaces", "images", "parse-cache", "job-caches",
)  # fmt: skip

_RECORDS: Final = 5000


def collectables(host: Host) -> tuple[FileCache | ItemCache, ...]:
    """One per name in `CACHES`, in that order; looks at nothing yet."""
    places, home = host.places, host.home
    own = home.root.resolve()
    return (
        sstate_cache(places.sstate, is_ours=places.sstate.resolve().is_relative_to(own)),
        downloads_cache(places.downloads, is_ours=places.downloads.resolve().is_relative_to(own)),
        layer_cache(host.layer_store(places)),
        ItemCache("workspaces", places.workspaces, lambda _: _workspaces(host, places)),
        ItemCache("images", home.root, lambda _: [*_images(host)]),
        ItemCache("parse-cache", home.root, lambda cancel: [*_parse_caches(host, cancel)]),
        ItemCache(
            "job-caches",
            home.job_caches,
            lambda cancel: [*job_archive_items(home.job_caches, cancel)],
        ),
    )


def _workspaces(host: Host, places: Places) -> list[Item]:
    store = host.workspace_store(places)
    return [
        Item(
            str(kept.path),
            int(kept.released.timestamp()) if kept.released else 0,
            kept.size_bytes,
            functools.partial(_discard, host, store, kept),
        )
        for kept in store.list_kept()
    ]


def _discard(host: Host, store: WorkspaceStore, kept: RestingWorkspace) -> bool:
    if not store.discard(kept):
        return False
    forget_workspaces(host.store, [kept])
    return True


def _parse_caches(host: Host, cancel: CancelToken) -> Iterator[Item]:
    return chain(
        marked_folders(host.home.parse_cache, cancel), marked_folders(host.home.bytecode, cancel)
    )


def _images(host: Host) -> Iterator[Item]:
    """Builder images by the newest build that ran in them.

    Other homes may use the same engine: an image that no build here has used stays. None goes while
    a build prepares, which may have found its image already. A bootstrapped base is as young as any
    image that could be made of it. An engine that is away has no images.
    """
    try:
        stored = host.images.stored()
    except EngineError:
        return
    records = host.store.list(limit=_RECORDS, include_deleted=True)
    uses = {record.image: int(record.created.timestamp()) for record in reversed(records)}
    is_quiet = all(record.image for record in active_builds(host))
    builders = [image.id for image in stored if image.kind == "builder"]
    are_known = all(image in uses for image in builders)
    youngest = max((uses[image] for image in builders if image in uses), default=0)
    for image in stored:
        is_base = image.id not in builders
        use_s = max(youngest, int(image.created)) if is_base else uses.get(image.id, 0)
        may_go = is_quiet and (are_known if is_base else image.id in uses)
        label = image.tags[0] if image.tags else image.id
        yield Item(label, use_s, image.size_bytes, _image_remover(host, image), may_go)


def _image_remover(host: Host, image: StoredImage) -> Callable[[], bool]:
    def remove() -> bool:
        try:
            return host.images.remove(image)
        except EngineError:
            return False

    return remove
