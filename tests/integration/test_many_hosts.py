"""Two agents with Docker daemons of their own share what they build, with real BitBake."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.config.shared_caches import SharedCaches
from smidr_ci.stores.s3_client import make_client
from tests.fakes.agent_process import AgentProcess
from tests.fakes.cache_home import object_name
from tests.fakes.fault_proxy import Fault, proxy_to
from tests.fakes.git_server import publish, serve
from tests.fakes.hello import HelloProject
from tests.fakes.private_engine import PrivateEngine, why_not_here
from tests.fakes.smidr_process import Smidr, wait_until
from tests.fakes.store_servers import KEY_ID, PASSWORD, moto_server, rclone_server, s3_login

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_ALWAYS = 10_000


@dataclass
class Site:
    """A host with a running agent that has built once, and another host's engine."""

    first: AgentProcess
    record: BuildRecord
    engine: PrivateEngine
    project: HelloProject
    store: Path
    """A directory with all that the first host has shared; to be left as it is."""

    def share(self, share: dict[str, Any]) -> None:
        """Have the first host share its caches there too."""
        _configure(self.first.smidr.home, {"cache": {"share": share}})
        self.first.signal(signal.SIGHUP)

    def second(
        self, home: Path, share: dict[str, Any], project: Path | None = None
    ) -> AgentProcess:
        """Another host, not started, with nothing in its caches."""
        home.mkdir()
        _configure(home, {"engine": {"url": self.engine.url}, "cache": {"share": share}})
        return AgentProcess(Smidr(home, project or self.project.work))


def _configure(home: Path, settings: dict[str, Any]) -> None:
    (home / "agent.yaml").write_text(json.dumps(settings))
    (home / "agent.yaml").chmod(0o600)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Site]:
    if reason := why_not_here():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("hosts")
    project = make_hello_project(root)
    served, store = root / "served", root / "store"
    served.mkdir()
    store.mkdir()
    with serve(served) as server, PrivateEngine(root / "engine") as engine:
        publish(project.config, server)
        engine.start()
        (root / "first").mkdir()
        share = {"url": store.as_uri(), "repositories": True}
        _configure(root / "first", {"cache": {"share": share}})
        with AgentProcess(Smidr(root / "first", project.work)) as agent:
            record = agent.finish(agent.submit())
            assert record.state is BuildState.COMPLETED, record.failure_message
            inspect: Any = docker_client.inspect_image  # it has no types
            image = inspect(record.image)
            bases = [item["RepoTags"][0] for item in docker_client.images("smidr-base")]
            for tag in (image["RepoTags"][0], *bases):
                engine.load(docker_client, tag)
            wait_for_uploads(agent)
            yield Site(agent, record, engine, project, store)


