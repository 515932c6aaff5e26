"""An S3 bucket as a store. Amazon's library boto3 does the talking; it comes with smidr-ci[s3].

Bodies go out signed (`x-amz-content-sha256`), so the server refuses what differs, part by part. The
SHA-256 of the whole stands in the object's metadata.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, unquote, urlsplit

from smidr_ci.cancel import CancelToken
from smidr_ci.config.stores import StoreSettings
from smidr_ci.stores.content import CheckedReader, Content
from smidr_ci.stores.keys import check_key
from smidr_ci.stores.model import MissingObjectError, Readable, StoredObject, StoreError
from smidr_ci.stores.s3_client import (
    is_missing,
    make_client,
    refused,
    require_boto3,
    transfer_config,
    words,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Store"]

_SHA256: Final = "sha256"
_ONE_PART_BYTES: Final = 5 << 20
"""The least that S3 takes, since parts are kept in memory."""


class S3Store:
    """Implements `ObjectStore`."""

    def __init__(self, settings: StoreSettings, client: S3Client | None = None) -> None:
        """Raises `ConfigError` without boto3; nothing is asked of the server yet.

        A client that is given is closed with the store.
        """
        require_boto3(settings)
        parts = urlsplit(settings.url)
        self._settings = settings
        self._bucket = parts.netloc
        self._prefix = f"{unquote(parts.path).strip('/')}/".lstrip("/")
        self._lock = threading.Lock()
        self._client = client

    @property
    def where(self) -> str:
        """`s3://bucket/prefix`, and the server's address if it is not Amazon's."""
        at = f" at {self._settings.endpoint}" if self._settings.endpoint else ""
        return f"{self._settings.url}{at}"

    def put(self, key: str, content: Content, cancel: CancelToken | None = None) -> StoredObject:
        """One request, or parts of at least 5 MiB; a broken upload leaves nothing."""
        name = self._name(key)
        found = self._found_before(key)
        if found is not None and _is_equal(found, content):
            return found
        with content.opened() as source:
            reader = CheckedReader(source, content, cancel)
            with words(self.where, "store a file"):
                if content.size_bytes <= _ONE_PART_BYTES:
                    self._opened().put_object(
                        Bucket=self._bucket, Key=name, Body=reader.read(), **_extra(content)
                    )
                else:
                    self._opened().upload_fileobj(
                        cast("IO[bytes]", _Unseekable(reader)),
                        self._bucket,
                        name,
                        ExtraArgs=_extra(content),
                        Config=transfer_config(content.size_bytes, _ONE_PART_BYTES),
                    )
        return StoredObject(key, content.size_bytes, content.sha256)

    def head(self, key: str) -> StoredObject | None:
        """Size, time, and the SHA-256 of what smidr stored."""
        with words(self.where, "look for a file"):
            try:
                found = self._opened().head_object(Bucket=self._bucket, Key=self._name(key))
            except Exception as error:
                if is_missing(error):
                    return None
                raise
        sha256 = found["Metadata"].get(_SHA256, "")
        return StoredObject(key, found["ContentLength"], sha256, found["LastModified"])

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[Readable]:
        """GetObject as a stream."""
        with words(self.where, "read a file"):
            try:
                answer = self._opened().get_object(Bucket=self._bucket, Key=self._name(key))
            except Exception as error:
                if is_missing(error):
                    raise MissingObjectError(f"there is no {key}", where=self.where) from error
                raise
        with contextlib.closing(answer["Body"]) as body:
            yield _Body(body, self.where)

    def url(self, key: str) -> str:
        """Below the public URL, or a signed link."""
        if self._settings.public_url:
            return f"{self._settings.public_url.rstrip('/')}/{quote(check_key(key))}"
        with words(self.where, "sign a link"):
            return self._opened().generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._name(key)},
                ExpiresIn=self._settings.link_days * 86_400,
            )

    def delete(self, key: str) -> None:
        """DeleteObject, which takes a missing one for fine."""
        with words(self.where, "delete a file"):
            self._opened().delete_object(Bucket=self._bucket, Key=self._name(key))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """ListObjectsV2, page by page; without checksums."""
        with words(self.where, "list the files"):
            pages = self._opened().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{prefix}"):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    with contextlib.suppress(ValueError):  # somebody else's object
                        check_key(key)
                        yield StoredObject(key, item["Size"], modified=item["LastModified"])

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _name(self, key: str) -> str:
        return f"{self._prefix}{check_key(key)}"

    def _found_before(self, key: str) -> StoredObject | None:
        try:
            return self.head(key)
        except StoreError as error:
            if refused(error):
                return None  # a login may be good for writing only
            raise

    def _opened(self) -> S3Client:
        with self._lock:
            if self._client is None:
                self._client = make_client(self._settings)
            return self._client


class _Unseekable:
    """What can't go back is sent from memory, part by part, and read once."""

    def __init__(self, reader: CheckedReader) -> None:
        self.read = reader.read


class _Body:
    def __init__(self, body: Any, where: str) -> None:  # noqa: ANN401 - botocore's stream
        self._body = body
        self._where = where

    def read(self, size: int = -1) -> bytes:
        """As files do."""
        with words(self._where, "read a file"):
            found: bytes = self._body.read(size if size >= 0 else None)
            return found


def _extra(content: Content) -> dict[str, Any]:
    return {
        "Metadata": {_SHA256: content.sha256},
        "ContentType": "application/octet-stream",
        # A stranger's page must not be shown by a browser as one of this server's.
        "ContentDisposition": "attachment",
    }


def _is_equal(found: StoredObject, content: Content) -> bool:
    return (found.size_bytes, found.sha256) == (content.size_bytes, content.sha256)
