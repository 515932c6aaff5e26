"""Who builds run as: the host's user, so that what they make belongs to them; never root."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from smidr_ci.containers.runtime import User
from smidr_ci.errors import HostError

__all__ = ["builder_user", "own"]

DEFAULT_IDS: Final = (1000, 1000)
SERVICE_USER: Final = "smidr"
_MAX_ID: Final = 2**32 - 2


def builder_user(
    environ: Mapping[str, str],
    setting: str | None = None,
    *,
    process_ids: tuple[int, int] | None = None,
) -> User:
    """The user of a build's processes.

    That of this process; for root, in this order: the operator's `setting` (`uid`, `uid:gid` or a
    user name), who called sudo, the user `smidr`, 1000:1000. Raises `HostError` when the setting
    names nobody, or root.
    """
    uid, gid = process_ids or (os.geteuid(), os.getegid())
    if uid != 0:
        return User(uid, gid)
    chosen = _from_setting(setting) or _from_sudo(environ) or _by_name(SERVICE_USER) or DEFAULT_IDS
    return User(*chosen)


def _from_sudo(environ: Mapping[str, str]) -> tuple[int, int] | None:
    uid, gid = environ.get("SUDO_UID", ""), environ.get("SUDO_GID", "")
    ids = _parse_ids(f"{uid}:{gid}" if gid else uid)
    return ids if ids and ids[0] != 0 else None


def _from_setting(setting: str | None) -> tuple[int, int] | None:
    if not setting:
        return None
    ids = _parse_ids(setting) or _by_name(setting)
    if ids is None:
        raise HostError(
            f"the builder user {setting!r} does not exist on this host",
            hint="Name an existing user, or give numbers such as 1000:1000, in agent.yaml.",
        )
    if ids[0] == 0:
        raise HostError(
            "the builder user is root, which BitBake refuses",
            hint="Name an unprivileged user, or give numbers such as 1000:1000, in agent.yaml.",
        )
    return ids


def _parse_ids(text: str) -> tuple[int, int] | None:
    parts = text.split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    ids = [int(part) for part in parts]
    if any(number > _MAX_ID for number in ids):
        return None
    if len(ids) == 2:
        return ids[0], ids[1]
    try:
        return ids[0], pwd.getpwuid(ids[0]).pw_gid
    except KeyError:
        return ids[0], ids[0]


def _by_name(name: str) -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def own(path: Path, user: User) -> None:
    """Give a directory to the builder when this process is root; a symlink is refused.

    Raises `HostError` when it can't be given, `OSError` when it is no directory.
    """
    if os.geteuid() != 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if (info.st_uid, info.st_gid) != (user.uid, user.gid):
            os.fchown(fd, user.uid, user.gid)
    except OSError as error:
        raise HostError(
            f"can't give {path} to the builder, uid {user.uid}: {error.strerror}",
            where=str(path),
            hint="The file system must let root change owners; NFS with root_squash does not.",
        ) from error
    finally:
        os.close(fd)
