"""What is tried again, what is not, and what is done before it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from docker import APIClient

from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.git_server import serve
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_FETCHES_BY_HTTP = """
SRC_URI = "git://{host}/greeter.git;protocol=http;branch=main;destsuffix=greeter"
SRCREV = "1fc87c8b9004b1ac41161589ad4d4e3180aa509d"
"""


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
) -> HelloProject:
    made = make_hello_project(tmp_path_factory.mktemp("retries"))
    add_fault_recipes(made)
    return made


@pytest.fixture(scope="module")
def smidr(
    tmp_path_factory: pytest.TempPathFactory, project: HelloProject, docker_client: APIClient
) -> Smidr:
    """Its containers share the host's network, to reach servers on loopback."""
    assert docker_client.ping()
    home = tmp_path_factory.mktemp("home")
    (home / "agent.yaml").write_text("engine:\n  network: host\n")
    (home / "agent.yaml").chmod(0o600)
    return Smidr(home, project.work)


def phases(smidr: Smidr, build_id: str) -> int:
    """How often BitBake was started."""
    events = smidr.home / "builds" / build_id / "control" / "events.jsonl"
    return sum(json.loads(line)["event"] == "phase" for line in events.read_text().splitlines())


def test_a_source_that_the_network_kept_back_is_fetched_again(
    smidr: Smidr, project: HelloProject
) -> None:
    with serve(project.work / "sources") as server:
        host = server.base.removeprefix("http://")
        project.add("meta-hello/recipes/faults/remote_1.0.bb", _FETCHES_BY_HTTP.format(host=host))
        server.failures_left = 1
        answer = smidr("build", "-t", "remote")
    assert answer.code == 0, answer.text
    record = smidr.newest()
    assert "trying again in 10 s: remote could not be fetched" in answer.err
    assert (record["state"], record["findings"]) == ("completed", [])
    assert record["tasks"]["failed"] == 0
    assert phases(smidr, record["build_id"]) == 2


def test_a_compile_error_is_not_tried_again(smidr: Smidr) -> None:
    answer = smidr("build", "-t", "broken")
    assert answer.code == 1, answer.text
    record = smidr.newest()
    assert record["findings"][0]["category"] == "compile"
    assert "no_such_name" in record["failure_message"]
    assert phases(smidr, record["build_id"]) == 1


def test_a_damaged_sstate_object_is_set_aside_and_the_build_succeeds(
    smidr: Smidr, project: HelloProject
) -> None:
    sstate = project.layer / "classes" / "sstate.bbclass"
    text = sstate.read_text()
    begin, end = text.index("    except (EOFError, gzip.Bad"), text.index("def sstate_manifest")
    # As OE-Core does: the object stays, the task fails, and so does the build.
    error = (
        "    except Exception as error:\n"
        '        bb.fatal("sstate: can\'t unpack %s: %s" % (path, error))\n\n'
    )
    sstate.write_text(text[:begin] + error + text[end:])
    project.prepare()
    smidr.build("-t", "motd")
    (thing,) = (smidr.home / "sstate-cache").rglob("sstate:motd:*.tgz")
    broken = gzip.compress(b"not an archive" * 100)[:40]
    thing.write_bytes(broken)
    answer = smidr("build", "-t", "motd")
    assert answer.code == 0, answer.text
    assert "a damaged sstate object was set aside" in answer.err
    assert (smidr.home / "sstate-cache" / "damaged" / thing.name).read_bytes() == broken
    assert not thing.exists()
    assert smidr.newest()["state"] == "completed"
