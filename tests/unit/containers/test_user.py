"""Who builds run as."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.containers.runtime import User
from smidr_ci.containers.user import builder_user, own
from smidr_ci.errors import HostError

ROOT = (0, 0)


def test_ordinary_user_builds_as_himself_whatever_the_settings() -> None:
    user = builder_user({"SUDO_UID": "5"}, "7:8", process_ids=(1234, 100))
    assert user == User(1234, 100)


def test_under_sudo_the_caller_builds() -> None:
    environ = {"SUDO_UID": "1234", "SUDO_GID": "100"}
    assert builder_user(environ, process_ids=ROOT) == User(1234, 100)


def test_the_operators_setting_counts_more_than_sudo() -> None:
    environ = {"SUDO_UID": "1234", "SUDO_GID": "100"}
    assert builder_user(environ, "7:8", process_ids=ROOT) == User(7, 8)


@pytest.mark.parametrize("uid", ["0", "", "-1", "x", "99999999999999", "\uff11"])
def test_useless_sudo_variables_are_passed_over(uid: str) -> None:
    environ = {"SUDO_UID": uid, "SUDO_GID": "0"}
    assert builder_user(environ, process_ids=ROOT) == builder_user({}, process_ids=ROOT)


def test_root_without_setting_builds_as_1000() -> None:
    user = builder_user({}, process_ids=ROOT)
    assert user.uid != 0
    assert user == User(1000, 1000) or user.name == "builder"


def test_setting_may_name_a_user() -> None:
    assert builder_user({}, "nobody", process_ids=ROOT).uid == 65534


@pytest.mark.parametrize("setting", ["root", "0", "0:0", "0:1000"])
def test_root_as_setting_is_refused(setting: str) -> None:
    with pytest.raises(HostError, match="BitBake refuses"):
        builder_user({}, setting, process_ids=ROOT)


def test_unknown_user_as_setting_is_refused() -> None:
    with pytest.raises(HostError, match="no-such-user"):
        builder_user({}, "no-such-user", process_ids=ROOT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change owners")
def test_root_gives_directories_away_but_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "dir")
    with pytest.raises(OSError, match="link"):
        own(tmp_path / "link", User(4711, 4712))
    assert (tmp_path / "dir").stat().st_uid == 0
    own(tmp_path / "dir", User(4711, 4712))
    info = (tmp_path / "dir").stat()
    assert (info.st_uid, info.st_gid) == (4711, 4712)
