"""The whole way on one machine: a forge on loopback, a registration, pushes, builds, results.

Run by `make demo`. The forge is the one of the tests; everything else is what a user has: the agent
is `smidr runner run`, the builds are real BitBake in containers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fakes.gitlab.forge import (  # noqa: E402 - found by the line above
    API_TOKEN,
    GitLabForge,
    findings_of,
    hello_files,
    open_forge,
    zip_of,
)
from tests.fakes.gitlab.server import FakeJob  # noqa: E402 - the same

NAME = "demo"
PORT = 18929
"""The same each time, so that what was fetched from there is known again; any, when it is taken."""
RUNNER_TOKEN = "glrt-demo-0123456789abcdef"  # noqa: S105 - of the demo's own forge
JOB_S = 600.0
Agent = subprocess.Popen[bytes]


def main() -> int:
    """Show it all; 1 when something does not come out as it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hello", type=Path, default=ROOT / "examples" / "hello")
    hello = parser.parse_args().hello
    with tempfile.TemporaryDirectory(prefix="smidr-demo-") as name, _forge(Path(name)) as forge:
        files = _project(forge, hello, Path(name))
        with _registered(forge, Path(name)), _agent(Path(name) / "agent.log") as agent:
            is_good = _build(forge, files, agent) and _break(forge, files, agent)
    return 0 if is_good else 1


@contextmanager
def _forge(root: Path) -> Iterator[GitLabForge]:
    try:
        context = open_forge(root / "forge", PORT)
        forge = context.__enter__()
    except OSError:
        context = open_forge(root / "other-forge")
        forge = context.__enter__()
    forge.server.state.add_runner(RUNNER_TOKEN)
    _say(f"A forge runs at {forge.url}")
    try:
        yield forge
    finally:
        context.__exit__(None, None, None)


def _project(forge: GitLabForge, hello: Path, root: Path) -> Path:
    work = hello / "work"
    environment = dict(
        line.removeprefix("export ").split("=", 1)
        for line in (work / "env").read_text().splitlines()
    )
    bitbake = environment["SMIDR_HELLO_BITBAKE"].strip("'\"")
    branch = environment["SMIDR_HELLO_BITBAKE_BRANCH"].strip("'\"")
    if bitbake.startswith("file://"):
        bitbake = forge.share(Path(bitbake.removeprefix("file://")), "bitbake.git")
    return hello_files(root / "project", hello, bitbake, branch)


@contextmanager
def _registered(forge: GitLabForge, root: Path) -> Iterator[None]:
    token_file = root / "api-token"
    token_file.touch(mode=0o600)
    token_file.write_text(API_TOKEN)
    subprocess.run(
        [*_SMIDR, "runner", "unregister", "--force", "--only-here", NAME],
        check=False,
        capture_output=True,
    )
    command = ["runner", "register", "--url", forge.url, "--name", NAME, "--non-interactive"]
    _say(f"smidr {' '.join(command)} --api-token-file FILE")
    subprocess.run(
        [*_SMIDR, *command, "--api-token-file", str(token_file)],
        env={**os.environ, "SMIDR_RUNNER_TOKEN": RUNNER_TOKEN},
        check=True,
    )
    try:
        yield
    finally:
        subprocess.run([*_SMIDR, "runner", "unregister", "--force", NAME], check=False)


@contextmanager
def _agent(log: Path) -> Iterator[Agent]:
    _say("smidr runner run")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*_SMIDR, "runner", "run"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    except BaseException:
        sys.stderr.write(log.read_text())
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _build(forge: GitLabForge, files: Path, agent: Agent) -> bool:
    sha = forge.push(files, "Hello")
    _say(f"git push: commit {sha[:8]} on main starts the pipeline's job 'image'")
    job = forge.start_job("image", sha)
    _follow(forge, job, agent)
    if job.state != "success":
        return False
    with zip_of(job) as archive:
        images = [name for name in archive.namelist() if "/hello-image" in name]
    reports = ", ".join(sorted({query["artifact_type"] for query, _ in job.uploads}))
    _say(f"GitLab has the job as {job.state}, {len(images)} files of the image, and: {reports}")
    return _shows_status(forge, "success")


def _break(forge: GitLabForge, files: Path, agent: Agent) -> bool:
    recipe = files / "meta-hello" / "recipes" / "hello" / "hello_1.0.bb"
    recipe.write_text(recipe.read_text().replace('"file://hello.c"', "file://hello.c"))
    sha = forge.push(files, "Break hello", branch="change")
    _say(f"git push: commit {sha[:8]}, merge request !1 with a mistake in {recipe.name}")
    job = forge.start_job("image", sha, merge_request=1, is_protected=False)
    _follow(forge, job, agent)
    findings = findings_of(job) if job.uploads else []
    if job.state != "failed" or job.failure_reason != "script_failure" or not findings:
        return False
    for finding in findings:
        place = finding["location"]
        line = place.get("lines", place.get("positions", {})).get("begin")
        print(f"    on the diff, {place['path']}:{line}: {finding['description']}")
    if not _shows_status(forge, "failed"):
        return False
    _wait(lambda: bool(forge.api.notes), 20)
    _say("The note on the merge request:")
    for text in forge.api.notes[0]["body"].splitlines()[:14]:
        print(f"    {text}")
    return True


def _shows_status(forge: GitLabForge, state: str) -> bool:
    def is_there() -> bool:
        return any(item["status"] == state for item in forge.api.statuses)

    is_told = _wait(is_there, 20)
    for item in forge.api.statuses[-1:]:
        _say(f"Commit status: {item['name']}, {item['status']}: {item['description']}")
    return is_told


def _follow(forge: GitLabForge, job: FakeJob, agent: Agent) -> None:
    """Show the trace as it arrives at the forge."""
    shown, until = b"", time.monotonic() + JOB_S
    while time.monotonic() < until and agent.poll() is None:
        with forge.server.lock:
            is_over, stored = job.is_over, bytes(job.stored)
            if stored == shown and not is_over:
                forge.server.lock.wait(1.0)
                continue
        for line in stored[len(shown) :].decode(errors="replace").split("\n"):
            if text := _plain(line):
                print(f"    | {text}", flush=True)
        shown = stored
        if is_over:
            return
    raise SystemExit("demo: the job did not end")


def _plain(line: str) -> str:
    """A line of a trace without times, marks of sections and colours."""
    text = re.sub(r"^\S+Z [0-9a-f]{2}[OE][ +]", "", line)
    text = re.sub(r"section_(?:start|end):\d+:[^\r]*\r", "", text)
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).rstrip()


def _wait(is_so: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


_SMIDR = [sys.executable, "-m", "smidr_ci"]

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
