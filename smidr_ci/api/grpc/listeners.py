"""Where the gRPC server listens: unix sockets for this user alone, and TCP addresses."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from smidr_ci.api.sockets import connect_unix
from smidr_ci.api.tls import ServerTls
from smidr_ci.errors import HostError
from smidr_ci.files import as_host_error

__all__ = ["Bound", "TcpListener", "UnixListener"]

_NAME: Final = "s"
_CONNECT_TIMEOUT_S: Final = 2.0


class Bound:
    """An address that is taken; `release` after the server has stopped."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        """Such as `grpc://127.0.0.1:50051`."""

    def release(self) -> None:
        """Give back what the address needed."""


@dataclass(frozen=True)
class TcpListener:
    """`host:port`, `[v6]:port` or `:port`; port 0 takes a free one. Without `tls` in the clear."""

    address: str
    tls: ServerTls | None = None

    def bind(self, server: grpc.aio.Server) -> Bound:
        """Take the address; raises `HostError`."""
        host = self.address.rpartition(":")[0]
        target = self.address if host else f"[::]{self.address}"
        try:
            if self.tls is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, _credentials(self.tls))
        except RuntimeError as error:
            raise HostError(
                "can't listen there with gRPC",
                where=self.address,
                hint="The address must be one of this host's, and nobody else may use the port.",
            ) from error
        return Bound(f"{'grpcs' if self.tls else 'grpc'}://{host or '[::]'}:{port}")


@dataclass(frozen=True)
class UnixListener:
    """A socket of any path length, mode 0600; one that nobody listens on is replaced."""

    path: Path

    def bind(self, server: grpc.aio.Server) -> Bound:
        """Take the path; raises `HostError`, also when somebody else listens there."""
        _refuse_if_taken(self.path)
        # gRPC binds with the process's umask and removes what is there. So it binds in a directory
        # that nobody else enters, by a short name, and the socket moves once its mode is right.
        try:
            nest = Path(tempfile.mkdtemp(prefix=".grpc-", dir=self.path.parent))
            folder = os.open(nest, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise as_host_error(error, "can't make gRPC's socket", self.path) from error
        try:
            server.add_insecure_port(f"unix:/proc/self/fd/{folder}/{_NAME}")
            os.chmod(nest / _NAME, stat.S_IRUSR | stat.S_IWUSR)
            os.rename(nest / _NAME, self.path)
            found = os.stat(self.path, follow_symlinks=False)
        except (OSError, RuntimeError) as error:
            os.close(folder)
            raise HostError("can't make gRPC's socket", where=str(self.path)) from error
        finally:
            shutil.rmtree(nest, ignore_errors=True)
        return _BoundUnix(self.path, folder, found)


class _BoundUnix(Bound):
    def __init__(self, path: Path, folder: int, found: os.stat_result) -> None:
        super().__init__(f"unix:{path}")
        self._path = path
        # Kept open: gRPC removes `/proc/self/fd/<folder>/s` when it ends, wherever that leads.
        self._folder = folder
        self._found = found

    def release(self) -> None:
        """Remove the socket, unless another agent has put its own there."""
        os.close(self._folder)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path, follow_symlinks=False), self._found):
                self._path.unlink()


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key, tls.chain)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )


def _refuse_if_taken(path: Path) -> None:
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise as_host_error(error, "can't make gRPC's socket", path) from error
    if not stat.S_ISSOCK(mode):
        raise HostError("is in the way of gRPC's socket", where=str(path), hint="Remove it.")
    try:
        connect_unix(path, _CONNECT_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return  # left by an agent that was killed
    except OSError as error:
        raise as_host_error(error, "can't take over gRPC's socket", path) from error
    raise HostError(
        "an agent listens there already",
        where=str(path),
        hint="'smidr daemon status' shows it, 'smidr daemon stop' ends it.",
    )
