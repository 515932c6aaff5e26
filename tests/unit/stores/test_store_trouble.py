"""Servers that fail, refuse, cut off or lie; directories that are full or missing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.config.stores import StoreSettings
from smidr_ci.errors import CancelledError, ConfigError, FailureKind
from smidr_ci.stores.content import Content
from smidr_ci.stores.directory import DirectoryStore
from smidr_ci.stores.model import StoreError
from smidr_ci.stores.opening import open_store
from tests.fakes.fault_proxy import Fault
from tests.fakes.store_servers import s3_login

from .conftest import Room

CONTENT = Content.of_bytes(os.urandom(300_000))
BIG = Content.of_bytes(os.urandom(1 << 20) * 18)

over_http = pytest.mark.parametrize("server", ["webdav", "s3"], indirect=True)
only_web = pytest.mark.parametrize("server", ["webdav"], indirect=True)
only_moto = pytest.mark.parametrize("server", ["moto"], indirect=True)
only_s3 = pytest.mark.parametrize("server", ["s3"], indirect=True)
PUTS = "PUT .*/(key|[0-9a-f]{32})"
"""A WebDAV server gets it under another name first."""
OBJECT = ".*/key"


def stored(room: Room, key: str = "key") -> str:
    with room.store.open(key) as stream:
        digest = hashlib.sha256()
        while part := stream.read(1 << 16):
            digest.update(part)
    return digest.hexdigest()


@over_http
@pytest.mark.parametrize(
    "fault",
    [
        Fault(PUTS, status=500, count=2),
        Fault(PUTS, status=503),
        Fault(PUTS, is_cut=True, count=2),
        Fault(PUTS, is_lost=True),
        Fault(f"HEAD {OBJECT}", status=502),
    ],
    ids=["500", "503", "cut", "answer-lost", "look-502"],
)
def test_trouble_that_passes_is_lived_through(room: Room, fault: Fault) -> None:
    room.faulty.faults.append(Fault(**vars(fault)))
    room.store.put("key", CONTENT)
    assert stored(room) == CONTENT.sha256


@only_s3
def test_a_part_that_fails_is_sent_again_alone(room: Room) -> None:
    room.faulty.faults += [Fault(PUTS, status=500), Fault(PUTS, is_cut=True)]
    room.store.put("key", BIG)
    assert stored(room) == BIG.sha256
    assert room.faulty.count(PUTS) == 4 + 2


@only_web
def test_a_server_that_stays_broken_is_given_up_with_its_answer(room: Room) -> None:
    room.faulty.faults.append(Fault(PUTS, status=500, count=99))
    with pytest.raises(StoreError, match="answers PUT with 500") as caught:
        room.store.put("key", CONTENT)
    assert caught.value.is_passing
    assert room.faulty.count(PUTS) == 5
    assert len(room.pauses) == 4
    assert all(0 <= pause <= 30 for pause in room.pauses)


@only_web
@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "credentials_file"), (403, "may not"), (413, "files of this size"), (507, "full")],
)
def test_a_refusal_is_told_at_once_and_says_what_to_do(room: Room, status: int, hint: str) -> None:
    room.faulty.faults.append(Fault(PUTS, status=status, count=99))
    with pytest.raises(StoreError, match=hint):
        room.store.put("key", CONTENT)
    assert room.faulty.count(PUTS) == 1


@only_web
def test_a_full_server_counts_as_a_full_disk(room: Room) -> None:
    room.faulty.faults.append(Fault(PUTS, status=507))
    with pytest.raises(StoreError) as caught:
        room.store.put("key", CONTENT)
    assert caught.value.kind is FailureKind.DISK


@only_web
def test_a_redirect_gets_neither_the_file_nor_the_login(room: Room) -> None:
    room.faulty.faults.append(Fault(PUTS, status=302))
    with pytest.raises(StoreError, match="the address that it redirects to"):
        room.store.put("key", CONTENT)


@only_web
def test_a_server_that_keeps_a_part_is_found_out_and_the_part_removed(room: Room) -> None:
    room.faulty.faults += [Fault(PUTS, truncate_to=1000), Fault("MOVE .*", status=405, count=9)]
    with pytest.raises(StoreError, match=r"took 300000 bytes, and then tells of 1000 bytes"):
        room.store.put("key", CONTENT)
    assert room.store.head("key") is None


@only_web
@pytest.mark.parametrize("is_moving", [True, False])
def test_a_server_that_cannot_move_gets_the_file_in_place(room: Room, is_moving: bool) -> None:
    if not is_moving:
        room.faulty.faults.append(Fault("MOVE .*", status=405, count=99))
    for key in ("key", "other/key", "other/key"):
        room.store.put(key, CONTENT)
        assert stored(room, key) == CONTENT.sha256
    assert room.faulty.count("MOVE .*") == (4 if is_moving else 2)
    assert room.faulty.count("PUT .*/key") == (0 if is_moving else 3)


@only_web
def test_a_server_that_does_not_say_what_it_can_gets_the_file_in_place(room: Room) -> None:
    room.faulty.faults.append(Fault("OPTIONS .*", status=403))
    for key in ("key", "other"):
        room.store.put(key, CONTENT)
    assert room.faulty.count("OPTIONS .*") == 1
    assert room.faulty.count("MOVE .*") == 0


@only_web
def test_what_was_there_before_outlives_a_refusal(room: Room) -> None:
    room.store.put("key", Content.of_bytes(b"before"))
    room.faulty.faults.append(Fault(PUTS, status=413))
    with pytest.raises(StoreError):
        room.store.put("key", CONTENT)
    assert stored(room) == hashlib.sha256(b"before").hexdigest()


@over_http
def test_a_download_that_breaks_off_is_no_whole_object(room: Room) -> None:
    room.store.put("key", CONTENT)
    room.faulty.faults.append(Fault(f"GET {OBJECT}", is_half=True))
    with pytest.raises(StoreError, match=r"broke off|can't read"):
        stored(room)


@only_moto
def test_an_equal_object_is_not_sent_again(room: Room) -> None:
    room.store.put("key", BIG)
    before = room.faulty.count("PUT .*")
    assert room.store.put("key", BIG).sha256 == BIG.sha256
    assert room.faulty.count("PUT .*") == before
    found = room.store.head("key")
    assert found is not None
    assert found.sha256 == BIG.sha256


@only_moto
def test_a_broken_upload_of_parts_is_taken_back(room: Room) -> None:
    room.faulty.faults.append(Fault(PUTS, status=403, count=99))
    with pytest.raises(StoreError):
        room.store.put("key", BIG)
    assert room.faulty.count("DELETE .*/key") == 1
    assert room.store.head("key") is None


@over_http
def test_a_wrong_login_is_told_without_the_secret(room: Room) -> None:
    wrong = room.folder / "wrong"
    if room.kind == "s3":
        wrong = s3_login(room.folder, "wrong-password")
    else:
        wrong.write_text("somebody:wrong-password\n")
        wrong.chmod(0o600)
    settings = room.settings.model_copy(update={"credentials_file": wrong})
    with (
        closing(open_store(settings)) as store,
        pytest.raises(StoreError, match="credentials_file") as caught,
    ):
        store.put("key", CONTENT)
    assert "wrong-password" not in str(caught.value)
    assert not caught.value.is_passing


@only_web
def test_a_token_goes_as_bearer_and_a_new_one_counts_at_once(room: Room) -> None:
    token = room.folder / "token"
    token.write_text("first-token\n")
    token.chmod(0o600)
    settings = room.settings.model_copy(update={"credentials_file": token})
    with closing(open_store(settings)) as store:
        for text in ("first-token", "second-token"):
            token.write_text(text)
            with pytest.raises(StoreError, match="401"):
                store.head("key")
            assert room.faulty.logins[-1] == f"Bearer {text}"


@over_http
def test_a_secret_that_others_can_read_is_refused(room: Room) -> None:
    assert room.settings.credentials_file is not None
    room.settings.credentials_file.chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        room.store.head("key")


@only_s3
def test_a_broken_credentials_file_is_told_without_its_lines(room: Room) -> None:
    assert room.settings.credentials_file is not None
    room.settings.credentials_file.write_text("very-secret without a section\n")
    with pytest.raises(ConfigError, match=r"format of ~/\.aws/credentials") as caught:
        room.store.head("key")
    assert "very-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@only_s3
def test_a_missing_bucket_is_told(room: Room) -> None:
    settings = room.settings.model_copy(update={"url": "s3://no-such-bucket-here"})
    with closing(open_store(settings)) as store, pytest.raises(StoreError, match="Make the bucket"):
        store.put("key", CONTENT)


def test_a_server_that_is_not_there_is_told() -> None:
    pauses: list[float] = []
    settings = StoreSettings(url="http://127.0.0.1:1/x")
    with (
        closing(open_store(settings, pause=pauses.append)) as store,
        pytest.raises(StoreError, match=r"no answer from the store: .*refused"),
    ):
        store.head("key")
    assert len(pauses) == 4


def test_a_cancel_ends_the_wait_between_attempts() -> None:
    cancel = CancelToken()
    cancel.cancel("enough")
    settings = StoreSettings(url="http://127.0.0.1:1/x")
    with closing(open_store(settings)) as store, pytest.raises(CancelledError):
        store.put("key", CONTENT, cancel)


def test_netrc_of_the_user_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakes.fault_proxy import proxy_to

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password private\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with proxy_to("http://127.0.0.1:1") as proxy:
        proxy.faults.append(Fault(".*", status=404))
        with closing(open_store(StoreSettings(url=proxy.url))) as store:
            assert store.head("key") is None
        assert proxy.logins == [""]


def test_without_boto3_the_message_says_what_to_install() -> None:
    program = """
