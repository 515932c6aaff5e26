"""Which image a project gets, and how often it is made. The engine is scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import Container
from smidr_ci.engine import Engine
from smidr_ci.errors import CancelledError, ImageError
from smidr_ci.images.bootstrap import base_reference
from smidr_ci.images.model import ImageSettings
from smidr_ci.images.pull import PullError
from smidr_ci.images.store import ImageStore
from smidr_ci.locks import try_lock
from tests.fakes.docker_api import Answer, FakeDockerApi, Request

# The SDK leaves the socket of a stream that was not read to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

NO_HOST = "dial tcp: lookup registry-1.docker.io: no such host"
IMPORTED = "sha256:" + "b" * 64
SETTINGS = ImageSettings(mmdebstrap="fake-mmdebstrap", default_packages=())


class Images:
    """The engine's images by reference, and a registry that may be out of reach."""

    def __init__(self, api: FakeDockerApi) -> None:
        self.ids: dict[str, str] = {}
        self.pulled: list[str] = []
        self.imported: list[bytes] = []
        self.removed: list[str] = []
        self.registry: dict[str, str] | str = {}
        """What it has, or the text of the engine's error."""
        api.on("GET", "/images/.*/json", self._inspect)
        api.on("POST", "/images/create", self._create)
        api.on("POST", "/images/.*/tag", self._tag)
        api.on("DELETE", "/images/.*", self._remove)

    def _inspect(self, request: Request) -> Answer:
        name = unquote(request.path).removeprefix("/images/").removesuffix("/json")
        if name not in self.ids:
            return Answer(404, {"message": f"No such image: {name}"})
        digests = ["x@sha256:1"] if name in self.pulled else []
        return Answer(json={"Id": self.ids[name], "RepoDigests": digests})

    def _create(self, request: Request) -> Answer:
        if request.query.get("fromSrc") == "-":
            self.imported.append(request.body)
            return Answer(json={"status": IMPORTED})
        reference = f"{request.query['fromImage']}:{request.query['tag']}"
        self.pulled.append(reference)
        if isinstance(self.registry, str):
            return Answer(500, {"message": self.registry})
        self.ids[reference] = self.registry[reference]
        return Answer(stream=[json.dumps({"status": "done"}).encode()])

    def _tag(self, request: Request) -> Answer:
        image_id = unquote(request.path).split("/")[2]
        self.ids[f"{request.query['repo']}:{request.query['tag']}"] = image_id
        return Answer(201)

    def _remove(self, request: Request) -> Answer:
        self.removed.append(unquote(request.path).removeprefix("/images/"))
        return Answer(json=[])


@pytest.fixture
def images(api: FakeDockerApi) -> Images:
    return Images(api)


@pytest.fixture
def lines() -> list[str]:
    return []


Ensure = Callable[..., str]


@pytest.fixture
def ensure(engine: Engine, images: Images, lines: list[str], tmp_path: Path) -> Ensure:
    """`ImageStore.ensure` for a container section; the reference it found."""
    assert images.ids == {}

    def call(*, rebuild: bool = False, cancel: CancelToken | None = None, **keys: object) -> str:
        store = ImageStore(engine, SETTINGS, locks=tmp_path / "locks")
        container = Container.model_validate(keys)
        found = store.ensure(container, rebuild=rebuild, report=lines.append, cancel=cancel)
        return found.reference

    return call


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in place of mmdebstrap."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def write(script: str) -> None:
        path = programs / "fake-mmdebstrap"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


def test_present_image_is_used_without_asking_a_registry(images: Images, ensure: Ensure) -> None:
    images.ids["acme:1"] = "sha256:1"
    assert ensure(base_image="acme:1") == "acme:1"
    assert images.pulled == []


def test_missing_image_is_pulled_once(images: Images, ensure: Ensure) -> None:
    images.registry = {"acme:1": "sha256:1"}
    ensure(base_image="acme:1")
    ensure(base_image="acme:1")
    assert images.pulled == ["acme:1"]


def test_rebuild_pulls_a_tag_again_but_never_an_image_of_this_host(
    images: Images, ensure: Ensure, lines: list[str]
) -> None:
    images.registry = {"acme:1": "sha256:1"}
    images.ids["local:1"] = "sha256:2"
    ensure(base_image="acme:1")
    ensure(base_image="acme:1", rebuild=True)
    ensure(base_image="local:1", rebuild=True)
    assert images.pulled == ["acme:1", "acme:1"]
    assert "local:1 was made on this host; it is not pulled again" in lines


