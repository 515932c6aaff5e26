"""What goes wrong between an agent at work and its GitLab: real Docker, real BitBake."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import APIClient

from tests.fakes.child import peak_kib
from tests.fakes.gitlab.forge import zip_of
from tests.fakes.gitlab.lab import Site, is_whole, open_lab, slow, text_of
from tests.fakes.gitlab.server import FakeJob, Fault
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

HUGE_BYTES = 3 << 30
CI = f"""\
include: {{local: gitlab-template.yml}}

image:
  extends: .smidr-build
  variables: {{SMIDR_TARGET: hello-image}}

huge:
  extends: .smidr-build
  variables: {{SMIDR_TARGET: hello}}
  script:
    - smidr ci build
    - truncate -s {HUGE_BYTES} huge.wic.zst
  artifacts:
    paths: [huge.wic.zst]
"""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Site]:
    assert docker_client.ping()
    root = tmp_path_factory.mktemp("trouble")
    with open_lab(root, make_hello_project(root), CI) as found:
        yield found


def in_the_middle(site: Site) -> FakeJob:
    """A job whose build has begun, and has some seconds to go."""
    slow(site)
    job = site.forge.start_job("image", site.forge.push(site.files))
    site.wait_trace(job, "Executing Tasks")
    return job


def assert_arrived(job: FakeJob) -> None:
    """The result is right, the trace complete and there once, the archive whole."""
    text = text_of(job)
    assert (job.state, is_whole(job)) == ("success", True), text
    for line in ("NOTE: Executing Tasks", "Job succeeded", "Tasks: "):
        assert text.count(line) == 1, f"{line} in\n{text}"
    with zip_of(job) as archive:
        assert archive.testzip() is None


def test_errors_and_lost_answers_of_all_kinds_leave_trace_and_result_as_they_are(
    site: Site,
) -> None:
    job = in_the_middle(site)
    lost = {"is_after": True, "is_cut": True}
    faults = [
        Fault("patch", 500, count=6),  # more than one round of retries
        Fault("patch", 502, count=6),
        Fault("patch", 429, {"Retry-After": "1"}, count=2),
        Fault("patch", count=3, **lost),  # type: ignore[arg-type]  # its flags
        Fault("upload", 502),
        Fault("upload", is_cut=True),
        Fault("final", 503, count=2),
        Fault("final", count=1, **lost),  # type: ignore[arg-type]  # its flags
    ]
    with site.forge.server.lock:
        site.forge.server.faults += faults
    site.wait_over(job)
    assert_arrived(job)
    assert [fault for fault in faults if fault.count] == []


def test_a_forge_that_is_away_for_many_rounds_gets_all_of_it(site: Site) -> None:
    job = in_the_middle(site)
    server = site.forge.server
    with server.lock:
        server.is_down, server.refused = True, 0
    server.wait_until(lambda: server.refused >= 6, 60)
    build = site.smidr.newest()["build_id"]
    wait_until(
        lambda: site.smidr("status", "--json", build).json["state"] == "completed",
        "the end of the build",
        120,
    )
    with server.lock:
        server.is_down = False
    site.wait_over(job)
    assert_arrived(job)


def test_a_line_of_a_kilobyte_a_second_takes_all_of_the_trace(site: Site) -> None:
    job = in_the_middle(site)
    server = site.forge.server
    server.bytes_per_s = 1000
    try:
        site.wait_trace(job, "Tasks: ")
        server.wait_until(lambda: job.is_over or bool(server.asked("upload")), 120)
    finally:
        server.bytes_per_s = None
    site.wait_over(job)
    assert_arrived(job)


def test_three_gigabytes_go_up_in_little_memory(
    site: Site, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    server = site.forge.server
    server.uploads_to = tmp_path
    try:
        job = site.run("huge")
    finally:
        server.uploads_to = None
    assert (job.state, is_whole(job)) == ("success", True), text_of(job)
    (form,) = [Path(body.decode()) for query, body in job.uploads if is_archive(query)]
    with form.open("rb") as file, zipfile.ZipFile(file) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.file_size) == ("huge.wic.zst", HUGE_BYTES)
        assert crc_of_zeros(HUGE_BYTES) == entry.CRC
    peak = peak_kib(site.agents[-1].pid)
    record_property("peak_kib", peak)
    assert peak * 1024 < 150_000_000


def is_archive(query: dict[str, str]) -> bool:
    return query["artifact_type"] == "archive"


def crc_of_zeros(size: int) -> int:
    block, crc = bytes(1 << 24), 0
    for _ in range(size >> 24):
        crc = zlib.crc32(block, crc)
    return crc
