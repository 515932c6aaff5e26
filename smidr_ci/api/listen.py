"""The agent's sockets, and the lock that makes it the only agent of its home."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from smidr_ci.api.addresses import Endpoint
from smidr_ci.api.local_token import AGENT_LOCK
from smidr_ci.api.sockets import short_path
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import ConflictError, HostError, UsageError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.forges.github.runners.door import Door
from smidr_ci.home import Home
from smidr_ci.locks import KernelLock, take_lock

__all__ = ["bind_door", "bind_tcp", "bind_unix", "peer_uid", "take_agent_lock"]

_BACKLOG: Final = 512


def bind_tcp(endpoint: Endpoint) -> socket.socket:
    """A listening socket; raises `UsageError` when the address can't be had."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, endpoint.host != "::")
        sock.bind((endpoint.host, endpoint.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot_listen(str(endpoint), error) from error
    return sock


def bind_unix(path: Path) -> socket.socket:
    """A listening socket at `path` for its owner alone; call it with the agent's lock held.

    What a dead agent left there is removed. Raises `UsageError` when somebody listens there or
    something else lies there, `HostError` when other users can write to its directory.
    """
    _check_folder(path.parent)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file the mode of the socket, so it is never open to anybody else.
        os.fchmod(sock.fileno(), 0o600)
        with short_path(path) as name:
            sock.bind(name)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot_listen(f"unix:{path}", error) from error
    return sock


def bind_door(door: Door) -> socket.socket:
    """A listening socket for the user of runners' jobs; raises as `bind_unix`, and `HostError`."""
    folder = door.path.parent
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for place in (folder.parent, folder):  # whatever our umask: jobs may be another user
            place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o011)
    except OSError as error:
        raise as_host_error(error, "can't make a socket for runners' jobs", folder) from error
    sock = bind_unix(door.path)
    try:
        # Until here it was ours alone.
        os.chown(door.path, door.uid, door.gid, follow_symlinks=False)
    except OSError as error:
        sock.close()
        raise as_host_error(error, "can't give away the socket for jobs", door.path) from error
    return sock


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a unix socket, as the kernel knows it (SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def take_agent_lock(home: Home, clock: Clock | None = None) -> KernelLock:
    """The lock of the one agent of a home; raises `UsageError` with the other's process id."""
    path = home.locks / AGENT_LOCK
    try:
        make_private_dir(home.locks)
        lock = take_lock(path, clock or SystemClock())
        if lock is not None:
            path.write_text(f"{os.getpid()}\n", encoding="ascii")
            return lock
        holder = path.read_bytes()[:20].decode("ascii", errors="replace").strip()
    except OSError as error:
        raise as_host_error(error, "can't take the agent's lock", path) from error
    who = f"pid {holder}" if holder.isdigit() else "of another process"
    raise ConflictError(
        f"an agent runs already, {who}",
        where=str(home.root),
        hint="'smidr daemon status' shows it, 'smidr daemon stop' ends it.",
    )


def _check_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise as_host_error(error, "can't make a socket", folder) from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            "other users can write to this directory, and could take the agent's place",
            where=str(folder),
            hint=f"chmod 700 {folder}",
        )


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError(
                "something else lies where the agent's socket goes",
                where=str(path),
                hint="Move it away.",
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_path(path) as name:
        probe.setblocking(False)  # a full backlog answers EAGAIN: somebody is there
        answer = probe.connect_ex(name)
    if answer != errno.ECONNREFUSED:
        raise ConflictError(
            "somebody listens there already", where=f"unix:{path}", hint="Is it another agent?"
        )
    path.unlink(missing_ok=True)


def _cannot_listen(where: str, error: OSError) -> UsageError:
    hints = {
        errno.EADDRINUSE: "Another program listens there; choose another port.",
        errno.EADDRNOTAVAIL: "This host has no such address; `ip address` shows what it has.",
        errno.EACCES: "Ports below 1024 need root; choose a higher one.",
    }
    return UsageError(
        f"can't listen: {error.strerror or error}",
        where=where,
        hint=hints.get(error.errno or 0, "Choose another address."),
    )
