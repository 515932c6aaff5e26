"""The host's hash-equivalence server, with the real OE-Core under a real agent.

Takes the git repositories from SMIDR_TEST_OE_CORE and SMIDR_TEST_BITBAKE (clones or URLs).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from docker import APIClient

from smidr_ci.images.packages import YOCTO_HOST_PACKAGES
from tests.fakes.git_server import serve
from tests.fakes.smidr_process import Smidr, wait_until
from tests.integration.test_oe_core_build import CONFIG, DATA, HOSTCC_PACKAGES, repository_url

pytestmark = [pytest.mark.docker, pytest.mark.bitbake, pytest.mark.oecore]

BRANCH, BITBAKE_BRANCH = "scarthgap", "2.8"


def served(variable: str, root: Path, branch: str) -> str:
    """A name below `root` for a clone of one branch; a stranger's build reads no `file:` URL."""
    url = repository_url(variable)
    if not url.startswith("file://"):
        pytest.skip(f"{variable} must be a local clone here")
    command = ["git", "-c", "safe.directory=*", "clone", "--quiet", "--bare", "--shared"]
    options = ["--single-branch", "--branch", branch]
    source = unquote(url.removeprefix("file://"))
    subprocess.run([*command, *options, source, str(root / variable)], check=True)
    return variable


@pytest.fixture
def smidr(tmp_path: Path, docker_client: APIClient) -> Iterator[Smidr]:
    """A running agent, and a project with OE-Core whose layers come over HTTP."""
    root = tmp_path / "served"
    root.mkdir()
    core = served("SMIDR_TEST_OE_CORE", root, BRANCH)
    bitbake = served("SMIDR_TEST_BITBAKE", root, BITBAKE_BRANCH)
    project = tmp_path / "project"
    project.mkdir()
    shutil.copytree(DATA, project / "ours")
    with serve(root) as server:
        text = CONFIG.format(
            branch=BRANCH,
            bitbake_branch=BITBAKE_BRANCH,
            bitbake=server.url(bitbake),
            core=server.url(core),
            data="ours",
            packages=json.dumps(sorted({*YOCTO_HOST_PACKAGES, *HOSTCC_PACKAGES})),
        )
        (project / "smidr.yaml").write_text(text)
        smidr = Smidr(tmp_path / "home", project)
        with (tmp_path / "agent.log").open("w") as log:
            agent = smidr.start("daemon", output=log)
        try:
            wait_until(lambda: smidr("daemon", "status").code == 0, "the agent")
            yield smidr
        finally:
            agent.terminate()
            agent.wait(60)
            for container in servers(docker_client, smidr):
                docker_client.remove_container(container["Id"], force=True)


def servers(client: APIClient, smidr: Smidr) -> list[dict[str, Any]]:
    labels = {"label": ["io.smidr.role=hashserv", f"io.smidr.owner={smidr.home}"]}
    return list(client.containers(all=True, filters=labels))


def known(smidr: Smidr) -> list[tuple[Any, ...]]:
    """What the server's database says, but for its times."""
    database = smidr.home / "hashserv" / BITBAKE_BRANCH / "database" / "hashserv.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT method, taskhash, unihash FROM unihashes_v3")
        return sorted(found.fetchall())


def test_builds_share_their_equivalences_and_strangers_add_none(
    smidr: Smidr, docker_client: APIClient
) -> None:
    first = smidr.build()
    assert len(servers(docker_client, smidr)) == 2
    before = known(smidr)
    assert len(before) > 10

    second = smidr.build()
    again = second["tasks"]["executed"]  # of this image, with or without a server
    assert second["sstate"]["local"] > 20
    assert again < first["tasks"]["executed"] / 3

    # Another hash, the same output: what is made of it is the same too.
    recipe = next((smidr.directory / "ours").rglob("sensor_*.bb"))
    recipe.write_text(recipe.read_text() + '\ndo_compile[vardeps] += "OTHER"\nOTHER = "1"\n')
    equal = smidr.build()
    # The changed task and those before it run; what comes after is restored.
    assert again < equal["tasks"]["executed"] < first["tasks"]["executed"] / 2
    taught = known(smidr)
    assert any(taskhash != unihash for _, taskhash, unihash in taught)

    stranger = smidr.build("--untrusted")
    assert stranger["sstate"]["mirrors"] == second["sstate"]["local"]
    assert stranger["tasks"]["executed"] == again
    assert stranger["tasks"]["recipes_parsed"] == 0
    assert stranger["tasks"]["warnings"] == second["tasks"]["warnings"]
    recipe.write_text(recipe.read_text() + '\nOTHER = "2"\n')
    smidr.build("--untrusted")
    assert known(smidr) == taught
    for message in TEACHING:
        tell(smidr, "untrusted", message)
    assert known(smidr) == taught
    tell(smidr, "trusted", TEACHING[0])
    assert known(smidr) != taught

    assert smidr("daemon", "stop").code == 0
    wait_until(lambda: not servers(docker_client, smidr), "the servers' end")


FORGED = {"method": "oe.sstatesig.OEOuthashBasic", "taskhash": "a" * 64, "unihash": "b" * 64}
TEACHING = (
    {"report-equiv": FORGED},
    {"report": {**FORGED, "outhash": "c" * 64}},
    {"remove": {"where": {"method": FORGED["method"]}}},
    {"clean-unused": {"max_age_seconds": 0}},
    {"gc-mark": {"mark": "m", "where": {"method": "none"}}},
    {"gc-sweep": {"mark": "m"}},
    {"reset-stats": None},
    {"new-user": {"username": "me", "permissions": ["@all"]}},
)
"""What a client could try (bitbake's lib/hashserv/server.py)."""


def tell(smidr: Smidr, trust: str, message: object) -> None:
    """Say it to a server, and wait for its answer or until it hangs up."""
    folder = os.open(smidr.home / "hashserv" / BITBAKE_BRANCH / trust, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(f"/proc/self/fd/{folder}/socket")
        client.sendall(f"OEHASHEQUIV 1.1\n\n{json.dumps(message)}\n".encode())
        client.recv(4096)
    os.close(folder)
