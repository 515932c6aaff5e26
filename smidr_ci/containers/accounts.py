"""A passwd and a group entry for the builder, put into a container before it starts.

git, ssh and Python's getpass fail for a uid without an entry, pseudo reads both files. What the
image brings is a stranger's: read with a limit, kept line by line.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from smidr_ci.containers.runtime import User
from smidr_ci.files import make_private_dir, write_atomic

__all__ = [
    "MAX_ACCOUNT_FILE_BYTES",
    "Accounts",
    "account_archive",
    "first_file",
    "kept_accounts",
    "with_group",
    "with_passwd",
]

MAX_ACCOUNT_FILE_BYTES: Final = 1024 * 1024
_ROOT_USER: Final = "root:x:0:0:root:/root:/bin/sh"
_ROOT_GROUP: Final = "root:x:0:"
_IMAGE_ID: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)


class Accounts(NamedTuple):
    """The text of an image's /etc/passwd and /etc/group; empty where there is none."""

    passwd: str
    group: str


def kept_accounts(folder: Path | None, image: str, read: Callable[[], Accounts]) -> Accounts:
    """What `read` says of an image, asked once: the content of an image id never changes.

    Kept in `folder`, one file per image; a file that can't be read or written costs a `read`.
    """
    found = _IMAGE_ID.fullmatch(image)
    if folder is None or found is None:
        return read()
    path = folder / f"{found[1]}.json"
    try:
        raw = json.loads(path.read_bytes())
        return Accounts(str(raw["passwd"]), str(raw["group"]))
    except (OSError, ValueError, KeyError, TypeError):
        accounts = read()
    with contextlib.suppress(OSError):
        make_private_dir(folder)
        write_atomic(path, json.dumps(accounts._asdict()))
    return accounts


def with_passwd(text: str, user: User) -> str:
    """The file with an entry for the user's uid whose home is `user.home`.

    An entry with the uid keeps its name; a name taken by another uid gets the uid appended.
    """
    lines = text.splitlines() or [_ROOT_USER]
    entries = [line.split(":") for line in lines]
    mine = next((n for n, entry in enumerate(entries) if _has_id(entry, user.uid)), None)
    if mine is None:
        name = _free_name(user, {entry[0] for entry in entries})
        lines.append(f"{name}:x:{user.uid}:{user.gid}:smidr:{user.home}:/bin/sh")
    else:
        entry = (entries[mine] + [""] * 7)[:7]
        shell = entry[6] if entry[6] and not entry[6].endswith(("nologin", "false")) else "/bin/sh"
        lines[mine] = ":".join([*entry[:3], str(user.gid), entry[4], str(user.home), shell])
    return "\n".join(lines) + "\n"


def with_group(text: str, user: User) -> str:
    """The file with an entry for the user's gid."""
    lines = text.splitlines() or [_ROOT_GROUP]
    entries = [line.split(":") for line in lines]
    if not any(_has_id(entry, user.gid) for entry in entries):
        name = _free_name(user, {entry[0] for entry in entries})
        lines.append(f"{name}:x:{user.gid}:")
    return "\n".join(lines) + "\n"


def _has_id(entry: list[str], number: int) -> bool:
    return len(entry) > 2 and entry[2] == str(number)


def _free_name(user: User, taken: set[str]) -> str:
    return user.name if user.name not in taken else f"{user.name}{user.uid}"


def first_file(archive: Iterable[bytes]) -> str:
    """The text of the first regular file in a tar stream of the engine; empty when too large."""
    raw = bytearray()
    for chunk in archive:
        raw += chunk
        if len(raw) > MAX_ACCOUNT_FILE_BYTES:
            return ""
    with tarfile.open(fileobj=io.BytesIO(bytes(raw))) as tar:
        for member in tar:
            found = tar.extractfile(member) if member.isreg() else None
            if found is not None:
                return found.read().decode(errors="surrogateescape")
    return ""


def account_archive(passwd: str, group: str, user: User, home: PurePosixPath | None) -> bytes:
    """A tar for the container's root: both files, and the home directory unless it is a mount."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in (("etc/passwd", passwd), ("etc/group", group)):
            raw = text.encode(errors="surrogateescape")
            member = _member(name, 0o644)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
        if home is not None:
            member = _member(str(home).lstrip("/"), 0o755)
            member.type = tarfile.DIRTYPE
            member.uid, member.gid = user.uid, user.gid
            tar.addfile(member)
    return out.getvalue()


def _member(name: str, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = mode
    return member
