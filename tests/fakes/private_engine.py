"""A Docker daemon of a test's own, which may be stopped, killed and started again.

It has network and mount namespaces of its own, so that it touches nothing of the host's daemon.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from docker import APIClient

from smidr_ci.engine import Engine
from smidr_ci.errors import EngineError
from tests.fakes.smidr_process import wait_until

__all__ = ["PrivateEngine", "why_not_here"]

_PROGRAMS = ("dockerd", "unshare", "nsenter")
_START_S = 60.0
_STOP_S = 60.0
# Another daemon's containerd, or its containers' sockets, must not be found.
_APART = """
set -e
for folder in /run/containerd /run/docker; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
echo ready
exec sleep infinity
"""


def why_not_here() -> str:
    """Why no daemon can be started here, and what to do about it; empty when one can."""
    if os.geteuid() != 0:
        return "a Docker daemon of its own needs root: run this test with sudo"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install docker.io util-linux"
    return ""


class PrivateEngine:
    """`dockerd` below a directory on a real disk; a context manager that leaves nothing of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"unix://{root / 'docker.sock'}"
        self.log = root / "dockerd.log"
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True)
        (self.root / "daemon.json").write_text("{}")
        command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _APART]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        # A daemon in the host's network would take its bridge over.
        own, host = (os.readlink(f"/proc/{pid}/ns/net") for pid in (self._holder.pid, "self"))
        assert own != host
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon is not None:
            if not self._runs():
                self.start()
            with self.client() as client:
                for container in client.containers(all=True):
                    client.remove_container(container["Id"], force=True)
            self.stop()
        self._holder.kill()
        self._holder.communicate()
        # A shim lets go of its mounts a moment after its container.
        wait_until(self._is_removed, f"the removal of {self.root}")

    def start(self, *, has_live_restore: bool = False) -> None:
        """Start it and wait until it answers."""
        options = {
            "config-file": self.root / "daemon.json",
            "data-root": self.root / "data",
            "exec-root": self.root / "exec",
            "pidfile": self.root / "docker.pid",
            "host": self.url,
            "iptables": "false",
            "ip-forward": "false",
            "ip-masq": "false",
            "live-restore": "true" if has_live_restore else "false",
        }
        apart = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount"]
        flags = [f"--{name}={value}" for name, value in options.items()]
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*apart, shutil.which("dockerd") or "dockerd", *flags], stdout=log, stderr=log
            )
        wait_until(lambda: self._answers() or not self._runs(), "the Docker daemon", _START_S)
        assert self._runs(), self.log.read_text()[-2000:]

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`, which its own containerd does not outlive."""
        self._end(signal.SIGKILL)
        pid_file = self.root / "exec" / "containerd" / "containerd.pid"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        # Where nobody reaps it, the next daemon would take what is left of it for alive.
        pid_file.unlink(missing_ok=True)

    @contextmanager
    def client(self) -> Iterator[APIClient]:
        """The SDK's low-level client."""
        client = APIClient(self.url, version="auto")
        try:
            yield client
        finally:
            client.close()

    def load(self, source: APIClient, image: str) -> None:
        """Copy an image, by its tag, from another daemon."""
        archive = self.root / "images.tar"
        with archive.open("wb") as file:
            for chunk in source.get_image(image):
                file.write(chunk)
        with self.client() as client, archive.open("rb") as file:
            load: Any = client.load_image  # it has no types
            for answer in load(file):
                assert "error" not in answer, answer
        archive.unlink()

    def _answers(self) -> bool:
        try:
            Engine(self.url).reach()
        except EngineError:
            return False
        return True

    def _runs(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    def _end(self, number: signal.Signals) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(number)
        self._daemon.wait(_STOP_S)

    def _is_removed(self) -> bool:
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()
