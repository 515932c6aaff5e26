"""From a workflow's step to the commit's check: shim, agent, BitBake, and a GitHub on loopback."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from tests.fakes.agent_process import AgentProcess
from tests.fakes.child import peak_kib
from tests.fakes.github.identity import TokenService, identity_token
from tests.fakes.github.results import runtime_token
from tests.fakes.github.server import GitHubServer, serve
from tests.fakes.github.state import APP_ID, rsa_key_pem
from tests.fakes.gitlab.forge import hello_files
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr
from tests.fakes.step_harness import RunningStep, StepResult, Workspace, node

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

HUGE_BYTES = 3 << 30
SETTINGS = """\
limits: {max_memory_pressure: 0, min_free_disk: 1G, min_free_disk_percent: 0}
github: {largest_artifact: 4G}
"""
RECIPE = Path("meta-hello/recipes/hello/hello_1.0.bb")
INIT = Path("meta-hello/recipes/init/init_1.0.bb")


@dataclass
class Lab:
    """A repository that is checked out, a host that is registered, and their GitHub."""

    github: GitHubServer
    smidr: Smidr
    files: Path
    tokens: TokenService

    def commit(self) -> str:
        """Commit all changes, as a checkout of the job has them."""
        for command in (("add", "--all", "--force"), ("commit", "-q", "--allow-empty", "-m", "x")):
            git(self.files, *command)
        return git(self.files, "rev-parse", "HEAD")

    def start(self, root: Path, **inputs: str) -> tuple[RunningStep, Workspace]:
        """A step of a push to main."""
        sha = self.commit()
        self.tokens.value = identity_token(self.github.web, datetime.now(UTC), sha=sha)
        workspace = Workspace(root, self.environment(sha))
        workspace.checkout.rmdir()
        workspace.checkout.symlink_to(self.files)
        with self.github.lock:
            self.github.results.artifacts.clear()
            self.github.state.now = datetime.now(UTC)
        return workspace.start({"config": "smidr.yaml", **inputs}), workspace

    def environment(self, sha: str) -> dict[str, str]:
        return {
            "SMIDR_HOME": str(self.smidr.home),
            "GITHUB_SERVER_URL": self.github.web,
            "GITHUB_REPOSITORY": "acme/bsp",
            "GITHUB_SHA": sha,
            "ACTIONS_RUNTIME_TOKEN": runtime_token(),
            "ACTIONS_RESULTS_URL": self.github.web,
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.tokens.url}/token",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "bearer-of-the-runner",
        }

    def check(self, result: StepResult) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The commit's only check once it is over, and its annotations."""
        state, sha = self.github.state, git(self.files, "rev-parse", "HEAD")

        def runs() -> list[dict[str, Any]]:
            return [run for run in state.checks.values() if run["head_sha"] == sha]

        self.github.wait_until(lambda: [run["status"] for run in runs()] == ["completed"], 60)
        with self.github.lock:
            (run,) = runs()
            assert run["external_id"] == result.outputs["build-id"]
            assert run["name"] == "smidr / image"
            return dict(run), list(state.annotations[run["id"]])


