"""passwd and group entries in images that strangers made."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.containers.accounts import (
    MAX_ACCOUNT_FILE_BYTES,
    Accounts,
    account_archive,
    first_file,
    kept_accounts,
    with_group,
    with_passwd,
)
from smidr_ci.containers.runtime import User

USER = User(1000, 1001)


def test_entry_is_added_to_what_is_there() -> None:
    text = with_passwd("root:x:0:0:root:/root:/bin/bash\n", USER)
    assert text.splitlines() == [
        "root:x:0:0:root:/root:/bin/bash",
        "builder:x:1000:1001:smidr:/smidr/home:/bin/sh",
    ]


def test_image_without_the_files_gets_root_too() -> None:
    assert with_passwd("", USER).startswith("root:x:0:0:")
    assert with_group("", USER).splitlines() == ["root:x:0:", "builder:x:1001:"]


def test_entry_with_the_uid_keeps_its_name_and_gets_the_right_home_and_group() -> None:
    text = with_passwd("node:x:1000:1000:Node:/home/node:/usr/sbin/nologin", USER)
    assert text == "node:x:1000:1001:Node:/smidr/home:/bin/sh\n"


def test_broken_entry_with_the_uid_is_completed() -> None:
    assert with_passwd("x:y:1000", USER) == "x:y:1000:1001::/smidr/home:/bin/sh\n"


def test_name_taken_by_another_uid_is_not_used_twice() -> None:
    lines = with_passwd("builder:x:55:55::/:/bin/sh", USER).splitlines()
    assert lines[1].startswith("builder1000:x:1000:")


def test_existing_group_is_left_alone() -> None:
    assert with_group("staff:x:1001:a,b\n", USER) == "staff:x:1001:a,b\n"


def tar_of(name: str, raw: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(raw)
        tar.addfile(member, io.BytesIO(raw))
    return out.getvalue()


def test_file_is_read_from_a_tar_in_pieces() -> None:
    raw = tar_of("passwd", b"caf\xe9:x:1:1::/:\n")
    pieces = [raw[n : n + 100] for n in range(0, len(raw), 100)]
    assert (
        with_passwd(first_file(pieces), USER)
        .encode(errors="surrogateescape")
        .startswith(b"caf\xe9:x:1:1")
    )


def test_huge_file_counts_as_none() -> None:
    assert first_file([b"x" * MAX_ACCOUNT_FILE_BYTES, b"x"]) == ""


def test_archive_holds_both_files_and_the_home() -> None:
    raw = account_archive("p\n", "g\n", USER, PurePosixPath("/smidr/home"))
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        found = {member.name: (member.uid, member.gid, member.mode) for member in tar}
    assert found == {
        "etc/passwd": (0, 0, 0o644),
        "etc/group": (0, 0, 0o644),
        "smidr/home": (1000, 1001, 0o755),
    }


def test_mounted_home_is_not_touched() -> None:
    with tarfile.open(fileobj=io.BytesIO(account_archive("p\n", "g\n", USER, None))) as tar:
        assert tar.getnames() == ["etc/passwd", "etc/group"]


IMAGE = "sha256:" + "ab" * 32


def test_what_an_image_has_is_read_once(tmp_path: Path) -> None:
    folder, first = tmp_path / "accounts", Accounts("p\udce9:x:1:1::/:\n", "g:x:1:\n")
    assert kept_accounts(folder, IMAGE, lambda: first) == first
    assert kept_accounts(folder, IMAGE, lambda: Accounts("", "")) == first


def test_a_tag_may_name_another_image_later_and_is_always_read(tmp_path: Path) -> None:
    folder = tmp_path / "accounts"
    kept_accounts(folder, "debian:12", lambda: Accounts("a", "b"))
    assert kept_accounts(folder, "debian:12", lambda: Accounts("c", "d")) == Accounts("c", "d")


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"passwd": ""}'])
def test_a_damaged_memory_of_accounts_is_read_anew(tmp_path: Path, damage: str) -> None:
    kept_accounts(tmp_path, IMAGE, lambda: Accounts("a", "b"))
    next(tmp_path.glob("*.json")).write_text(damage)
    assert kept_accounts(tmp_path, IMAGE, lambda: Accounts("c", "d")) == Accounts("c", "d")
    assert kept_accounts(tmp_path, IMAGE, lambda: Accounts("", "")) == Accounts("c", "d")
