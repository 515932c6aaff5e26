"""`ImageStore`: the builder image for a project, made once and then found again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.config.models import Container
from smidr_ci.engine import Engine, EngineRefusalError
from smidr_ci.errors import ImageError
from smidr_ci.images.bootstrap import base_reference, bootstrap
from smidr_ci.images.guard import ImageGuard
from smidr_ci.images.install import builder_tag, install
from smidr_ci.images.model import (
    IMAGE_LABEL,
    BaseImage,
    BuilderImage,
    ImageSettings,
    Making,
    Report,
    StoredImage,
)
from smidr_ci.images.pull import PullError, PullFault, pull
from smidr_ci.locks import try_lock

__all__ = ["BUILDER_REPOSITORY", "ImageStore"]

BUILDER_REPOSITORY: Final = "smidr-builder"
_LOCK_POLL_S: Final = 0.5


class ImageStore:
    """Builder images of one engine.

    Two processes that want the same image make it once: each step holds a lock of the kernel in
    `locks`, named after what it makes.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ImageSettings | None = None,
        *,
        locks: Path,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings or ImageSettings()
        self._locks = locks
        self._clock = clock or SystemClock()

    def ensure(
        self,
        container: Container,
        *,
        rebuild: bool = False,
        report: Report = lambda _line: None,
        cancel: CancelToken | None = None,
        guard: ImageGuard | None = None,
    ) -> BuilderImage:
        """The image for this project: present, or pulled, built or bootstrapped now.

        `rebuild` pulls tags again and makes everything anew. `report` gets a line now and then.
        `guard` says what a stranger's config may have.
        Raises `ImageError`, `EngineError` or `CancelledError`; never takes another image instead.
        """
        making = Making(self._engine, self._settings, self._clock, report, cancel, rebuild)
        base = self._base(making, container, guard)
        packages = container.packages
        if packages is None:
            packages = () if base.is_chosen else self._settings.default_packages
        if not packages:
            return BuilderImage(base.id, base.reference, _described(base, ()))
        return self._with_packages(making, base, tuple(sorted(set(packages))), guard)

    def stored(self) -> list[StoredImage]:
        """All images that smidr made, by label."""
        with self._engine.calling("list images"):
            answer: Any = self._engine.api.images(filters={"label": IMAGE_LABEL})
        return [_stored(entry) for entry in answer]

    def remove(self, image: StoredImage) -> bool:
        """Remove an image that smidr made; False when a container or another image uses it."""
        return all(self._forget(name) for name in image.tags or (image.id,))

    def _base(self, making: Making, container: Container, guard: ImageGuard | None) -> BaseImage:
        if container.base_image:
            found = self._chosen(making, container.base_image, guard)
            return BaseImage(found, container.base_image, is_chosen=True)
        if container.bootstrap == "always":
            return self._bootstrapped(making)
        return self._default_base(making, may_bootstrap=container.bootstrap == "auto")

    def _default_base(self, making: Making, *, may_bootstrap: bool) -> BaseImage:
        """The host's default base; when no registry can be reached, a bootstrapped one."""
        default = self._settings.default_base
        was_bootstrapped = self._inspect(base_reference(self._settings)) is not None
        if may_bootstrap and was_bootstrapped and not making.rebuild and not self._inspect(default):
            return self._bootstrapped(making)
        try:
            found = self._pulled(making, default)
        except PullError as error:
            if not may_bootstrap or error.fault is not PullFault.UNREACHABLE:
                raise
            making.report(f"no registry can be reached for {default}; making a base without one")
            return self._bootstrapped(making)
        return BaseImage(found, default, is_chosen=False)

    def _chosen(self, making: Making, reference: str, guard: ImageGuard | None) -> str:
        if guard is None:
            return self._pulled(making, reference)
        making = replace(making, uses_logins=guard.uses_logins(reference))
        present = self._inspect(reference)
        if present is not None:
            guard.check_present(making, reference, present)
        return self._pulled(making, reference)

    def _pulled(self, making: Making, reference: str) -> str:
        present = self._inspect(reference)
        rebuild = making.rebuild and "@" not in reference  # a digest's content never changes
        if present and rebuild and not present.get("RepoDigests"):
            making.report(f"{reference} was made on this host; it is not pulled again")
            rebuild = False

        def make() -> str:
            pull(making, reference)
            found = self._inspect(reference)
            if found is None:
                raise ImageError(f"{reference} was pulled, but the engine does not have it")
            return str(found["Id"])

        return self._once(making, reference, make, rebuild=rebuild)

    def _bootstrapped(self, making: Making) -> BaseImage:
        reference = base_reference(self._settings)
        image_id = self._renewed(making, reference, lambda: bootstrap(making))
        return BaseImage(image_id, reference, is_chosen=False)

    def _with_packages(
        self,
        making: Making,
        base: BaseImage,
        packages: tuple[str, ...],
        guard: ImageGuard | None,
    ) -> BuilderImage:
        reference = f"{BUILDER_REPOSITORY}:{builder_tag(base.id, packages)}"

        def make() -> str:
            if guard is not None and base.is_chosen:
                guard.check_install(base.reference)
            making.report(f"installing {_count(packages)} on {base.reference}, once")
            image_id = install(making, base, packages, BUILDER_REPOSITORY)
            making.report(f"made {reference}")
            return image_id

        image_id = self._renewed(making, reference, make)
        return BuilderImage(image_id, reference, _described(base, packages))

    def _renewed(self, making: Making, reference: str, make: Callable[[], str]) -> str:
        """Make a tag of ours once; what it named before goes when it is made anew."""

        def renew() -> str:
            old = self._inspect(reference)
            image_id = make()
            if old and old["Id"] != image_id:
                self._forget(str(old["Id"]))
            return image_id

        return self._once(making, reference, renew, rebuild=making.rebuild)

    def _once(
        self, making: Making, reference: str, make: Callable[[], str], *, rebuild: bool
    ) -> str:
        """The id of `reference`; made under its lock, unless somebody did so meanwhile."""
        before = self._inspect(reference)
        if before and not rebuild:
            return str(before["Id"])
        with self._lock(making, reference):
            now = self._inspect(reference)
            was_made_meanwhile = now and (not before or now["Id"] != before["Id"])
            return str(now["Id"]) if now and was_made_meanwhile else make()

    @contextmanager
    def _lock(self, making: Making, reference: str) -> Iterator[None]:
        self._locks.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(f"{self._engine.url} {reference}".encode()).hexdigest()[:24]
        path = self._locks / f"image-{digest}.lock"
        lock = try_lock(path)
        if lock is None:
            making.report(f"waiting for another build that makes {reference}")
        while lock is None:
            if making.cancel:
                making.cancel.raise_if_cancelled()
            self._clock.sleep(_LOCK_POLL_S)
            lock = try_lock(path)
        with lock:
            yield

    def _inspect(self, reference: str) -> dict[str, Any] | None:
        try:
            with self._engine.calling(f"look for the image {reference}"):
                inspect: Any = self._engine.api.inspect_image  # it has no types
                found: dict[str, Any] = inspect(reference)
                return found
        except EngineRefusalError as error:
            if error.status == 404:
                return None
            raise ImageError(
                f"can't use the image {reference}: {error.answer}",
                hint="Check container.base_image in smidr.yaml.",
            ) from error

    def _forget(self, name: str) -> bool:
        try:
            with self._engine.calling(f"remove the image {name}"):
                self._engine.api.remove_image(name)
        except EngineRefusalError as error:
            if error.status in {404, 409}:
                return error.status == 404
            raise
        return True


def _stored(entry: dict[str, Any]) -> StoredImage:
    return StoredImage(
        id=str(entry["Id"]),
        tags=tuple(tag for tag in entry.get("RepoTags") or () if tag != "<none>:<none>"),
        kind=str((entry.get("Labels") or {}).get(IMAGE_LABEL, "")),
        created=float(entry.get("Created") or 0),
        size_bytes=int(entry.get("Size") or 0),
    )


def _described(base: BaseImage, packages: tuple[str, ...]) -> str:
    text = f"{base.reference} ({base.id.removeprefix('sha256:')[:12]})"
    return f"{text} + {_count(packages)}" if packages else text


def _count(packages: tuple[str, ...]) -> str:
    return f"{len(packages)} package{'' if len(packages) == 1 else 's'}"
