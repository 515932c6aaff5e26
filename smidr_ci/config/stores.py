"""Stores outside of this host, as `agent.yaml` describes them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, Strict, model_validator

from smidr_ci.config.base import MisfitError, Model
from smidr_ci.config.host_files import HostFile, why_not_secret
from smidr_ci.config.matching import Called, Matching

__all__ = ["StoreAccess", "StoreSettings", "WebUrl"]

_URL: Final = r"(file:///[^\s\x00-\x1f\x7f?#;]{1,1024}|(https?|s3)://[^\s\x00-\x1f\x7f@?#]{1,1024})"
_LOGIN: Final = re.compile(r"[^:/?#]+://[^/?#]*@")


def _refuse_login(value: object) -> object:
    """Says so without repeating it."""
    if isinstance(value, str) and (_LOGIN.match(value) or "?" in value):
        raise ValueError("holds a login or a query; secrets go into a file: credentials_file")
    return value


StoreUrl = Annotated[
    str,
    BeforeValidator(_refuse_login, json_schema_input_type=str),
    Matching(
        "URL", _URL, "file:///directory, https://host/path or s3://bucket/prefix without a login"
    ),
]
WebUrl = Annotated[
    str,
    BeforeValidator(_refuse_login, json_schema_input_type=str),
    Matching("URL", r"https?://[^\s\x00-\x1f\x7f@?#]{1,1024}", "an http(s) URL without a login"),
]


class StoreAccess(Model):
    """Where a store is, and how to log in: a directory, an HTTP server that takes PUT, or S3."""

    url: StoreUrl
    """`file:///srv/artifacts` for a directory, `https://host/path` for a server that takes PUT,
    HEAD and DELETE, `s3://bucket/prefix` for S3."""
    credentials_file: HostFile | None = None
    """For `https` one line, `user:password` or a bearer token; for `s3` a file in the format of
    `~/.aws/credentials`. Without it S3 logs in by AWS's own environment variables, files or
    instance."""
    ca_file: HostFile | None = None
    """Authorities to trust for the server, in PEM format, instead of the usual ones."""
    endpoint: WebUrl | None = None
    """S3 servers other than Amazon's: `https://minio.example.com`."""
    region: Annotated[str, Matching("region", "[a-z0-9-]{1,64}", "a region's name")] | None = None
    """S3 region; the default is that of AWS's own settings, else `us-east-1`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme == "s3" and not parts.netloc:
            raise MisfitError("has no bucket", ("url",), "Write s3://bucket/prefix.")
        if ".." in PurePosixPath(unquote(parts.path)).parts:
            raise MisfitError("has .. in its path", ("url",), "Write the path without it.")
        if parts.scheme != "s3":
            for key in ("endpoint", "region"):
                if getattr(self, key) is not None:
                    raise MisfitError(f"{key} is for s3:// only", (key,), "Take it out.")
        if parts.scheme == "file":
            for key in ("credentials_file", "ca_file"):
                if getattr(self, key) is not None:
                    raise MisfitError(f"{key} is of no use with file://", (key,), "Take it out.")
        return self

    @property
    def directory(self) -> Path | None:
        """The directory of a `file://` URL."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def misfits(self) -> tuple[MisfitError, ...]:
        """What is wrong with its secret on disk."""
        problem = why_not_secret(self.credentials_file) if self.credentials_file else None
        if problem is None:
            return ()
        path = self.credentials_file
        return (
            MisfitError(f"the file {path} {problem}", ("credentials_file",), f"chmod 600 {path}"),
        )


class StoreSettings(StoreAccess):
    """A directory, an HTTP server that takes PUT, or an S3 bucket."""

    public_url: WebUrl | None = None
    """Where readers find the same files; by default the `https` URL itself, a signed link for S3,
    and no link for a directory."""
    link_days: Annotated[int, Field(ge=1, le=7), Strict(), Called("days")] = 7
    """Signed links to S3 work so long; Amazon takes no more than 7 days, and login by an instance
    or a session less."""
