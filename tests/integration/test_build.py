"""`smidr build` of the hello project: real BitBake, real containers, real git repositories."""

from __future__ import annotations

import gzip
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr, wait_until

_FLASH_SCRIPT = """
do_image:append() {
    printf '#!/bin/sh\\n' > ${DEPLOYDIR}/flash.sh
    chmod 755 ${DEPLOYDIR}/flash.sh
}
"""

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the module: its tests share downloads and sstate, as builds of a host do."""
    return tmp_path_factory.mktemp("smidr-home")


@pytest.fixture
def smidr(shared_home: Path, hello_project: HelloProject, docker_client: APIClient) -> Smidr:
    assert docker_client.ping()
    return Smidr(shared_home, hello_project.work)


def test_a_first_build_leaves_a_checked_image(smidr: Smidr) -> None:
    record = smidr.build()
    assert record["state"] == "completed"
    assert set(record["layer_commits"]) == {"bitbake", "meta-hello"}
    root = smidr.home / "artifacts" / "default" / record["build_id"]
    for artifact in record["artifacts"]:
        content = (root / artifact["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
        assert len(content) == artifact["size_bytes"]
    image = gzip.decompress((root / "images/hello-x86/hello-image.cpio.gz").read_bytes())
    assert image.startswith(b"070701")
    assert b"TRAILER!!!" in image


def test_a_second_build_restores_everything_and_parses_nothing(smidr: Smidr) -> None:
    smidr.build()
    record = smidr.build()
    tasks, sstate = record["tasks"], record["sstate"]
    assert tasks["recipes_parsed"] == 0
    assert tasks["recipes_cached"] == tasks["recipes"] > 0
    assert sstate["local"] == sstate["wanted"] > 0
    assert tasks["executed"] == 0
    shown = smidr("status").out
    assert "all from the parse cache" in shown
    assert "(100 %)" in shown


def test_only_what_changed_is_parsed_and_built(smidr: Smidr, hello_project: HelloProject) -> None:
    before = smidr.build()
    recipe = "meta-hello/recipes/motd/motd_1.0.bb"
    text = (hello_project.root / recipe).read_text()
    hello_project.edit(recipe, text, text + "\n# A comment costs a parse.\n")
    record = smidr.build()
    assert record["layer_commits"]["meta-hello"] != before["layer_commits"]["meta-hello"]
    assert record["tasks"]["recipes_parsed"] == 1
    assert record["tasks"]["recipes_cached"] == record["tasks"]["recipes"] - 1


def test_clean_carries_no_parse_cache_over(smidr: Smidr) -> None:
    smidr.build()
    record = smidr.build("--clean")
    assert record["tasks"]["recipes_cached"] == 0
    assert record["sstate"]["local"] == record["sstate"]["wanted"]


def test_three_different_builds_at_once_share_caches_and_nothing_else(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    text = hello_project.config.read_text()
    pc = text.replace("machine: hello-x86", "machine: hello-pc")
    variants = {
        "plain": text,
        "pc": pc,
        "chatty": pc.replace("  image:", "  extra_packages: [motd]\n  image:"),
    }
    for name, config in variants.items():
        (hello_project.work / f"{name}.yaml").write_text(config)

    def build(name: str) -> dict[str, Any]:
        return smidr.build("-c", f"{name}.yaml", "--customer", name)

    with ThreadPoolExecutor(len(variants)) as pool:
        records = dict(zip(variants, pool.map(build, variants), strict=True))
    manifests = {}
    for name, record in records.items():
        root = smidr.home / "artifacts" / name / record["build_id"] / "images"
        manifests[name] = next(root.rglob("*.manifest")).read_text()
        assert [path.name for path in root.iterdir()] == [
            "hello-x86" if name == "plain" else "hello-pc"
        ]
    assert "motd" in manifests["chatty"]
    assert "motd" not in manifests["pc"]
    again = smidr.build("-c", "chatty.yaml")
    assert again["sstate"]["missed"] == 0
    assert not list((smidr.home / "workspaces").glob("*/[0-9]*"))


def test_files_belong_to_the_builder_and_an_executable_stays_one(
    smidr: Smidr, hello_project: HelloProject, tmp_path: Path
) -> None:
    text = hello_project.config.read_text()
    config = hello_project.work / "all.yaml"
    config.write_text(text[: text.index("artifacts:")] + "artifacts: ['**']\n")
    recipe = "meta-hello/recipes/images/hello-image_1.0.bb"
    text = (hello_project.root / recipe).read_text()
    hello_project.edit(recipe, text, text + _FLASH_SCRIPT)
    record = smidr.build("-c", "all.yaml", "--keep")
    copied = smidr("artifacts", "copy", record["build_id"], str(tmp_path / "out"))
    assert copied.code == 0, copied.text
    script = next((tmp_path / "out").rglob("flash.sh"))
    assert os.access(script, os.X_OK)
    workspace = Path(record["workspace"])
    owners = {path.lstat().st_uid for path in (workspace / "build" / "tmp").rglob("*")}
    assert len(owners) == 1
    assert owners != {0}


def test_lock_pins_and_locked_refuses_what_is_not_pinned(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    refused = smidr("build", "--locked")
    assert refused.code == 3
    assert "smidr lock" in refused.text
    assert smidr("lock").code == 0
    pinned = smidr.build("--locked")
    recipe = "meta-hello/recipes/motd/motd_1.0.bb"
    text = (hello_project.root / recipe).read_text()
    hello_project.edit(recipe, text, text + "\n# Later.\n")
    still = smidr.build()
    assert still["layer_commits"] == pinned["layer_commits"]
    assert smidr("lock", "--update").code == 0
    moved = smidr.build("--locked")
    assert moved["layer_commits"]["meta-hello"] != pinned["layer_commits"]["meta-hello"]


def test_fetch_only_fetches_and_builds_nothing(
    hello_project: HelloProject, tmp_path: Path, docker_client: APIClient
) -> None:
    assert docker_client.ping()
    smidr = Smidr(tmp_path / "home", hello_project.work)
    record = smidr.build("--fetch-only")
    assert record["state"] == "completed"
    assert record["artifacts"] == []
    assert list((smidr.home / "downloads" / "git2").iterdir())
    assert not list((smidr.home / "sstate-cache").rglob("sstate:*.tgz"))


def test_a_failed_build_names_recipe_task_and_cause(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    hello_project.edit(
        "meta-hello/recipes/motd/motd_1.0.bb",
        "do_install() {\n",
        "do_install() {\n    echo 'no such printer' >&2\n    exit 7\n",
    )
    answer = smidr("build", "-t", "motd")
    assert answer.code == 1, answer.text
    record = smidr.newest()
    cause = record["findings"][0]
    assert (cause["recipe"], cause["task"]) == ("motd", "do_install")
    assert record["failure_kind"] == "build"
    assert "motd" in answer.out
    assert Path(record["workspace"]).is_dir()
    logs = list((smidr.home / "builds" / record["build_id"] / "logs").iterdir())
    assert any("no such printer" in log.read_text() for log in logs)
    assert "no such printer" in smidr("logs", record["build_id"]).out


def test_config_directories_hold_what_they_are_for(
    hello_project: HelloProject, tmp_path: Path, docker_client: APIClient
) -> None:
    assert docker_client.ping()
    places = {name: tmp_path / name for name in ("downloads", "sstate", "tmp", "deploy", "build")}
    text = hello_project.config.read_text()
    lines = "".join(f"  {name}: {path}\n" for name, path in places.items())
    config = hello_project.work / "places.yaml"
    config.write_text(text.replace("directories:\n", f"directories:\n{lines}"))
    smidr = Smidr(tmp_path / "home", hello_project.work)
    first = smidr.build("-c", "places.yaml")
    assert first["artifacts"]
    assert list(places["sstate"].rglob("sstate:*"))
    assert list(places["downloads"].iterdir())
    second = smidr.build("-c", "places.yaml")
    assert second["tasks"]["recipes_parsed"] == 0
    assert second["sstate"]["missed"] == 0
    emptied = [places[name] for name in ("tmp", "deploy", "build")]

    def leftovers() -> list[Path]:
        return [place for place in emptied for _, names, _ in os.walk(place) if "work" in names]

    wait_until(lambda: not leftovers(), "all is deleted")  # in the background
