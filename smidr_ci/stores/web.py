"""An HTTP server as a store, with PUT, HEAD, GET and DELETE: WebDAV, Artifactory, Nexus, nginx."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from smidr_ci.cancel import CancelToken
from smidr_ci.stores.content import CheckedReader, Content
from smidr_ci.stores.keys import check_key
from smidr_ci.stores.model import MissingObjectError, Pause, Readable, StoredObject, StoreError
from smidr_ci.stores.web_calls import RefusedError, WebCalls, WebLogin

__all__ = ["WebStore"]

_BLOCK_BYTES: Final = 1 << 18
"""Each must go out within the time limit for writing, over slow lines too."""
_NO_DIRECTORY: Final = frozenset({404, 409})
_PARTIAL: Final = ".smidr-partial"
"""Directory below the store's for what is being written: no part of it is a key's."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_REPR_DIGEST: Final = re.compile(r"\bsha-256=:([A-Za-z0-9+/=]{44}):", re.IGNORECASE)


class WebStore:
    """Implements `ObjectStore`, but for `list`."""

    def __init__(
        self,
        url: str,
        *,
        public_url: str = "",
        login: WebLogin | None = None,
        ca_file: Path | None = None,
        pause: Pause | None = None,
    ) -> None:
        """`pause` waits between attempts; the default ends with a cancel."""
        self._base = url.rstrip("/")
        self._public_url = (public_url or url).rstrip("/")
        self._moves: bool | None = None
        self._calls = WebCalls(login or WebLogin(), ca_file, pause)

    @property
    def where(self) -> str:
        """The URL."""
        return self._base

    def put(self, key: str, content: Content, cancel: CancelToken | None = None) -> StoredObject:
        """PUT with Content-Length; afterwards HEAD must tell the same size.

        A WebDAV server gets it under another name first. Other servers are trusted to show no part
        of what breaks off, and what they do show is deleted.
        """
        before = self._look(self._address(key), key, cancel)
        if before is not None and _is_equal(before, content):
            return before
        stored = self._put_and_move(key, content, cancel)
        if stored is None:
            stored = self._put_in_place(key, content, before, cancel)
        return StoredObject(key, content.size_bytes, content.sha256, stored.modified)

    def head(self, key: str) -> StoredObject | None:
        """Size and time, and the checksum where the server tells it (`X-Checksum-Sha256`)."""
        return self._look(self._address(key), key)

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[Readable]:
        """GET; only its begin is repeated."""
        url = self._address(key)
        response = self._calls.repeat(
            lambda: self._calls.once("GET", url, good=(200,), is_stream=True)
        )
        if response is None:
            raise MissingObjectError(f"there is no {key}", where=self._base)
        with response:
            yield _Body(response)

    def url(self, key: str) -> str:
        """Below the public URL, which is the store's own when there is no other."""
        return f"{self._public_url}/{quote(check_key(key))}"

    def delete(self, key: str) -> None:
        """DELETE."""
        url = self._address(key)
        self._calls.repeat(lambda: self._calls.once("DELETE", url, good=(200, 202, 204)))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Plain HTTP knows no list: raises `StoreError`."""
        raise StoreError(
            f"can't list what begins with {prefix!r}: an HTTP store has no list", where=self._base
        )

    def close(self) -> None:
        """Close idle connections."""
        self._calls.close()

    def _address(self, key: str) -> str:
        return f"{self._base}/{quote(check_key(key))}"

    def _look(self, url: str, key: str, cancel: CancelToken | None = None) -> StoredObject | None:
        response = self._calls.repeat(lambda: self._calls.once("HEAD", url), cancel)
        return None if response is None else _described(key, response)

    def _put_and_move(
        self, key: str, content: Content, cancel: CancelToken | None
    ) -> StoredObject | None:
        """None when the server can't move, and nothing is there of it."""
        if not self._is_moving():
            return None
        partial = f"{self._base}/{_PARTIAL}/{secrets.token_hex(16)}"
        try:
            stored = self._put_at(partial, key, content, cancel)
            self._calls.repeat(lambda: self._move(partial, key), cancel)
        except BaseException as error:
            with contextlib.suppress(Exception):  # the first trouble is the one to tell
                self._calls.once("DELETE", partial, good=(200, 202, 204))
            if isinstance(error, RefusedError) and error.method == "MOVE":
                self._moves = False
                return None
            raise
        return stored

    def _is_moving(self) -> bool:
        """RFC 4918: a server of class 1 or more has MOVE."""
        if self._moves is None:
            self._moves = False
            with contextlib.suppress(RefusedError):
                answer = self._calls.repeat(lambda: self._calls.once("OPTIONS", self._base))
                self._moves = answer is not None and "1" in answer.headers.get("DAV", "")
            if self._moves:
                self._make_directories(f"{self._base}/{_PARTIAL}/")
        return bool(self._moves)

    def _move(self, partial: str, key: str) -> None:
        target = self._address(key)
        headers = {"Destination": target, "Overwrite": "T"}
        good = (200, 201, 204)
        try:
            self._calls.once("MOVE", partial, good=good, headers=headers)
        except RefusedError:  # for a missing directory servers have more than one answer
            self._make_directories(target)
            self._calls.once("MOVE", partial, good=good, headers=headers)

    def _put_in_place(
        self, key: str, content: Content, before: StoredObject | None, cancel: CancelToken | None
    ) -> StoredObject:
        url = self._address(key)
        if before is None and content.size_bytes > _BLOCK_BYTES:
            self._make_directories(url)  # not to be told at the end of a long upload
        try:
            return self._put_at(url, key, content, cancel)
        except BaseException:
            with contextlib.suppress(Exception):  # the first trouble is the one to tell
                found = self._look(url, key)
                if found is not None and found != before and not _may_be(found, content):
                    self._calls.once("DELETE", url, good=(200, 202, 204))
            raise

    def _put_at(
        self, url: str, key: str, content: Content, cancel: CancelToken | None
    ) -> StoredObject:
        self._calls.repeat(lambda: self._put_once(url, content, cancel), cancel)
        found = self._look(url, key, cancel)
        if found is not None and _may_be(found, content):
            return found
        told = "nothing there" if found is None else f"{found.size_bytes} bytes"
        if found is not None and found.size_bytes == content.size_bytes:
            told = f"the SHA-256 {found.sha256}"
        raise StoreError(
            f"the store took {content.size_bytes} bytes, and then tells of {told}",
            where=url,
            hint="Does something between here and the store change or cut files?",
        )

    def _put_once(self, url: str, content: Content, cancel: CancelToken | None) -> None:
        try:
            self._send(url, content, cancel)
        except RefusedError as error:
            if error.status not in _NO_DIRECTORY:
                raise
            self._make_directories(url)
            self._send(url, content, cancel)

    def _send(self, url: str, content: Content, cancel: CancelToken | None) -> None:
        digest = base64.b64encode(bytes.fromhex(content.sha256)).decode()
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Checksum-Sha256": content.sha256,  # Artifactory refuses what differs
            "Repr-Digest": f"sha-256=:{digest}:",  # RFC 9530
        }
        with content.opened() as source:
            reader = CheckedReader(source, content, cancel)
            body = _SizedBody(reader, content.size_bytes) if content.size_bytes else None
            if body is None:
                reader.read()
                headers["Content-Length"] = "0"
            self._calls.once("PUT", url, good=(200, 201, 202, 204), headers=headers, body=body)

    def _make_directories(self, url: str) -> None:
        """RFC 4918: MKCOL, from the top. Servers without directories refuse, which is fine."""
        parts = urlsplit(url)
        folders = parts.path.lstrip("/").split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            path = "/" + "/".join(folders[:depth])
            with contextlib.suppress(RefusedError):
                self._calls.once("MKCOL", parts._replace(path=path).geturl(), good=(200, 201))


