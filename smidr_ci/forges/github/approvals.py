"""Which commits of strangers somebody with write access let build; kept over restarts."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.files import as_host_error, make_private_dir, write_atomic
from smidr_ci.home import Home

__all__ = ["Approvals"]

log = logging.getLogger(__name__)

_MOST: Final = 1000
_MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class _Key:
    repository: str
    head_sha: str

    def __str__(self) -> str:
        return f"{self.repository.lower()}@{self.head_sha}"


class Approvals:
    """By commit and not by pull request: what is pushed afterwards needs another look."""

    def __init__(self, home: Home, registration: str) -> None:
        self._path: Path = home.root / "github" / registration / "approvals.json"
        self._lock = threading.Lock()

    def add(self, repository: str, head_sha: str, login: str) -> None:
        """Remember who approved a commit; raises `HostError`."""
        with self._lock:
            known = self._load()
            known[str(_Key(repository, head_sha))] = login
            kept = dict(list(known.items())[-_MOST:])
            try:
                make_private_dir(self._path.parent)
                write_atomic(self._path, json.dumps(kept), mode=0o600)
            except OSError as error:
                raise as_host_error(error, "can't store an approval", self._path) from error

    def by(self, repository: str, head_sha: str) -> str:
        """Login of who approved it; empty when nobody did."""
        with self._lock:
            return self._load().get(str(_Key(repository, head_sha)), "")

    def _load(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes()[:_MAX_BYTES])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("the approvals are lost: %s", error)
            return {}
        return found if isinstance(found, dict) else {}
