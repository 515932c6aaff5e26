"""One hash-equivalence server per BitBake release, for all trusted builds of the host.

sstate and its equivalences belong together: with a server of its own beside a shared sstate a
build would miss what others made. BitBake's own `bitbake-hashserv` runs in a container, from the
layers of the first trusted build that wants it; the engine keeps it running. A second one on the
same database takes no reports: it is for strangers.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.containers.runtime import ContainerRuntime, ContainerSpec, Mount, User
from smidr_ci.containers.user import own
from smidr_ci.errors import SmidrError
from smidr_ci.files import make_private_dir, write_atomic
from smidr_ci.layers.model import LayerSet
from smidr_ci.locks import take_lock
from smidr_ci.sharing.relaying import connected_tcp, connected_unix
from smidr_ci.trust import Trust

__all__ = [
    "ADDRESS",
    "ELSEWHERE",
    "HASH_SERVER_MOUNT",
    "HASH_SERVER_SOCKET",
    "ROLE",
    "HashServerElsewhere",
    "HashServers",
    "can_serve",
    "host_and_port",
]

_log = logging.getLogger(__name__)

HASH_SERVER_MOUNT: Final = PurePosixPath("/smidr/hashserv")
"""Directory with the socket, in containers of builds."""
ROLE: Final = "hashserv"
_OLDEST: Final = (2, 8)
"""scarthgap: before, a server that takes no reports makes BitBake warn of each (hashserv/server.py,
`handle_report`)."""
_PROGRAM: Final = PurePosixPath("/smidr/bitbake")
_DATABASE: Final = PurePosixPath("/smidr/database")
HASH_SERVER_SOCKET: Final = "socket"
ADDRESS: Final = f"unix://{HASH_SERVER_MOUNT}/{HASH_SERVER_SOCKET}"
"""What builds find there."""
ELSEWHERE: Final = "elsewhere"
"""Directory of the sockets that lead to another host's server, beside those of releases."""
_NOTE: Final = "server.json"
_UNUSED_AFTER: Final = timedelta(days=14)
_START_S: Final = 20.0
_REACH_S: Final = 2.0
_POLL_S: Final = 0.1
_MEMORY: Final = 1 << 30
_PIDS: Final = 256


def can_serve(layers: LayerSet) -> bool:
    """Whether these layers' BitBake can serve strangers too, and their OE-Core asks servers."""
    if not layers.has_oe_core or layers.bitbake_version < _OLDEST:
        return False
    folder = _bitbake_of(layers)
    return all(
        (folder / file).is_file() for file in ("bin/bitbake-hashserv", "lib/hashserv/server.py")
    )


def _bitbake_of(layers: LayerSet) -> Path:
    """Where the layers' BitBake lies on the host."""
    tree = next(tree for tree in layers.trees if layers.bitbake.is_relative_to(tree.mount_point))
    return tree.tree / layers.bitbake.relative_to(tree.mount_point)


@dataclass(frozen=True)
class HashServerElsewhere:
    """Another host's, which builds reach by sockets that the agent answers: `<root>/<trust>/`."""

    root: Path
    address: str
    """`host:port`, for trusted builds."""
    read_only_address: str = ""
    """The same for the others; empty for none."""

    def address_for(self, trust: Trust) -> tuple[str, int] | None:
        """Host and port."""
        text = self.address if trust is Trust.TRUSTED else self.read_only_address
        return host_and_port(text) if text else None

    def find(self, trust: Trust) -> Path | None:
        """The directory with the socket, when the agent and the server answer."""
        folder, address = self.root / trust, self.address_for(trust)
        if address is None or not _answers(folder / HASH_SERVER_SOCKET):
            return None
        try:
            connected_tcp(*address, timeout_s=_REACH_S).close()
        except OSError:
            return None
        return folder


