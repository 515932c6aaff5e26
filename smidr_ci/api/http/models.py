"""What requests hold, and the answers that are no dataclass of another room."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from smidr_ci.api.client import StartRequest
from smidr_ci.builds.model import ArtifactRecord, BuildRecord
from smidr_ci.errors import UsageError

__all__ = [
    "Accepted",
    "Artifacts",
    "Builds",
    "Cancel",
    "Error",
    "ErrorBody",
    "Healthy",
    "Purge",
    "Purged",
    "Ready",
    "StartBuild",
    "StartByName",
    "Stop",
    "Wishes",
]

_CONFIG = """\
name: router
base:
  provider: custom
  machine: qemux86-64
layers:
  - name: meta-router
    git: https://git.example.com/meta-router.git
    branch: main
build:
  image_targets: [core-image-minimal]
"""
Customer = Annotated[
    str,
    Field(description="Whom it is for: 1 to 48 of a-z, 0-9, `.`, `_` and `-`.", examples=["acme"]),
]
ConfigText = Annotated[
    str, Field(description="The text of a smidr.yaml, 1 MiB at most.", examples=[_CONFIG])
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ErrorBody(_Model):
    """What happened, where, and what to do next."""

    kind: str
    """A failure kind, such as `usage`, `config`, `layers`, `engine`, `disk`."""
    message: str
    where: str
    """File, line and column, or what else it is about; may be empty."""
    hint: str
    """What to do next; may be empty."""


class Error(_Model):
    """The answer to a request that could not be served."""

    error: ErrorBody


class StartBuild(_Model):
    """A build as a client asks for it."""

    customer: Customer = "default"
    config_text: ConfigText
    config_name: str = "smidr.yaml"
    """The config's file name, for messages."""
    targets: list[str] = Field(default=[], examples=[["core-image-minimal"]])
    """Instead of the config's own targets, when not empty."""
    clean: bool = False
    """Carry nothing over from earlier builds but downloads and sstate."""
    fresh: bool = False
    """Go on in no earlier build's workspace, whatever the agent's settings say."""
    ref: str = ""
    """What is built, such as `refs/heads/main`; the agent's settings say by it which builds are
    warm."""
    clean_image: bool = False
    """Pull or build the builder image again."""
    fetch_only: bool = False
    """Fetch the sources of everything the targets need, and stop."""
    locked: bool = False
    """Refuse a layer that `smidr.lock` does not pin."""
    keep_workspace: bool = False
    """Keep the build directory also after success."""
    is_untrusted: bool = False
    """Build it as a stranger's: with private caches, without secrets of the agent."""
    variables: dict[str, str] = {}
    """What `${NAME}` in the config stands for."""
    environment: dict[str, str] = {}
    """Variables for BitBake and recipes."""
    bundle: str = ""
    """In base64: a tar.gz with the layers that `path` names and the lockfile, by their relative
    paths. 32 MiB at most before base64."""
    directory: str | None = None
    """Instead of a bundle: the config's directory on the agent's host; over the agent's unix
    socket only."""

    def request(self) -> StartRequest:
        """The same for `Operations.start`; raises `UsageError` when the bundle is no base64."""
        try:
            bundle = base64.b64decode(self.bundle, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError("the bundle is not in base64") from error
        if self.directory is not None and "\x00" in self.directory:
            raise UsageError("the directory has a zero byte")
        return StartRequest(
            customer=self.customer,
            config_text=self.config_text,
            config_name=self.config_name,
            targets=tuple(self.targets),
            clean=self.clean,
            fresh=self.fresh,
            ref=self.ref,
            clean_image=self.clean_image,
            fetch_only=self.fetch_only,
            locked=self.locked,
            keep_workspace=self.keep_workspace,
            is_untrusted=self.is_untrusted,
            variables=self.variables,
            environment=self.environment,
            bundle=bundle,
            directory=Path(self.directory) if self.directory is not None else None,
        )


class StartByName(_Model):
    """A build as clients of older tools ask for it."""

    customer: Customer
    target: str | list[str] = Field(examples=["core-image-minimal"])
    """One target, or several: a list, or with spaces between."""
    config: ConfigText

    def request(self) -> StartRequest:
        """The same for `Operations.start`."""
        targets = self.target.split() if isinstance(self.target, str) else self.target
        return StartRequest(
            customer=self.customer,
            config_text=self.config,
            config_name="smidr.yaml",
            targets=tuple(targets),
        )


class Cancel(_Model):
    """How to cancel."""

    level: Literal["interrupt", "kill"] = "interrupt"
    """`interrupt` is BitBake's own orderly stop, `kill` ends the container."""


class Stop(_Model):
    """How to stop."""

    cancel_builds: bool = False
    """Whether builds that run are cancelled; else they go on, and the next agent takes them up."""


class Purge(_Model):
    """Which builds to remove for good."""

    deleted_before: datetime | None = None
    """Only those that were deleted before this time, with a zone."""


class Wishes(BaseModel):
    """Headers of a request for a file (RFC 9110, sections 13 and 14)."""

    range: str | None = Field(None, examples=["bytes=1048576-"])
    if_range: str | None = None
    if_none_match: str | None = None


class Builds(_Model):
    """A page of history, newest first."""

    builds: list[BuildRecord]
    next: str | None
    """Give it as `before` for the next page; null after the last one."""


class Artifacts(_Model):
    """What a build left."""

    build_id: str
    artifacts: list[ArtifactRecord]
    directory: str
    """Where they lie on the agent's host; over the agent's unix socket only."""


class Purged(_Model):
    """Builds that are gone."""

    purged: list[str]


class Accepted(_Model):
    """It was asked for, and happens."""

    accepted: Literal[True]


class Healthy(_Model):
    """The agent is alive."""

    status: Literal["alive"]


class Ready(_Model):
    """Whether builds can start."""

    ready: bool
    problems: list[str]