import sys
sys.modules["boto3"] = None
from smidr_ci.config.stores import StoreSettings
from smidr_ci.errors import ConfigError
from smidr_ci.stores.opening import open_store
try:
    open_store(StoreSettings(url="s3://bucket")).head("key")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "pip install 'smidr-ci[s3]'" in done.stdout


def test_a_file_that_grows_too_big_is_told_and_leaves_no_part(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from smidr_ci.stores.content import Content
from smidr_ci.stores.directory import DirectoryStore
from smidr_ci.stores.model import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    DirectoryStore(Path(sys.argv[1])).put("a/key", Content.of_bytes(bytes(3 << 20)))
except StoreError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "can't store a file" in done.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_counts_as_such(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from smidr_ci.stores.content import Content
from smidr_ci.stores.directory import DirectoryStore
from smidr_ci.stores.model import StoreError
try:
    DirectoryStore(Path(sys.argv[1])).put("a/key", Content.of_bytes(bytes(3 << 20)))
except StoreError as error:
    print(error.kind, error.message, *Path(sys.argv[1]).glob(".smidr-partial/*"))
"""
    mounted = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this user can't mount: {done.stderr[-200:]}")
    assert done.stdout.strip() == "disk can't store a file: the disk is full"


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / ".smidr-partial").symlink_to("/sys/kernel")
    with pytest.raises(StoreError, match="can't store a file"):
        DirectoryStore(tmp_path).put("key", CONTENT)


def test_a_directory_that_is_missing_is_not_made(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "unmounted")
    with pytest.raises(StoreError, match="no such directory"):
        store.put("key", CONTENT)
    assert not (tmp_path / "unmounted").exists()


def test_what_a_crash_left_is_removed_after_a_day(tmp_path: Path) -> None:
    partials = tmp_path / ".smidr-partial"
    partials.mkdir()
    for name, age_s in (("old", 2 * 86_400), ("new", 60)):
        (partials / name).write_bytes(b"part")
        os.utime(partials / name, (time.time() - age_s,) * 2)
    store = DirectoryStore(tmp_path)
    store.put("key", CONTENT)
    assert [path.name for path in partials.iterdir()] == ["new"]
    assert [item.key for item in store.list()] == ["key"]


def test_a_link_in_the_place_of_an_object_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    root = tmp_path / "store"
    root.mkdir()
    (root / "key").symlink_to(outside)
    store = DirectoryStore(root)
    assert store.head("key") is None
    with pytest.raises(StoreError):
        store.open("key")
    store.put("key", CONTENT)
    assert outside.read_bytes() == b"mine"
    assert not (root / "key").is_symlink()


def test_a_killed_upload_leaves_no_object(tmp_path: Path) -> None:
    program = """
import os, sys
from io import BytesIO
from pathlib import Path
from smidr_ci.stores.content import Content
from smidr_ci.stores.directory import DirectoryStore
class Deadly(BytesIO):
    def read(self, size=-1, /):
        if self.tell() > 2 << 20:
            os.kill(os.getpid(), 9)
        return super().read(size)
raw = bytes(5 << 20)
content = Content(lambda: Deadly(raw), len(raw), "0" * 64)
DirectoryStore(Path(sys.argv[1])).put("a/key", content)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    store = DirectoryStore(tmp_path)
    assert store.head("a/key") is None
    assert list(store.list()) == []
    store.put("a/key", CONTENT)
    assert [item.key for item in store.list()] == ["a/key"]
