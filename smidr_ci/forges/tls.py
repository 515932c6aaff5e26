"""Certificates for one server: the system's trust, plus the operator's files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import certifi

from smidr_ci.forges.errors import ForgeUnreachableError

__all__ = ["TlsFiles"]


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM format; all may be missing. They are read again when they change."""

    ca: Path | None = None
    """Trusted besides the system's authorities."""
    cert: Path | None = None
    """Our own certificate, for servers that ask for one."""
    key: Path | None = None

    @classmethod
    def discover(cls, directory: Path, url: str) -> TlsFiles:
        """`<host>.crt`, `<host>.auth.crt` and `<host>.auth.key` of a directory, if there."""
        host = urlsplit(url).hostname or ""
        if not host or "/" in host or host.startswith("."):
            return cls()
        names = (f"{host}.crt", f"{host}.auth.crt", f"{host}.auth.key")
        return cls(*(path if path.is_file() else None for path in map(directory.joinpath, names)))

    @property
    def stamp(self) -> tuple[int, ...]:
        """Changes when one of the files does."""
        return tuple(_changed(path) for path in (self.ca, self.cert, self.key))

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, certificates checked; raises `ForgeUnreachableError`."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        paths = ssl.get_default_verify_paths()
        if not (paths.cafile or paths.capath):  # a system without a trust store
            context.load_verify_locations(certifi.where())
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            shown = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise ForgeUnreachableError(
                f"can't use the TLS files: {error}",
                where=shown,
                hint="They must be readable, in PEM format, and the key must fit the certificate.",
                is_misconfigured=True,
            ) from error
        return context


def _changed(path: Path | None) -> int:
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return -1
