"""What a git URL from a stranger may look like.

git starts programs for some URLs (`ext::`, an ssh host like `-oProxyCommand=`), so this is an
allow-list: https, http, ssh, git and file, and the short `user@host:path`.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["GIT_URL_SCHEMA", "check_git_url"]

_MAX_LENGTH: Final = 2048
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9._+-]*)"
_REMOTE: Final = re.compile(rf"(https?|ssh|git)://(?:({_USER})@)?{_HOST}(?::[0-9]{{1,5}})?/[^/].*")
_LOCAL: Final = re.compile(r"file://(?:localhost)?/[^/].*")
_SHORT: Final = re.compile(rf"{_USER}@{_HOST}:[^-:].*")
_HELPER: Final = re.compile(r"[A-Za-z0-9+.-]*::")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ENCODED_CONTROL: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_TOKEN: Final = re.compile(r"(gh[a-z]_|github_pat_|gl[a-z]+-|[A-Za-z0-9]{32,})", re.IGNORECASE)
_SCHEMES: Final = "https://, http://, ssh://, git://, file:/// or user@host:path"

GIT_URL_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": rf"^(?:{_REMOTE.pattern}|{_LOCAL.pattern}|{_SHORT.pattern})$",
    "maxLength": _MAX_LENGTH,
}


def check_git_url(url: str) -> str:
    """The URL itself; raises ValueError that says what is wrong without repeating a secret."""
    if not url or len(url) > _MAX_LENGTH:
        raise ValueError(f"must be a URL of at most {_MAX_LENGTH} characters")
    if not url.isprintable() or " " in url or _ENCODED_CONTROL.search(url):
        raise ValueError("is a URL with a space or control character")
    _refuse_tricks(url)
    _refuse_secrets(url)
    if not (_REMOTE.fullmatch(url) or _LOCAL.fullmatch(url) or _SHORT.fullmatch(url)):
        raise ValueError(_why_no_match(url))
    if url.startswith("file:") and ".." in url.split("/"):
        raise ValueError("is a file URL with ..; write the path without it")
    return url


def _refuse_tricks(url: str) -> None:
    if url.startswith("-"):
        raise ValueError("is not a URL: it starts with - like an option")
    if _HELPER.match(url):
        raise ValueError(f"uses a git transport helper (::), which runs programs; use {_SCHEMES}")
    if ";" in url:
        raise ValueError(
            "has ;options as in BitBake's SRC_URI; use the keys branch, tag and commit, "
            "and write the protocol as the scheme"
        )


def _refuse_secrets(url: str) -> None:
    scheme = _SCHEME.match(url)
    authority = url[scheme.end() :].split("/", 1)[0] if scheme else url.split(":", 1)[0]
    user, at, _ = authority.rpartition("@")
    if at and (":" in user or _TOKEN.match(user)):
        raise ValueError(
            "holds a password or token; take it out and have the operator put it under "
            "git.credentials in agent.yaml"
        )
    if scheme and scheme[1].startswith("http") and re.search(r"[?#]", url):
        raise ValueError("has a query or fragment (? or #), which may hold a token; take it out")


def _why_no_match(url: str) -> str:
    scheme = _SCHEME.match(url)
    if scheme is None:
        return f"is not a git URL; use {_SCHEMES}, or the key path for a local directory"
    if scheme[1] == "file":
        return "is a relative file URL; write file:// and an absolute path, or use the key path"
    if scheme[1] not in {"https", "http", "ssh", "git"}:
        return f"has the scheme {scheme[1]}://, which is not allowed; use {_SCHEMES}"
    return f"has no valid host and path; write {scheme[1]}://host/path"