def host_and_port(text: str) -> tuple[str, int]:
    """Of `10.0.0.5:8686` or `[::1]:8686`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(frozen=True)
class HashServers:
    """`<root>/<release>/` with `database/` and a directory with a socket for each kind of trust.

    Safe among threads and processes. Nothing here raises: a build can do without.
    """

    root: Path
    locks: Path
    runtime: ContainerRuntime
    user: User
    clock: Clock
    network: str | None = None
    upstream: str = ""
    """Another server that is asked for what this one does not know."""
    elsewhere: HashServerElsewhere | None = None
    """Another host's server, instead of one of this host."""

    def find(self, layers: LayerSet, trust: Trust) -> Path | None:
        """The directory with the socket of a server that answers."""
        if self.elsewhere is not None:
            return self.elsewhere.find(trust)
        folder = self._folder(layers) / trust
        return folder if _answers(folder / HASH_SERVER_SOCKET) else None

    def socket_of(self, line: str | None, trust: Trust) -> Path:
        """The socket of a release's server, such as `2.8`; None is the one that was used last.

        It counts as used. Raises `FileNotFoundError`.
        """
        notes = [self.root / line / _NOTE] if line else list(self.root.glob(f"*/{_NOTE}"))
        note = max(notes, key=lambda path: path.stat().st_mtime, default=None)
        if note is None:
            raise FileNotFoundError(2, "no hash server was started", str(self.root))
        now = self.clock.now().timestamp()
        os.utime(note, (now, now))
        return note.parent / trust / HASH_SERVER_SOCKET

    def ensure(self, layers: LayerSet, image: str, report: Callable[[str], None]) -> Path | None:
        """The same for trusted builds, and both servers started when they don't run.

        Only for a trusted build: the servers run the layers' own code.
        """
        if self.elsewhere is not None:
            if (found := self.elsewhere.find(Trust.TRUSTED)) is None:
                report("no hash server for this build: the other host's does not answer")
            return found
        folder = self._folder(layers)
        try:
            make_private_dir(self.locks)
            lock = take_lock(self.locks / f"hashserv-{folder.name}.lock", self.clock)
            if lock is not None:
                with lock:
                    self._start_both(layers, image, folder)
        except (OSError, SmidrError) as error:
            report(f"no hash server for this build: {error}")
        self.retire(_UNUSED_AFTER, keep=folder.name)
        return self.find(layers, Trust.TRUSTED)

    def retire(self, unused: timedelta, keep: str = "") -> None:
        """End the servers of other releases that no build has asked for so long."""
        latest = (self.clock.now() - unused).timestamp()
        for note in self.root.glob(f"*/{_NOTE}"):
            line = note.parent.name
            try:
                if line != keep and note.stat().st_mtime <= latest:
                    self.stop(line)
                    note.unlink()
            except (OSError, SmidrError) as error:
                _log.warning("the hash server of %s is not ended: %s", line, error)

    def stop(self, line: str) -> None:
        """End the servers of a release, such as `2.8`; the database stays. Raises `EngineError`."""
        for trust in Trust:
            self._remove(self.root / line, trust)

    def _remove(self, folder: Path, trust: Trust) -> None:
        for handle in self.runtime.list_builds():
            if (handle.role, handle.build_id) == (ROLE, _name(folder.name, trust)):
                self.runtime.remove(handle)
        (folder / trust / HASH_SERVER_SOCKET).unlink(missing_ok=True)

    def _folder(self, layers: LayerSet) -> Path:
        return self.root / ".".join(str(part) for part in layers.bitbake_version)

    def _start_both(self, layers: LayerSet, image: str, folder: Path) -> None:
        """Start what does not answer; with another upstream than before, both."""
        facts = {"upstream": self.upstream}
        note = folder / _NOTE
        if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != facts:
            self.stop(folder.name)
        for trust in Trust:
            if _answers(folder / trust / HASH_SERVER_SOCKET):
                continue
            for part in ("database", trust):
                make_private_dir(folder / part)
                own(folder / part, self.user)
            self._remove(folder, trust)
            self.runtime.start(self._spec(layers, image, folder, trust))
            self._await(folder / trust / HASH_SERVER_SOCKET)
        write_atomic(note, json.dumps(facts), mode=0o600)
        now = self.clock.now().timestamp()
        os.utime(note, (now, now))

    def _await(self, path: Path) -> None:
        deadline = self.clock.monotonic() + _START_S
        while not _answers(path):
            if self.clock.monotonic() > deadline:
                raise SmidrError(f"it does not answer at {path}")
            self.clock.sleep(_POLL_S)

    def _spec(self, layers: LayerSet, image: str, folder: Path, trust: Trust) -> ContainerSpec:
        command = ["python3", "-B", str(_PROGRAM / "bin/bitbake-hashserv"), "--bind", ADDRESS]
        command += ["--database", str(_DATABASE / "hashserv.db")]
        if trust is Trust.UNTRUSTED:
            command += ["--read-only", "--anon-perms", "@read"]
        else:
            command += ["--anon-perms", "@read,@report"]
            command += ["--upstream", self.upstream] if self.upstream else []
        needs_network = trust is Trust.TRUSTED and self.upstream
        return ContainerSpec(
            build_id=_name(folder.name, trust),
            image=image,
            command=tuple(command),
            user=self.user,
            mounts=(
                Mount(_bitbake_of(layers), _PROGRAM),
                Mount(folder / "database", _DATABASE, writable=True),
                Mount(folder / trust, HASH_SERVER_MOUNT, writable=True),
            ),
            workdir=PurePosixPath("/"),
            memory_bytes=_MEMORY,
            pids=_PIDS,
            network=self.network if needs_network else "none",
            role=ROLE,
            restarts=True,
        )


def _name(line: str, trust: Trust) -> str:
    return f"{line}-{trust}"


def _answers(path: Path) -> bool:
    """Whether somebody listens at the socket."""
    try:
        connected_unix(path, timeout_s=_REACH_S).close()
    except OSError:
        return False
    return True