@pytest.fixture(params=["directory", "webdav", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings of an empty store."""
    root = tmp_path / "store"
    root.mkdir()
    with contextlib.ExitStack() as stack:
        if request.param == "directory":
            yield {"url": root.as_uri()}
        elif request.param == "webdav":
            yield _webdav(stack.enter_context(rclone_server("webdav", root)), tmp_path)
        else:
            url = stack.enter_context(moto_server())
            settings = {
                "url": "s3://caches/team/yocto",
                "endpoint": url,
                "credentials_file": str(s3_login(tmp_path)),
            }
            with contextlib.closing(make_client(SharedCaches(**settings).written)) as client:
                client.create_bucket(Bucket="caches")
            yield settings


def _webdav(url: str, folder: Path) -> dict[str, Any]:
    login = folder / "login"
    login.write_text(f"{KEY_ID}:{PASSWORD}\n")
    login.chmod(0o600)
    return {"url": f"{url}/share", "credentials_file": str(login)}


def facts(smidr: Smidr) -> dict[str, Any]:
    """What `smidr cache stats` says of uploads."""
    answer = smidr("cache", "stats", "--json")
    assert answer.code == 0, answer.text
    found: dict[str, Any] = answer.json["share"]
    return found


def wait_for_uploads(agent: AgentProcess) -> dict[str, Any]:
    """Wait until all that is new has been uploaded."""

    def is_done() -> bool:
        found = facts(agent.smidr)
        return bool(found["last_round"] and not found["waiting"] and not found["last_error"])

    wait_until(is_done, "the uploads")
    return facts(agent.smidr)


def files_of(store: Path) -> dict[str, bytes]:
    """Key -> content of all that a directory holds for others, without what a kill left half."""
    found = (path for path in store.rglob("*") if path.is_file() and ".smidr-" not in str(path))
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def of_image(record: BuildRecord) -> dict[str, str]:
    return {Path(item.path).name: item.sha256 for item in record.artifacts}


def test_a_second_host_builds_nothing_that_the_first_has_built(
    site: Site, store: dict[str, Any], tmp_path: Path
) -> None:
    site.share(store)
    shared = wait_for_uploads(site.first)
    assert shared["uploaded"] >= 5
    assert shared["damaged"] == []
    with site.second(tmp_path / "second", store) as second:
        record = second.finish(second.submit())
        assert record.state is BuildState.COMPLETED, second.said
        assert record.sstate is not None
        assert record.sstate.mirrors == record.sstate.wanted == 5
        assert record.tasks["executed"] == 0
        assert of_image(record) == of_image(site.record)
        assert second.client.status().problems == ()
        # What came from the share is not sent back to it.
        assert wait_for_uploads(second)["uploaded"] == 0
    for path in (second.smidr.home / "builds").rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_sources_come_from_the_share_where_their_server_is_gone(
    site: Site, make_hello_project: Callable[[Path], HelloProject], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(site.store / "downloads", store / "downloads")
    project = make_hello_project(tmp_path)
    shutil.rmtree(project.work / "sources" / "greeter.git")
    share = {"url": store.as_uri(), "upload": False}
    second = site.second(tmp_path / "second", share, project.work).smidr
    record = second.build("-t", "greeter")
    assert record["tasks"]["executed"] > 0
    assert record["sstate"]["mirrors"] == 0
    assert list((second.home / "share").iterdir()) == []


def test_a_strangers_build_reads_the_share_and_adds_nothing(
    site: Site, make_hello_project: Callable[[Path], HelloProject], tmp_path: Path
) -> None:
    project = make_hello_project(tmp_path)
    recipe = "meta-hello/recipes/greeter/greeter_1.0.bb"
    project.edit(recipe, "do_install() {\n", "do_install() {\n    : another step\n")
    served = tmp_path / "served"
    served.mkdir()
    before = files_of(site.store)
    with serve(served) as server:
        publish(project.config, server)
        share = {"url": site.store.as_uri(), "repositories": True}
        with site.second(tmp_path / "second", share, project.work) as second:
            record = second.smidr.build("--untrusted")
            assert record["trust"] == "untrusted"
            assert record["sstate"]["mirrors"] > 0
            assert record["sstate"]["missed"] > 0
            answer = second.smidr("cache", "push", "--json")
            assert answer.code == 0, answer.text
            assert answer.json["uploaded"] == answer.json["present"] == 0
    assert files_of(site.store) == before


def test_a_store_that_goes_away_in_the_middle_fails_no_build(site: Site, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(site.store, root / "share")
    lost = next((root / "share").rglob("*base-files*_populate_sysroot.tgz"))
    raw = lost.read_bytes()
    lost.unlink()
    with rclone_server("webdav", root) as url, proxy_to(url) as proxy:
        share = _webdav(proxy.url, tmp_path)
        # What it has said that it has, it does not give.
        proxy.faults += [Fault(f"{method} .*", 503, count=_ALWAYS) for method in ("GET", "PUT")]
        with site.second(tmp_path / "second", share) as second:
            record = second.finish(second.submit())
            assert record.state is BuildState.COMPLETED, second.said
            assert of_image(record) == of_image(site.record)
            problems = " ".join(second.client.status().problems)
            assert "Builds go on without the shared cache" in problems
            proxy.faults.clear()
            # What was not there before is uploaded now by whoever is first: the agent may be at it.
            wait_until(lambda: second.smidr("cache", "push").code == 0, "the uploads")
            assert facts(second.smidr)["last_error"] == ""
    assert lost.read_bytes() == raw  # the hello project's objects are the same each time


def test_a_damaged_object_is_not_shared(site: Site, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    smidr = site.second(tmp_path / "second", {"url": store.as_uri()}).smidr
    shutil.copytree(site.first.smidr.home / "sstate-cache", smidr.home / "sstate-cache")
    damaged = next((smidr.home / "sstate-cache").rglob("*greeter*_populate_sysroot.tgz"))
    raw = bytearray(damaged.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    damaged.write_bytes(raw)
    answer = smidr("cache", "push", "--json")
    assert answer.code == 0, answer.text
    assert (answer.json["uploaded"], answer.json["damaged"]) == (4, 1)
    assert not [key for key in files_of(store) if damaged.name in key]
    assert damaged.name in smidr("cache", "stats").out


def test_an_agent_that_is_killed_while_it_uploads_goes_on(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "store"
    home.mkdir()
    for number in range(40):
        write_object(home / "sstate-cache" / object_name(number, suffix=".tgz"), number)
    with rclone_server("webdav", root) as url, proxy_to(url) as proxy:
        _configure(home, {"cache": {"share": _webdav(proxy.url, tmp_path)}})
        with AgentProcess(Smidr(home, tmp_path)) as agent:
            wait_until(lambda: proxy.count("PUT .*") >= 5, "some uploads")
            agent.kill()
            some = proxy.count("PUT .*")
            assert some < 40
            agent.start()
            done = wait_for_uploads(agent)
        assert proxy.count("PUT .*") <= 40 + 2  # what was cut short once more, no more
    assert done["waiting"] == 0
    assert files_of(root / "share") == {
        f"sstate/{key}": raw for key, raw in files_of(home / "sstate-cache").items()
    }


def write_object(path: Path, number: int) -> None:
    """A small sstate object, which is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = f"{number}\n".encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(raw)
        archive.addfile(entry, io.BytesIO(raw))
