"""Which images a stranger's config may have. The engine is scripted."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from smidr_ci.config.models import Container
from smidr_ci.config.trust import TrustSettings
from smidr_ci.engine import Engine
from smidr_ci.errors import ImageError
from smidr_ci.images.guard import ImageGuard
from smidr_ci.images.install import builder_tag
from smidr_ci.images.model import ImageSettings
from smidr_ci.images.store import ImageStore
from tests.fakes.docker_api import Answer, FakeDockerApi, Request

# The SDK leaves the socket of a stream that was not read to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@dataclass
class Registry:
    """What the engine has, by reference, and what registries give to whom."""

    present: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_public: bool = True
    logins: list[object] = field(default_factory=list)
    """What each question to a registry carried."""

    def script(self, api: FakeDockerApi) -> None:
        api.on("GET", "/images/.*/json", self._inspect)
        api.on("POST", "/images/create", self._create)
        api.on("GET", "/distribution/.*/json", self._distribution)

    def _inspect(self, request: Request) -> Answer:
        name = unquote(request.path).removeprefix("/images/").removesuffix("/json")
        found = self.present.get(name)
        return Answer(json=found) if found else Answer(404, {"message": f"No such image: {name}"})

    def _create(self, request: Request) -> Answer:
        self._note(request)
        reference = f"{request.query['fromImage']}:{request.query['tag']}"
        self.present[reference] = pulled(reference)
        return Answer(stream=[json.dumps({"status": "done"}).encode()])

    def _distribution(self, request: Request) -> Answer:
        self._note(request)
        return Answer(json={}) if self.is_public else Answer(403, {"message": "denied"})

    def _note(self, request: Request) -> None:
        header = {name.lower(): value for name, value in request.headers.items()}.get(
            "x-registry-auth", ""
        )
        self.logins.append(json.loads(base64.urlsafe_b64decode(header or "e30=")))


def pulled(reference: str, image_id: str = "sha256:1") -> dict[str, Any]:
    repository = reference.rpartition(":")[0]
    return {"Id": image_id, "RepoDigests": [f"{repository}@sha256:{'d' * 64}"]}


@pytest.fixture
def registry(api: FakeDockerApi) -> Registry:
    registry = Registry()
    registry.script(api)
    return registry


Ensure = Callable[..., str]


@pytest.fixture
def ensure(engine: Engine, registry: Registry, tmp_path: Path) -> Ensure:
    """`ImageStore.ensure` for a stranger, on a host with a login at registry.example.com."""
    assert registry.present == {}
    auth = base64.b64encode(b"operator:secret").decode()
    logins = tmp_path / "config.json"
    logins.write_text(json.dumps({"auths": {"registry.example.com": {"auth": auth}}}))
    settings = ImageSettings(registry_auth_file=logins, default_packages=())

    def call(rules: dict[str, Any] | None = None, **keys: object) -> str:
        trust = TrustSettings.model_validate(rules or {})
        allowed = trust.untrusted_may_use_credentials
        guard = ImageGuard(trust.knows_image, lambda host: host in allowed)
        store = ImageStore(engine, settings, locks=tmp_path / "locks")
        return store.ensure(Container.model_validate(keys), guard=guard).id

    return call


def test_a_strangers_image_is_pulled_without_the_operators_login(
    ensure: Ensure, registry: Registry
) -> None:
    ensure(base_image="registry.example.com/team/image:1")
    assert registry.logins == [{}]


def test_it_is_pulled_with_the_login_where_the_operator_allows_it(
    ensure: Ensure, registry: Registry
) -> None:
    allowed = {"untrusted_may_use_credentials": ["registry.example.com"]}
    ensure(allowed, base_image="registry.example.com/team/image:1")
    (login,) = registry.logins
    assert isinstance(login, dict)
    assert login["password"] == "secret"


@pytest.mark.parametrize(
    "reference", ["private:1", "smidr-builder:abc", "0123456789ab", "sha256:" + "1" * 64]
)
def test_an_image_that_only_this_host_has_is_refused(
    ensure: Ensure, registry: Registry, reference: str
) -> None:
    registry.present[reference] = {"Id": "sha256:1", "RepoDigests": []}
    with pytest.raises(ImageError, match="this host's own") as refused:
        ensure(base_image=reference)
    assert "untrusted_images" in refused.value.hint
    assert ensure({"untrusted_images": [reference]}, base_image=reference) == "sha256:1"


def test_the_id_of_a_pulled_image_opens_nothing(ensure: Ensure, registry: Registry) -> None:
    registry.present["0123456789ab"] = pulled("registry.example.com/team/secret:1")
    with pytest.raises(ImageError, match="this host's own"):
        ensure(base_image="0123456789ab")


@pytest.mark.parametrize("reference", ["debian:12", "docker.io/library/debian:12"])
def test_an_image_that_came_from_an_open_registry_is_used(
    ensure: Ensure, registry: Registry, reference: str
) -> None:
    registry.present[reference] = pulled("debian:12")
    assert ensure(base_image=reference) == "sha256:1"
    assert registry.logins == []


def test_an_image_that_was_pulled_with_a_login_must_be_public(
    ensure: Ensure, registry: Registry
) -> None:
    reference = "registry.example.com/team/image:1"
    registry.present[reference] = pulled(reference)
    assert ensure(base_image=reference) == "sha256:1"
    registry.is_public = False
    with pytest.raises(ImageError, match="does not give it to everybody"):
        ensure(base_image=reference)
    assert registry.logins == [{}, {}]
    allowed = {"untrusted_may_use_credentials": ["registry.example.com"]}
    assert ensure(allowed, base_image=reference) == "sha256:1"


def test_packages_are_not_installed_on_a_strangers_image_but_what_is_made_is_used(
    ensure: Ensure, registry: Registry
) -> None:
    registry.present["debian:12"] = pulled("debian:12")
    with pytest.raises(ImageError, match="may not have packages installed on debian:12"):
        ensure(base_image="debian:12", packages=["gcc"])
    made = f"smidr-builder:{builder_tag('sha256:1', ['gcc'])}"
    registry.present[made] = {"Id": "sha256:2", "RepoDigests": []}
    assert ensure(base_image="debian:12", packages=["gcc"]) == "sha256:2"
