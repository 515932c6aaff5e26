"""A job's image that GitLab refuses is in an S3 bucket, and everybody finds it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from docker import APIClient

from smidr_ci.config.stores import StoreSettings
from smidr_ci.stores.s3_client import make_client
from tests.fakes.gitlab.forge import artifact_of
from tests.fakes.gitlab.lab import Site, is_whole, open_lab, text_of
from tests.fakes.gitlab.server import Fault
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import wait_until
from tests.fakes.store_servers import rclone_server, s3_login

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

CI = """\
include: {local: gitlab-template.yml}

image:
  extends: .smidr-build
  variables: {SMIDR_TARGET: hello-image}
"""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Site]:
    assert docker_client.ping()
    root = tmp_path_factory.mktemp("gitlab")
    login = s3_login(root)
    with (
        rclone_server("s3", root / "buckets") as url,
        open_lab(root, make_hello_project(root), CI) as found,
    ):
        store = StoreSettings(url="s3://images/ci", endpoint=url, credentials_file=login)
        with closing(make_client(store)) as client:
            client.create_bucket(Bucket="images")
        with (found.smidr.home / "agent.yaml").open("a") as settings:
            settings.write(
                "artifacts:\n  external_store:\n"
                f"    url: s3://images/ci\n    endpoint: {url}\n    credentials_file: {login}\n"
            )
        found.stop_agent()
        found.start_agent()
        yield found


def test_the_image_is_in_the_bucket_with_links_on_every_page(site: Site) -> None:
    site.forge.server.faults.append(Fault("upload", status=413))
    job = site.run("image", merge_request=5, is_protected=True)
    text = text_of(job)
    assert (job.state, is_whole(job)) == ("success", True), text
    assert not [query for query, _ in job.uploads if query["artifact_type"] == "archive"]
    links = json.loads(gzip.decompress(artifact_of(job, "annotations")))["Images"]
    urls = {one["external_link"]["label"]: one["external_link"]["url"] for one in links}
    (image,) = [url for label, url in urls.items() if ".cpio.gz (" in label]
    content = requests.get(image, timeout=30).content
    assert gzip.decompress(content)
    assert hashlib.sha256(content).hexdigest() in text
    assert "too large for the server" in text
    wait_until(
        lambda: any("stored elsewhere" in note["body"] for note in site.forge.api.notes),
        "the note with the links",
    )
    assert len(site.forge.api.notes) == 1
    assert image in site.forge.api.notes[0]["body"]


def test_a_forks_image_is_not_stored_and_the_job_says_why(site: Site) -> None:
    site.forge.server.faults.append(Fault("upload", status=413))
    job = site.run("image", merge_request=6, source_project=99, is_protected=True)
    assert (job.state, job.failure_reason) == ("failed", "script_failure")
    assert "takes no files of such builds" in text_of(job)
