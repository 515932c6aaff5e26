"""Which images a stranger's config may have, and what may be done with them.

An image of the engine may be private: made on this host, or pulled with the operator's login. A
stranger gets what anybody could pull. Installing packages runs the image's programs as root, so
that is for images that the operator knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from smidr_ci.engine import EngineRefusalError
from smidr_ci.errors import EngineError, ImageError
from smidr_ci.images.model import Making
from smidr_ci.images.pull import registry_of, split_reference

__all__ = ["ImageGuard"]

_ALLOW: Final = "The operator can allow it with trust.untrusted_images in agent.yaml."
_HUB_PREFIXES: Final = ("docker.io/", "index.docker.io/")


@dataclass(frozen=True)
class ImageGuard:
    """The operator's rules."""

    is_known: Callable[[str], bool]
    """Whether the operator vouches for a reference."""
    may_log_in: Callable[[str], bool]
    """Whether the operator's login at a registry may be used."""

    def uses_logins(self, reference: str) -> bool:
        """Whether it may be pulled with the operator's login."""
        return self.is_known(reference) or self.may_log_in(registry_of(reference))

    def check_present(self, making: Making, reference: str, found: Mapping[str, Any]) -> None:
        """Refuse an image of this host that not everybody could have; raises `ImageError`."""
        if self.is_known(reference):
            return
        if not _came_as(reference, found):
            raise ImageError(
                f"an untrusted build may not use the image {reference}: it was not pulled from a "
                "registry by this name, so it is this host's own",
                hint=_ALLOW,
            )
        if not self.uses_logins(reference) and _has_login(making, registry_of(reference)):
            self._check_public(making, reference)

    def check_install(self, reference: str) -> None:
        """Refuse to run the image's programs as root; raises `ImageError`."""
        if not self.is_known(reference):
            raise ImageError(
                f"an untrusted build may not have packages installed on {reference}",
                hint="Once a trusted build has made this image, untrusted ones can use it. "
                + _ALLOW,
            )

    def _check_public(self, making: Making, reference: str) -> None:
        api: Any = making.engine.api  # it has no types
        try:
            with making.engine.calling(f"ask the registry for {reference}"):
                api.inspect_distribution(reference, auth_config={})
        except (EngineRefusalError, EngineError) as error:
            raise ImageError(
                f"an untrusted build may not use the image {reference}: {registry_of(reference)} "
                f"does not give it to everybody: {error.message}",
                hint="The operator can allow it with trust.untrusted_images or, for the whole "
                "registry, trust.untrusted_may_use_credentials in agent.yaml.",
            ) from error


def _came_as(reference: str, found: Mapping[str, Any]) -> bool:
    """Whether the engine has the image from the repository that the reference names."""
    wanted = _plain(split_reference(reference)[0])
    digests = found.get("RepoDigests") or ()
    return any(_plain(str(digest).partition("@")[0]) == wanted for digest in digests)


def _plain(repository: str) -> str:
    for prefix in _HUB_PREFIXES:
        repository = repository.removeprefix(prefix)
    return repository.removeprefix("library/")


def _has_login(making: Making, registry: str) -> bool:
    from docker import auth  # noqa: PLC0415 - the SDK is imported where it is needed

    path = making.settings.registry_auth_file
    try:
        config: Any = auth.load_config(config_path=str(path) if path else None)
        found = config.resolve_authconfig(None if registry == "docker.io" else registry)
    except Exception:  # noqa: BLE001 - whatever a credential helper does: then it counts as one
        return True
    return bool(found)
