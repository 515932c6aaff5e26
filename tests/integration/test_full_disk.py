"""A cache's disk fills up under a real BitBake: the cause is named, and the cache stays whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from docker import APIClient

from tests.fakes.bulky_recipes import BulkySources
from tests.fakes.disk import make_roomy, small_disk
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@pytest.mark.parametrize("cache", ["sstate", "downloads"])
def test_a_cache_on_a_full_disk_is_the_recorded_cause_and_is_whole(
    tmp_path: Path, hello_project: HelloProject, docker_client: APIClient, cache: str
) -> None:
    assert docker_client.ping()
    BulkySources(hello_project).change(1)
    text = hello_project.config.read_text()
    watched = text.replace("container:\n", "advanced:\n  disk_monitoring: false\ncontainer:\n", 1)
    hello_project.config.write_text(watched)
    smidr = Smidr(tmp_path / "home", hello_project.work)
    smidr.home.mkdir(mode=0o700)
    with small_disk(tmp_path / "disk", "2m") as disk:
        settings = {
            "directories": {cache: str(disk / "cache")},
            "limits": {"min_free_disk": "100K", "min_free_disk_percent": 0},
            "cache": {"gc_below_free": 0},
        }
        (smidr.home / "agent.yaml").write_text(json.dumps(settings))
        answer = smidr("build", "-t", "bulky-a")
        record = smidr.newest()
        assert answer.code == 4, answer.text
        assert (record["state"], record["failure_kind"]) == ("failed", "disk"), answer.text
        assert record["findings"][0]["category"] == "disk-space"
        verified = smidr("cache", "verify")
        assert verified.code == 0, verified.text
        make_roomy(disk)
        assert smidr.build("-t", "bulky-a")["state"] == "completed"
        again = smidr("cache", "verify")
        assert again.code == 0, again.text