class _SizedBody:
    """requests sends what has a length with Content-Length."""

    def __init__(self, reader: CheckedReader, size_bytes: int) -> None:
        self._reader = reader
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._reader.read(_BLOCK_BYTES):
            yield chunk


class _Body:
    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def read(self, size: int = -1) -> bytes:
        """As files do."""
        try:
            found: bytes | None = self._response.raw.read(size if size >= 0 else None)
        except (HTTPError, OSError) as error:
            raise StoreError(
                f"the answer broke off: {error}"[:300], where=self._response.url, is_passing=True
            ) from error
        return found or b""


def _described(key: str, response: requests.Response) -> StoredObject:
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isascii() and length.isdigit() else -1
    modified: datetime | None = None
    with contextlib.suppress(ValueError):
        modified = parsedate_to_datetime(response.headers.get("Last-Modified", ""))
    return StoredObject(key, size, _sha256_of(response), modified)


def _sha256_of(response: requests.Response) -> str:
    told = response.headers.get("X-Checksum-Sha256", "").strip().lower()
    if _SHA256.fullmatch(told):
        return told
    found = _REPR_DIGEST.search(response.headers.get("Repr-Digest", ""))
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(found[1], validate=True).hex() if found else ""
    return ""


def _may_be(found: StoredObject, content: Content) -> bool:
    """Whether nothing that the server tells speaks against it; some tell no size."""
    is_size = found.size_bytes in {-1, content.size_bytes}
    return is_size and found.sha256 in {"", content.sha256}


def _is_equal(found: StoredObject, content: Content) -> bool:
    return (found.size_bytes, found.sha256) == (content.size_bytes, content.sha256)
