"""With which forges this host is registered: a file each, mode 0600, in `registrations/`."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from smidr_ci.errors import ConfigError, SmidrError, UsageError
from smidr_ci.files import as_host_error, make_private_dir, open_untrusted, write_atomic
from smidr_ci.home import Home

__all__ = ["Registration", "Registrations", "short_token", "system_id"]

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,46}[a-z0-9])?", re.ASCII)
_SYSTEM_ID: Final = re.compile(r"[sr]_[0-9a-zA-Z]{12}", re.ASCII)
_TOKEN_PREFIX: Final = re.compile(r"^(?:glrt-(?:t\d_)?|glrtr-|GR1348941|glcbt-)")
_MAX_BYTES: Final = 256 * 1024
_TIMES: Final = ("token_obtained", "token_expires")
_PATHS: Final = ("tls_ca_file", "tls_cert_file", "tls_key_file")


@dataclass(frozen=True)
class Registration:
    """One forge that jobs come from."""

    name: str
    """Unique on this host: 1 to 48 of a-z, 0-9, '.', '_' and '-'."""
    forge: str
    """`gitlab` or `github`."""
    url: str
    token: str = field(repr=False)
    runner_id: int = 0
    """The forge's number for it; 0 when it did not tell."""
    token_obtained: datetime | None = None
    token_expires: datetime | None = None
    is_paused: bool = False
    limit: int = 0
    """Jobs at the same time; 0 for as many as the host can build."""
    customer: str = ""
    """Whose builds the jobs become; empty for one customer per project."""
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    api_token_file: Path | None = None
    """A token for the ordinary API: statuses and notes."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind of forge knows."""


class Registrations:
    """The files of one home. Safe to use from several processes: each write is atomic."""

    def __init__(self, home: Home) -> None:
        self._directory = home.root / "registrations"

    def load(self, name: str) -> Registration:
        """One registration; raises `UsageError` if it is unknown, `ConfigError` for a bad file."""
        path = self._path(name)
        try:
            with open_untrusted(path) as stream:
                _refuse_open_file(path, stream.fileno())
                raw = stream.read(_MAX_BYTES)
        except FileNotFoundError as error:
            raise UsageError(
                f"there is no registration {name!r}", hint="'smidr runner list' shows all."
            ) from error
        except OSError as error:
            raise as_host_error(error, "can't read the registration", path) from error
        return _parse(raw, path, name)

    def load_all(self) -> tuple[list[Registration], list[SmidrError]]:
        """All that can be used, by name, and what is wrong with the others."""
        good: list[Registration] = []
        problems: list[SmidrError] = []
        for path in sorted(self._directory.glob("*.json")):
            if _NAME.fullmatch(path.stem) is None:
                continue
            try:
                good.append(self.load(path.stem))
            except SmidrError as error:
                problems.append(error)
        return good, problems

    def save(self, registration: Registration) -> None:
        """Store or replace one; on disk when this returns. Raises `HostError`."""
        path = self._path(registration.name)
        plain = asdict(registration)
        for name in (*_TIMES, *_PATHS, "api_token_file"):
            value = plain[name]
            plain[name] = value.isoformat() if isinstance(value, datetime) else value and str(value)
        try:
            make_private_dir(self._directory)
            write_atomic(path, json.dumps(plain, indent=1) + "\n", mode=0o600)
        except OSError as error:
            raise as_host_error(error, "can't store the registration", path) from error

    def remove(self, name: str) -> None:
        """Forget one; an unknown one is fine."""
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise as_host_error(error, "can't forget the registration", self._directory) from error

    def is_there(self, name: str) -> bool:
        """Whether there is such a registration, good or bad."""
        return self._path(name).exists()

    def check_name(self, name: str) -> None:
        """Raise `UsageError` for what can't be a registration's name."""
        self._path(name)

    def _path(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"{name[:80]!r} can't be a registration's name",
                hint="Use 1 to 48 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends.",
            )
        return self._directory / f"{name}.json"


def _refuse_open_file(path: Path, fd: int) -> None:
    if os.fstat(fd).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            "holds a token and is open to other users", where=str(path), hint=f"chmod 600 {path}"
        )


def _parse(raw: bytes, path: Path, name: str) -> Registration:
    try:
        found = json.loads(raw)
        known = {item.name for item in fields(Registration)}
        values = {key: value for key, value in found.items() if key in known}
        for key in _TIMES:
            values[key] = datetime.fromisoformat(values[key]) if values.get(key) else None
        for key in (*_PATHS, "api_token_file"):
            values[key] = Path(values[key]) if values.get(key) else None
        if not all(isinstance(values.get(key), str) for key in ("forge", "url", "token")):
            raise TypeError("forge, url and token must be texts")
        registration = Registration(**{**values, "name": name})
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(
            "is no registration of smidr's",
            where=str(path),
            hint="Delete it and register again with 'smidr runner register'.",
        ) from error
    return registration


def short_token(token: str) -> str:
    """The part of a runner's token that may be shown."""
    return _TOKEN_PREFIX.sub("", token)[:9]


def system_id(home: Home, machine_id_file: Path = Path("/etc/machine-id")) -> str:
    """Which machine this is among those with the same token; the same each time.

    GitLab: `s_` and twelve signs made from the machine's id, or `r_` and random ones.
    """
    path = home.root / "system-id"
    try:
        stored = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        stored = ""
    if _SYSTEM_ID.fullmatch(stored):
        return stored
    fresh = _new_system_id(machine_id_file)
    try:
        write_atomic(path, fresh + "\n", mode=0o600)
    except OSError as error:
        raise as_host_error(error, "can't store the machine's id", path) from error
    return fresh


def _new_system_id(machine_id_file: Path) -> str:
    try:
        machine = machine_id_file.read_bytes().strip()
    except OSError:
        machine = b""
    if machine:
        return "s_" + hmac.new(machine, b"gitlab-runner", hashlib.sha256).hexdigest()[:12]
    signs = string.ascii_letters + string.digits
    return "r_" + "".join(secrets.choice(signs) for _ in range(12))