def git(folder: Path, *arguments: str) -> str:
    """Run git apart from this machine's settings; what it prints."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    apart = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=Dev", "-c", "user.email=dev@example.invalid")
    command = ["git", "-C", str(folder), *who, *arguments]
    done = subprocess.run(
        command, env={**own, **apart}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Lab]:
    node()
    assert docker_client.ping()
    root = tmp_path_factory.mktemp("github")
    hello = make_hello_project(root)
    bitbake, _, branch = hello.bitbake.rpartition("@")
    files = hello_files(root / "project", hello.root, bitbake, branch)
    git(files, "init", "--quiet", "--initial-branch=main")
    smidr = Smidr(root / "home", root)
    smidr.home.mkdir(mode=0o700)
    (smidr.home / "agent.yaml").write_text(SETTINGS)
    with serve() as github, open_tokens() as tokens:
        github.state.now = datetime.now(UTC)
        register(smidr, github, root / "app.pem")
        found = Lab(github, smidr, files, tokens)
        sha = found.commit()
        git(files, "checkout", "--quiet", "--detach", sha)
        yield found


@contextmanager
def open_tokens() -> Iterator[TokenService]:
    service = TokenService("")
    try:
        yield service
    finally:
        service.close()


def register(smidr: Smidr, github: GitHubServer, key: Path) -> None:
    key.write_text(rsa_key_pem())
    key.chmod(0o600)
    command = ["runner", "register", "--forge", "github", "--url", github.url, "--name", "lab"]
    answer = smidr(
        *command, "--app-id", str(APP_ID), "--app-key-file", str(key), "--non-interactive"
    )
    assert answer.code == 0, answer.text


def test_a_step_builds_and_all_of_github_sees_it(lab: Lab, tmp_path: Path) -> None:
    with AgentProcess(lab.smidr):
        inputs = {"target": "hello-image", "artifacts": "**/*.cpio.gz", "upload": "true"}
        step, workspace = lab.start(tmp_path, **inputs)
        result = step.result()
        check, annotations = lab.check(result)
        record = lab.smidr("status", result.outputs["build-id"], "--json").json
        assert workspace.post(result).code == 0
    assert (result.code, result.outputs["result"]) == (0, "completed"), result.raw
    assert record["trust"] == "trusted"
    assert "NOTE: Executing Tasks" in result.text
    assert "hello-image" in result.summary
    assert (check["conclusion"], annotations) == ("success", [])
    images = [Path(place) for place in json.loads(result.outputs["images"])]
    results = lab.github.results
    stored = {name: results.path_of(name).read_bytes() for name in results.artifacts}
    kept = {image.name: image.read_bytes() for image in images if not image.is_symlink()}
    assert kept
    assert {name: stored.get(name) for name in kept} == kept
    assert all(gzip.decompress(content).startswith(b"0707") for content in kept.values())
    for secret in (lab.tokens.value, runtime_token(), "bearer-of-the-runner"):
        assert secret not in result.text


def test_an_image_too_big_for_github_is_in_the_operators_store_with_links(
    lab: Lab, tmp_path: Path
) -> None:
    stored = tmp_path / "stored"
    stored.mkdir()
    store = f"{{url: 'file://{stored}', public_url: 'https://files.acme.example'}}"
    settings = lab.smidr.home / "agent.yaml"
    settings.write_text(f"{SETTINGS.replace('4G', '1')}artifacts: {{external_store: {store}}}\n")
    try:
        with AgentProcess(lab.smidr):
            inputs = {"target": "hello-image", "artifacts": "**/*.cpio.gz", "upload": "true"}
            step, workspace = lab.start(tmp_path, **inputs)
            result = step.result()
            assert workspace.post(result).code == 0
            check, _ = lab.check(result)
    finally:
        settings.write_text(SETTINGS)
    assert (result.code, result.outputs["result"]) == (0, "completed"), result.raw
    assert check["conclusion"] == "success"
    assert "Too big for GitHub, and stored elsewhere" in result.summary
    manifest = json.loads(lab.github.results.path_of("smidr-artifacts.json").read_bytes())
    (image,) = [item for item in manifest["artifacts"] if "place" in item]
    assert f"]({image['place']})" in result.summary
    key = image["place"].removeprefix("https://files.acme.example/")
    assert hashlib.sha256((stored / key).read_bytes()).hexdigest() == image["sha256"]


def test_a_build_that_fails_is_annotated_on_its_line_in_step_and_check(
    lab: Lab, tmp_path: Path
) -> None:
    good = (lab.files / RECIPE).read_text()
    (lab.files / RECIPE).write_text(good.replace('"file://hello.c"', "file://hello.c"))
    try:
        with AgentProcess(lab.smidr):
            step, _ = lab.start(tmp_path, target="hello-image")
            result = step.result()
            check, annotations = lab.check(result)
    finally:
        (lab.files / RECIPE).write_text(good)
    assert (result.code, result.outputs["result"]) == (1, "failed"), result.raw
    assert check["conclusion"] == "failure"
    places = [(item["path"], item["start_line"], item["end_line"]) for item in annotations]
    assert (str(RECIPE), 4, 4) in places
    shown = [(item.properties.get("file"), item.properties.get("line")) for item in result.errors]
    assert (str(RECIPE), "4") in shown
    assert "hello_1.0.bb" in check["output"]["summary"]
    assert "hello_1.0.bb" in result.summary


def test_the_check_is_right_when_the_agent_was_killed_in_the_middle(
    lab: Lab, tmp_path: Path, docker_client: APIClient
) -> None:
    slow(lab)
    with AgentProcess(lab.smidr) as agent:
        step, _ = lab.start(tmp_path, target="hello-image")
        step.wait_for("NOTE: Executing Tasks")
        lab.github.wait_until(
            lambda: "in_progress" in [run["status"] for run in lab.github.state.checks.values()],
            60,
        )
        assert_no_secrets(
            lab, [item["Id"] for item in agent.containers(docker_client)], docker_client
        )
        agent.kill()
        step.wait_for("The agent does not answer")
        agent.start()
        result = step.result()
        check, annotations = lab.check(result)
    assert (result.code, result.outputs["result"]) == (0, "completed"), result.raw
    assert result.text.count("NOTE: Executing Tasks") == 1
    assert (check["conclusion"], annotations) == ("success", [])


def assert_no_secrets(lab: Lab, containers: list[str], docker_client: APIClient) -> None:
    """None of the job's tokens, and not even their names, is where BitBake runs."""
    assert containers
    for container in containers:
        told = json.dumps(docker_client.inspect_container(container))
        for secret in ("ACTIONS_", lab.tokens.value, runtime_token(), "bearer-of-the-runner"):
            assert secret not in told


def test_three_gigabytes_go_up_to_the_run_in_little_memory(
    lab: Lab, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    huge = lab.files / "meta-hello" / "recipes" / "huge" / "huge_1.0.bb"
    huge.parent.mkdir()
    image = "${DEPLOY_DIR_IMAGE}/hello-image-huge.wic"  # as the config chooses artifacts
    lines = ('mkdir -p "${DEPLOY_DIR_IMAGE}"', f'truncate -s {HUGE_BYTES} "{image}"')
    huge.write_text("do_compile() {\n" + "".join(f"    {line}\n" for line in lines) + "}\n")
    try:
        with AgentProcess(lab.smidr) as agent:
            before = peak_kib(agent.pid)
            inputs = {"target": "huge", "artifacts": "**/*.wic", "upload": "true"}
            step, _ = lab.start(tmp_path, **inputs)
            result = step.result()
            peak = peak_kib(agent.pid)
    finally:
        huge.unlink()
        huge.parent.rmdir()
    assert (result.code, result.warnings) == (0, []), result.raw
    stored = lab.github.results.artifacts["hello-image-huge.wic"]
    assert stored.size == HUGE_BYTES
    assert lab.github.results.path_of(stored.name).stat().st_size == HUGE_BYTES
    record_property("peak_kib", peak)
    record_property("peak_kib_before", before)
    assert peak * 1024 < 150_000_000


def slow(lab: Lab) -> None:
    """Make a task take some seconds, anew each time."""
    recipe = lab.files / INIT
    text = recipe.read_text().partition("\n# slow")[0]
    stamp = datetime.now(UTC).timestamp()
    recipe.write_text(f"{text}\n# slow\ndo_compile:append() {{\n    sleep 8 # {stamp}\n}}\n")
