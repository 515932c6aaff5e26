"""Checks of programs, the registry and the user."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import requests

from smidr_ci.containers.runtime import User
from smidr_ci.doctor.model import CheckResult, failed, fine, warned
from smidr_ci.images.pull import registry_of

__all__ = ["check_git", "check_locale", "check_mmdebstrap", "check_registry", "check_user"]

_OLDEST_GIT: Final = (2, 25)
_TIMEOUT_S: Final = 3.0


def check_git(environ: Mapping[str, str]) -> list[CheckResult]:
    """Git is there, and new enough."""
    program = shutil.which("git", path=environ.get("PATH"))
    if program is None:
        return [failed("git", "not installed; layers can't be fetched", "apt-get install git")]
    answer = subprocess.run(
        [program, "--version"], capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    text = answer.stdout.decode(errors="replace").strip()
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found or (int(found[1]), int(found[2])) < _OLDEST_GIT:
        wanted = ".".join(map(str, _OLDEST_GIT))
        return [failed("git", f"{text or 'broken'}; {wanted} is needed", "apt-get install git")]
    return [fine("git", text.removeprefix("git version "))]


def check_mmdebstrap(environ: Mapping[str, str]) -> list[CheckResult]:
    """Whether a base image could be made without a registry."""
    # Debian has it in /usr/bin, which a restricted PATH may lack.
    program = shutil.which("mmdebstrap", path=environ.get("PATH"))
    if program is None:
        detail = "not installed; only needed where no registry can be reached"
        return [warned("mmdebstrap", detail, "apt-get install mmdebstrap")]
    return [fine("mmdebstrap", program)]


def check_registry(default_base: str) -> list[CheckResult]:
    """Whether the default base's registry answers this host (the engine may use another proxy)."""
    host = registry_of(default_base)
    # Docker Hub's API has another name than its images.
    url = f"https://{'registry-1.docker.io' if host == 'docker.io' else host}/v2/"
    try:
        answer = requests.get(url, timeout=(_TIMEOUT_S, _TIMEOUT_S))
    except requests.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.Timeout) else "not reachable"
        remedy = (
            f"Check network and proxy (curl -I {url}), or let smidr make a base without it: "
            "apt-get install mmdebstrap"
        )
        return [warned("registry", f"{host}: {reason}", remedy)]
    # Distribution's API: 401 asks for a token, which a pull gets by itself.
    if answer.status_code in {200, 401}:
        return [fine("registry", f"{host} answers")]
    detail = f"{host} answers with HTTP status {answer.status_code}"
    return [warned("registry", detail, f"curl -I {url}")]


def check_user(user: User) -> list[CheckResult]:
    """Who builds run as."""
    return [fine("builder user", f"builds run as uid {user.uid}, gid {user.gid}")]


def check_locale() -> list[CheckResult]:
    """File names must be UTF-8 for this program as they are for BitBake."""
    encoding = sys.getfilesystemencoding().lower()
    if encoding not in {"utf-8", "utf8"}:
        return [warned("locale", f"file names are taken as {encoding}", "export LC_ALL=C.UTF-8")]
    return [fine("locale", "UTF-8")]
