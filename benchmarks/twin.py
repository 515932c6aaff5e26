"""A copy of a build's container that stays alive, to run BitBake in by hand."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.site import Site
from smidr_ci.containers.body import OWNER_LABEL
from smidr_ci.engine import Engine

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["Twin", "twin_of"]

_WAIT_S: Final = 120.0
_OWN_PROCESSES: Final = 2
"""The container's init and its `sleep`."""
_KEEP_CACHE: Final = "tar -cf ~/seed.tar $(ls -d cache tmp/cache 2>/dev/null)"
_CLEAR: Final = "rm -rf cache tmp"
_SEED: Final = f"{_CLEAR} && tar -xf ~/seed.tar"


@dataclass(frozen=True)
class Twin:
    """A running container with a build's image, user, limits and mounts."""

    api: APIClient
    container_id: str
    facts: Mapping[str, Any]
    """What the engine said of the build's own container."""
    topdir: Path
    """Host path of what is mounted at `/smidr/build`."""
    enter: str
    """Shell words that make BitBake's environment, as a user types them."""

    def bitbake(self, target: str) -> float:
        """Seconds of `docker exec ... bitbake TARGET`; waits until its server is gone, untimed."""
        begun = time.perf_counter()
        self.run(f"{self.enter} && exec bitbake {shlex.quote(target)}")
        seconds = time.perf_counter() - begun
        self._await_quiet()
        return seconds

    def bitbake_once(self, target: str) -> float:
        """Seconds of `docker run ... bitbake TARGET`, to the container's end."""
        command = f"{self.enter} && exec bitbake {shlex.quote(target)}"
        begun = time.perf_counter()
        done = subprocess.run(
            [*self._docker_run(), "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{command} failed in a container:\n{done.stdout}")
        return time.perf_counter() - begun

    def _docker_run(self) -> list[str]:
        config, host = self.facts["Config"], self.facts["HostConfig"]
        options = ["--rm", "--init", "--user", config["User"], "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--shm-size", str(host["ShmSize"])]
        options += ["-e", "HOME=/smidr/home", "-w", "/smidr/build"]
        for mount in host["Mounts"]:
            mode = ":ro" if mount.get("ReadOnly") else ""
            options += ["-v", f"{mount['Source']}:{mount['Target']}{mode}"]
        return ["docker", "run", *options, "--entrypoint", "bash", config["Image"]]

    def cold(self, target: str) -> float:
        """The same in a directory without any cache."""
        self.run(_CLEAR)
        return self.bitbake(target)

    def seeded(self, target: str) -> float:
        """The same in a fresh directory, with the caches of `keep_cache` copied by hand."""
        self.run(_SEED)
        return self.bitbake(target)

    def keep_cache(self) -> None:
        """Put BitBake's caches aside for `seeded`."""
        self.run(_KEEP_CACHE)

    def run(self, command: str) -> None:
        """Run a shell command in the build directory; a failure ends the benchmark."""
        done = subprocess.run(
            ["docker", "exec", "-w", "/smidr/build", self.container_id, "bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{command} failed in the container:\n{done.stdout}")

    def _await_quiet(self) -> None:
        deadline = time.monotonic() + _WAIT_S
        while len(self.api.top(self.container_id)["Processes"]) > _OWN_PROCESSES:
            if time.monotonic() > deadline:
                raise SystemExit(f"BitBake's server still runs after {_WAIT_S:.0f} s")
            time.sleep(0.1)


@contextlib.contextmanager
def twin_of(
    site: Site, *, enter: str = "", replaced: Mapping[str, Path] | None = None
) -> Iterator[Twin]:
    """Build once with `--keep`, and copy that build's container while it runs.

    Its kept directory is the twin's build directory, with everything built. `enter` defaults to
    what a project without an init script needs; `replaced` mounts other directories (container
    path -> host path) than the build had.
    """
    api = Engine().api
    process = site.start("build", "--keep", "--json", "-t", site.target)
    facts, accounts = _while_it_runs(api, site, process)
    out, err = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"smidr build failed:\n{out}{err}")
    for mount in facts["HostConfig"]["Mounts"]:
        mount["Source"] = str((replaced or {}).get(mount["Target"], mount["Source"]))
    container_id = _start_copy(api, facts, accounts)
    mounts = {mount["Target"]: Path(mount["Source"]) for mount in facts["HostConfig"]["Mounts"]}
    by_hand = "export PATH=/smidr/layers/bitbake/bin:$PATH BBPATH=/smidr/build LANG=C.UTF-8"
    try:
        yield Twin(api, container_id, facts, mounts["/smidr/build"], enter or by_hand)
    finally:
        api.remove_container(container_id, force=True, v=True)


def _while_it_runs(
    api: APIClient, site: Site, process: subprocess.Popen[str]
) -> tuple[dict[str, Any], bytes]:
    """The running container as the engine describes it, and its accounts as a tar."""
    mine = {"label": f"{OWNER_LABEL}={site.home.resolve()}"}
    while process.poll() is None:
        for entry in api.containers(filters=mine):
            with contextlib.suppress(_gone()):
                facts = api.inspect_container(entry["Id"])
                return facts, b"".join(api.get_archive(entry["Id"], "/etc/passwd")[0])
        time.sleep(0.05)
    raise SystemExit(f"the build's container was never seen:\n{process.communicate()}")


def _gone() -> type[Exception]:
    from docker.errors import NotFound  # noqa: PLC0415 - the SDK is loaded by now

    return NotFound


def _start_copy(api: APIClient, facts: Mapping[str, Any], accounts: bytes) -> str:
    config = facts["Config"]
    body = {
        "Image": config["Image"],
        "Entrypoint": ["sleep"],
        "Cmd": ["infinity"],
        **{name: config[name] for name in ("Env", "User", "WorkingDir")},
        "HostConfig": facts["HostConfig"],
    }
    create: Any = api.create_container_from_config  # it has no types
    container_id = str(create(body)["Id"])
    api.put_archive(container_id, "/etc", accounts)
    api.start(container_id)
    return container_id
