"""A Docker Engine of a test's own, which may be restarted under a build."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from docker import APIClient

from tests.fakes.smidr_process import wait_until

__all__ = ["PrivateEngine"]

_READY_S = 60.0


class PrivateEngine:
    """`dockerd` below a directory, without networks; a context manager that ends it."""

    def __init__(self, root: Path, *options: str) -> None:
        self._root = root
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{root}/d.sock"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with APIClient(base_url=self.url) as api:
            for item in api.containers(all=True):
                api.remove_container(item["Id"], force=True)
        self.stop()
        # The engine leaves its directories as mounts of their own.
        places = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed(places):
            if Path(place).is_relative_to(self._root):
                subprocess.run(["umount", "--lazy", place], check=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("dockerd")
        assert program is not None
        folders = [f"--data-root={self._root}/data", f"--exec-root={self._root}/exec"]
        files = [f"--pidfile={self._root}/d.pid", f"--host={self.url}"]
        without = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        with (self._root / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *folders, *files, *without, *self._options], stdout=log, stderr=log
            )
        wait_until(self._answers, "the engine's answer", _READY_S)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_READY_S)

    def load(self, references: Sequence[str]) -> None:
        """Bring images here from the usual engine."""
        saving = subprocess.Popen(["docker", "save", *references], stdout=subprocess.PIPE)
        command = ["docker", f"--host={self.url}", "load", "--quiet"]
        subprocess.run(command, stdin=saving.stdout, check=True, stdout=subprocess.DEVNULL)
        assert saving.stdout is not None
        saving.stdout.close()
        assert saving.wait() == 0

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(self.url.removeprefix("unix://"))
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b"200 OK" in probe.recv(4096)
            except OSError:
                return False
