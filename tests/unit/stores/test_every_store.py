"""What each store promises, on a directory and on real servers."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
import requests

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError
from smidr_ci.stores.content import ChangedError, Content
from smidr_ci.stores.keys import object_key
from smidr_ci.stores.model import MissingObjectError, StoreError
from smidr_ci.stores.opening import open_store

from .conftest import Room

BIG = os.urandom(1 << 20) * 19 + b"end"
"""More than two of S3's parts."""


def read(room: Room, key: str) -> bytes:
    with room.store.open(key) as stream:
        parts = []
        while part := stream.read(100_000):
            parts.append(part)
    return b"".join(parts)


def file_of(folder: Path, raw: bytes) -> Content:
    path = folder / "image.wic"
    path.write_bytes(raw)
    return Content.of_file(path, len(raw), hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize("raw", [b"", b"x", BIG], ids=["empty", "small", "big"])
def test_what_was_put_is_read_back_exactly(room: Room, raw: bytes) -> None:
    stored = room.store.put("acme/images/one.wic", file_of(room.folder, raw))
    assert (stored.size_bytes, stored.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    assert read(room, "acme/images/one.wic") == raw
    found = room.store.head("acme/images/one.wic")
    assert found is not None
    assert found.size_bytes == len(raw)


def test_a_name_of_shared_state_comes_back_as_it_was(room: Room) -> None:
    key = object_key(
        "universal/ab/cd/sstate:zlib-native:x86_64-linux:1.3+git~rc1:r0::11:abcd.tar.zst"
    )
    assert key.startswith("universal/ab/cd/sstate:zlib-native:")
    room.store.put(key, Content.of_bytes(b"state"))
    assert read(room, key) == b"state"


def test_another_content_replaces_what_was_there(room: Room) -> None:
    room.store.put("key", Content.of_bytes(b"first"))
    room.store.put("key", Content.of_bytes(b"second!"))
    assert read(room, "key") == b"second!"
    room.store.put("key", Content.of_bytes(b"another"))  # of the same size
    assert read(room, "key") == b"another"


def test_what_is_not_there_is_told_as_such(room: Room) -> None:
    assert room.store.head("no/such/thing") is None
    with pytest.raises(MissingObjectError, match="there is no no/such/thing"):
        read(room, "no/such/thing")
    room.store.delete("no/such/thing")


def test_what_was_deleted_is_gone(room: Room) -> None:
    room.store.put("a/b/c", Content.of_bytes(b"x"))
    room.store.delete("a/b/c")
    assert room.store.head("a/b/c") is None


def test_a_file_that_changed_is_not_stored_and_no_part_stays(room: Room) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    shorter = Content(lambda: BytesIO(BIG[:-1]), len(BIG), digest, "image.wic")
    longer = Content(lambda: BytesIO(BIG + b"x"), len(BIG), digest, "image.wic")
    other = Content(lambda: BytesIO(BIG), len(BIG), "0" * 64, "image.wic")
    for content in (shorter, longer, other):
        with pytest.raises(ChangedError, match="changed before it was stored"):
            room.store.put("image.wic", content)
        assert room.store.head("image.wic") is None
    with pytest.raises(ChangedError):
        room.store.put("empty", Content(lambda: BytesIO(b"x"), 0, hashlib.sha256(b"").hexdigest()))


def test_a_file_that_cannot_be_opened_is_the_callers_trouble(room: Room) -> None:
    target = room.folder / "target"
    target.write_bytes(b"secret")
    link = room.folder / "link"
    link.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        room.store.put("key", Content.of_file(link, 6, hashlib.sha256(b"secret").hexdigest()))
    assert room.store.head("key") is None


def test_a_cancel_in_the_middle_ends_the_upload_and_leaves_nothing(room: Room) -> None:
    cancel = CancelToken()

    class Slow(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > len(BIG) // 2:
                cancel.cancel("enough")
            return super().read(size)

    content = Content(lambda: Slow(BIG), len(BIG), hashlib.sha256(BIG).hexdigest())
    with pytest.raises(CancelledError, match="enough"):
        room.store.put("image.wic", content, cancel)
    assert room.store.head("image.wic") is None


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\nb", "a/.smidr-x"]
)
def test_a_key_that_leaves_the_store_is_refused(room: Room, key: str) -> None:
    for use in (room.store.head, room.store.delete, room.store.url):
        with pytest.raises(ValueError, match="not the key of an object"):
            use(key)
    with pytest.raises(ValueError, match="not the key of an object"):
        room.store.put(key, Content.of_bytes(b"x"))
    with pytest.raises(ValueError, match="not the key of an object"), room.store.open(key):
        pass


def test_the_list_has_all_objects_of_a_prefix(room: Room) -> None:
    for key in ("a/one", "a/b/two", "c"):
        room.store.put(key, Content.of_bytes(key.encode()))
    if room.kind == "webdav":
        with pytest.raises(StoreError, match="an HTTP store has no list"):
            list(room.store.list())
        return
    assert {item.key: item.size_bytes for item in room.store.list()} == {
        "a/one": 5,
        "a/b/two": 7,
        "c": 1,
    }
    assert {item.key for item in room.store.list("a/")} == {"a/one", "a/b/two"}


def test_a_reader_follows_the_link(room: Room) -> None:
    room.store.put("images/a~b+c.wic", Content.of_bytes(b"for you"))
    url = room.store.url("images/a~b+c.wic")
    if room.kind == "directory":
        assert url == ""
        return
    login = None
    if room.kind == "webdav":
        assert room.settings.credentials_file is not None
        name, _, password = room.settings.credentials_file.read_text().strip().partition(":")
        login = (name, password)
    assert requests.get(url, auth=login, timeout=20).content == b"for you"


def test_the_operators_public_url_makes_the_link(room: Room) -> None:
    settings = room.settings.model_copy(update={"public_url": "https://files.acme.example/ci/"})
    with closing(open_store(settings)) as store:
        assert store.url("a/x:y") == "https://files.acme.example/ci/a/x%3Ay"


MEMORY = """
import hashlib, json, resource, sys
from pathlib import Path
from smidr_ci.config.stores import StoreSettings
from smidr_ci.stores.content import Content
from smidr_ci.stores.opening import open_store
settings = StoreSettings.model_validate(json.loads(sys.argv[1]))
store = open_store(settings)
store.put("warm", Content.of_bytes(b"x"))
size = 160 << 20
path = Path(sys.argv[2])
with path.open("wb") as file:
    file.truncate(size)
with path.open("rb") as file:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("big", Content.of_file(path, size, sha256))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
store.delete("big")
"""


def test_memory_does_not_grow_with_the_file(room: Room) -> None:
    path = room.folder / "sparse"
    raw = json.dumps(room.settings.model_dump(mode="json", exclude_none=True))
    command = [sys.executable, "-c", MEMORY, raw, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 70


def test_a_directory_holds_files_that_a_web_server_can_read(tmp_path: Path) -> None:
    from smidr_ci.stores.directory import DirectoryStore

    old = os.umask(0o077)
    try:
        DirectoryStore(tmp_path).put("a/b", Content.of_bytes(b"x"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o644
