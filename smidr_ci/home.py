"""Where things lie under `$SMIDR_HOME`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smidr_ci.errors import HostError
from smidr_ci.files import make_private_dir

__all__ = ["Home"]


@dataclass(frozen=True)
class Home:
    """The layout of one host's state (architecture, section 5). Paths are absolute."""

    root: Path
    chosen_settings: Path | None = None
    """Instead of `agent.yaml` below the root."""

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, settings: Path | None = None
    ) -> Home:
        """`$SMIDR_HOME`, else `~/.smidr`; created when missing.

        `settings` is another agent config than its own. Raises `HostError` when it can't be
        created or written.
        """
        chosen = environ.get("SMIDR_HOME") or "~/.smidr"
        try:
            root = Path(chosen).expanduser().resolve()
            make_private_dir(root)
        except (OSError, RuntimeError) as error:
            raise HostError(
                f"can't use {chosen} as smidr's home: {error}",
                hint="Set SMIDR_HOME to a directory that you own, on a disk with room for builds.",
            ) from error
        return cls(root, settings.absolute() if settings is not None else None)

    @property
    def agent_config(self) -> Path:
        """The operator's settings."""
        return self.chosen_settings or self.root / "agent.yaml"

    @property
    def database(self) -> Path:
        """The store's SQLite file."""
        return self.root / "smidr.db"

    @property
    def socket(self) -> Path:
        """The running agent's own API, HTTP on a unix socket."""
        return self.root / "agent.sock"

    @property
    def grpc_socket(self) -> Path:
        """The same over gRPC."""
        return self.root / "grpc.sock"

    @property
    def local_token(self) -> Path:
        """What lets this user's programs in over TCP on this host; anew with each agent."""
        return self.root / "local-token"

    @property
    def incoming(self) -> Path:
        """What came with orders that are not builds yet."""
        return self.root / "incoming"

    @property
    def layers(self) -> Path:
        """Layer mirrors and trees of all builds."""
        return self.root / "layers"

    @property
    def downloads(self) -> Path:
        """DL_DIR of all builds."""
        return self.root / "downloads"

    @property
    def sstate(self) -> Path:
        """SSTATE_DIR of all builds."""
        return self.root / "sstate-cache"

    @property
    def private_caches(self) -> Path:
        """What untrusted builds downloaded and made, apart from the shared caches."""
        return self.root / "private-caches"

    @property
    def hash_servers(self) -> Path:
        """Databases and sockets of hash-equivalence servers, one directory per BitBake release."""
        return self.root / "hashserv"

    @property
    def share(self) -> Path:
        """Sockets by which builds read what other hosts shared."""
        return self.root / "share"

    @property
    def share_ledger(self) -> Path:
        """What has been uploaded for other hosts."""
        return self.root / "share.db"

    @property
    def parse_cache(self) -> Path:
        """Parse caches that seed fresh workspaces, one directory per key."""
        return self.root / "parse-cache"

    @property
    def job_caches(self) -> Path:
        """What jobs of a forge keep for later ones, `<project and trust>/<key>/cache.zip`."""
        return self.root / "job-caches"

    @property
    def bytecode(self) -> Path:
        """BitBake's modules, compiled by the Pythons of builder images."""
        return self.root / "bytecode"

    @property
    def image_accounts(self) -> Path:
        """What builder images have in /etc/passwd and /etc/group, one file per image."""
        return self.root / "image-accounts"

    @property
    def builds(self) -> Path:
        """Records on disk, `<build-id>/`."""
        return self.root / "builds"

    @property
    def workspaces(self) -> Path:
        """Build directories, `<key>/<n>/`."""
        return self.root / "workspaces"

    @property
    def artifacts(self) -> Path:
        """What builds left, `<customer>/<build-id>/`."""
        return self.root / "artifacts"

    @property
    def locks(self) -> Path:
        """Files whose kernel locks keep processes apart; empty, never deleted while in use."""
        return self.root / "locks"