def test_chosen_image_out_of_reach_is_an_error_and_never_replaced(
    images: Images, ensure: Ensure
) -> None:
    images.registry = NO_HOST
    with pytest.raises(PullError, match=r"acme:1: registry docker\.io: dial tcp"):
        ensure(base_image="acme:1")
    assert images.imported == []


def test_default_base_is_pulled_when_none_is_chosen(images: Images, ensure: Ensure) -> None:
    images.registry = {"debian:bookworm-slim": "sha256:1"}
    assert ensure() == "debian:bookworm-slim"


def test_without_a_registry_a_base_is_bootstrapped_once_and_the_user_is_told(
    images: Images, ensure: Ensure, lines: list[str], mmdebstrap: Callable[[str], None]
) -> None:
    images.registry = NO_HOST
    mmdebstrap('echo "I: working" >&2; printf "tar of %s" "$*"')
    assert ensure() == base_reference(SETTINGS)
    assert images.imported == [
        b"tar of --variant=minbase --mode=auto --format=tar --include=ca-certificates bookworm -"
    ]
    assert images.ids[base_reference(SETTINGS)] == IMPORTED
    assert any("no registry can be reached for debian:bookworm-slim" in line for line in lines)
    assert ensure() == base_reference(SETTINGS)
    assert (len(images.pulled), len(images.imported)) == (1, 1)


def test_wrong_name_of_the_default_base_does_not_lead_to_a_bootstrap(
    images: Images, ensure: Ensure, mmdebstrap: Callable[[str], None]
) -> None:
    images.registry = "manifest unknown"
    mmdebstrap("exit 0")
    with pytest.raises(PullError, match="manifest unknown"):
        ensure()


def test_bootstrap_never_means_never(images: Images, ensure: Ensure) -> None:
    images.registry = NO_HOST
    with pytest.raises(PullError, match="no such host"):
        ensure(bootstrap="never")


def test_bootstrap_always_asks_no_registry(
    images: Images, ensure: Ensure, mmdebstrap: Callable[[str], None]
) -> None:
    mmdebstrap("printf tar")
    ensure(bootstrap="always")
    assert (images.pulled, images.imported) == ([], [b"tar"])


def test_rebuild_bootstraps_anew_and_drops_what_was_there(
    images: Images, ensure: Ensure, mmdebstrap: Callable[[str], None]
) -> None:
    images.ids[base_reference(SETTINGS)] = "sha256:old"
    mmdebstrap("printf tar")
    ensure(bootstrap="always", rebuild=True)
    assert images.removed == ["sha256:old"]


def test_failed_bootstrap_leaves_no_half_image_and_shows_why(
    images: Images, ensure: Ensure, mmdebstrap: Callable[[str], None]
) -> None:
    mmdebstrap('printf half; echo "E: mirror is gone" >&2; exit 25')
    with pytest.raises(ImageError, match="exit code 25: E: mirror is gone"):
        ensure(bootstrap="always")
    assert images.removed == [IMPORTED]
    assert base_reference(SETTINGS) not in images.ids


def test_missing_mmdebstrap_says_how_to_get_it(
    images: Images, ensure: Ensure, mmdebstrap: Callable[[str], None]
) -> None:
    assert callable(mmdebstrap)
    with pytest.raises(ImageError, match="not installed") as caught:
        ensure(bootstrap="always")
    assert "apt-get install mmdebstrap" in caught.value.hint
    assert images.imported == []


def test_cancel_ends_mmdebstrap(
    ensure: Ensure, mmdebstrap: Callable[[str], None], tmp_path: Path
) -> None:
    mmdebstrap(
        f"trap 'echo cleaned > {tmp_path}/trap; exit 1' TERM\n"
        f"echo 'I: started' >&2\ntouch {tmp_path}/started\n"
        "while :; do sleep 0.05; done"
    )
    cancel = CancelToken()

    def when_started() -> None:
        pause = threading.Event()
        while not (tmp_path / "started").exists():
            pause.wait(0.02)
        cancel.cancel("enough")

    threading.Thread(target=when_started, daemon=True).start()
    with pytest.raises(CancelledError, match="enough"):
        ensure(bootstrap="always", cancel=cancel)
    assert (tmp_path / "trap").read_text() == "cleaned\n"


def test_base_depends_on_suite_mirror_and_sources() -> None:
    plain = base_reference(ImageSettings())
    assert plain.startswith("smidr-base:bookworm-")
    others = [
        ImageSettings(suite="trixie"),
        ImageSettings(mirror="http://mirror.example.com/debian"),
        ImageSettings(apt_sources=("deb http://x y main",)),
    ]
    assert len({plain, *map(base_reference, others)}) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"suite": "--help"}, "no name of a Debian release"),
        ({"mirror": "--customize-hook=reboot"}, "no URL"),
        ({"apt_sources": ("rm -rf /",)}, "no line of a sources.list"),
    ],
)
def test_settings_that_would_be_options_are_refused(
    engine: Engine,
    mmdebstrap: Callable[[str], None],
    tmp_path: Path,
    settings: dict[str, str],
    words: str,
) -> None:
    mmdebstrap("exit 1")
    checked = ImageSettings(mmdebstrap="fake-mmdebstrap", **settings)  # type: ignore[arg-type]  # of mixed types
    store = ImageStore(engine, checked, locks=tmp_path / "locks")
    with pytest.raises(ImageError, match=words):
        store.ensure(Container(bootstrap="always"))


def test_more_apt_sources_are_written_by_a_quoted_hook(
    engine: Engine, images: Images, mmdebstrap: Callable[[str], None], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    mmdebstrap(
        'for a in "$@"; do case $a in --setup-hook=*) '
        f'sh -c "${{a#--setup-hook=}}" hook {root};; esac; done'
    )
    sources = ("deb [trusted=yes] http://x.example/d y main", "deb http://x/$(reboot)'\" y main")
    settings = ImageSettings(mmdebstrap="fake-mmdebstrap", apt_sources=sources, default_packages=())
    ImageStore(engine, settings, locks=tmp_path / "locks").ensure(Container(bootstrap="always"))
    written = (root / "etc/apt/sources.list.d/smidr.list").read_text()
    assert written.splitlines() == list(sources)
    assert len(images.imported) == 1


def test_one_waits_while_another_makes_the_same(
    images: Images, ensure: Ensure, lines: list[str], tmp_path: Path
) -> None:
    images.registry = {"acme:1": "sha256:1"}
    ensure(base_image="acme:1")
    (lock_path,) = (tmp_path / "locks").iterdir()
    del images.ids["acme:1"]
    other = try_lock(lock_path)
    assert other is not None
    cancel = CancelToken()
    cancel.cancel("enough")
    with pytest.raises(CancelledError):
        ensure(base_image="acme:1", cancel=cancel)
    assert lines[-1] == "waiting for another build that makes acme:1"
    other.release()
    ensure(base_image="acme:1")
    assert images.pulled == ["acme:1", "acme:1"]


def test_engine_that_rejects_a_name_is_explained(
    api: FakeDockerApi, images: Images, ensure: Ensure
) -> None:
    assert images.ids == {}
    api.on("GET", "/images/.*/json", Answer(400, {"message": "invalid reference format"}))
    with pytest.raises(ImageError, match="invalid reference format"):
        ensure(base_image="a::b")


def test_operators_settings_reach_the_store() -> None:
    agent = AgentConfig.model_validate(
        {
            "images": {
                "default_base": "mirror.example.com/debian:12",
                "bootstrap_suite": "trixie",
                "bootstrap_mirror": "http://mirror.example.com/debian",
                "extra_apt_sources": ["deb http://x y main"],
            },
            "engine": {"network": "builds", "registry_auth_file": "/etc/logins.json"},
        }
    )
    found = ImageSettings.from_agent(agent, {"http_proxy": "http://p", "HOME": "/root"})
    assert found == ImageSettings(
        suite="trixie",
        default_base="mirror.example.com/debian:12",
        mirror="http://mirror.example.com/debian",
        apt_sources=("deb http://x y main",),
        registry_auth_file=Path("/etc/logins.json"),
        network="builds",
        environment={"http_proxy": "http://p"},
    )
    offline = AgentConfig.model_validate({"engine": {"network": "none"}})
    assert ImageSettings.from_agent(offline, {}).network is None
