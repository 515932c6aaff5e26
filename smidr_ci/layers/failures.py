"""What git's own words mean: the network, the password, the repository, or the disk.

The texts are git's, curl's and OpenSSH's, as printed with LC_ALL=C.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from smidr_ci.errors import FailureKind, LayerError

__all__ = ["GitError", "GitFailure", "OneLayerError", "classify", "hint_for", "raise_problems"]


class GitFailure(StrEnum):
    """Kinds of failure that lead to different deeds."""

    NETWORK = "network"
    AUTHENTICATION = "authentication"
    HOST_KEY = "host key"
    CERTIFICATE = "certificate"
    NOT_FOUND = "not found"
    DAMAGED_THERE = "damaged at its host"
    LFS = "Git LFS lacks a file"
    UNSERVED = "the server does not serve this commit"
    PROTOCOL = "protocol not allowed"
    DISK = "disk full"
    CORRUPT = "damaged mirror"
    OTHER = "git failed"


class GitError(Exception):
    """A git command failed; `line` is git's most telling line, without secrets."""

    def __init__(self, failure: GitFailure, line: str, url: str = "") -> None:
        super().__init__(f"{failure}: {line}")
        self.failure = failure
        self.line = line
        self.url = url


# The first kind with a phrase in git's output wins.
_PHRASES: Final = {
    GitFailure.DISK: ("no space left on device", "disk quota exceeded"),
    GitFailure.HOST_KEY: (
        "host key verification failed",
        "remote host identification has changed",
    ),
    GitFailure.CERTIFICATE: (
        "ssl certificate problem",
        "certificate verif",
        "self[- ]signed certificate",
        "no alternative certificate subject",
    ),
    GitFailure.UNSERVED: (
        "not our ref",
        "unadvertised object",
        "does not support shallow",
        "couldn't find remote ref",
        "does not support --depth",
        "remote did not send all necessary",
    ),
    GitFailure.LFS: (r"\[404\] object does not exist", r"\[41[0-9]\] object "),
    GitFailure.NOT_FOUND: (
        "repository .* not found",
        "repository not found",
        "returned error: 404",
        "does not appear to be a git repository",
        "project you were looking for could not be found",
        "repository not exported",
    ),
    GitFailure.AUTHENTICATION: (
        "authentication failed",
        "could not read (username|password)",
        r"permission denied \(",
        "access denied",
        "returned error: 40[13]",
        "terminal prompts disabled",
        "authorization error: ",
        "invalid username",
    ),
    GitFailure.PROTOCOL: (
        "transport '.*' not allowed",
        "protocol '.*' is not supported",
        r"protocol \S+ (not supported|disabled)",
        "unable to find remote helper",
    ),
    GitFailure.DAMAGED_THERE: ("remote: fatal: unable to read", "corruption on the remote side"),
    GitFailure.NETWORK: (
        "could(n't| not) resolve (host|proxy)",
        "connection (refused|reset|timed out|closed)",
        "failed to connect",
        "couldn't connect",
        "unable to connect",
        "timed out",
        "timeout",
        "operation too slow",
        "early eof",
        "rpc failed",
        "unexpected disconnect",
        "hung up",
        "network is unreachable",
        "no route to host",
        "temporary failure in name resolution",
        "name or service not known",
        r"returned error: (429|5\d\d)",
        r"server error .*http (429|5\d\d)",
        "expected oid .*, got ",
        "gnutls_handshake",
        "ssl_connect",
        "empty reply from server",
        "invalid index-pack output",
        "index-pack failed",
        "bad pack header",
        "transfer closed",
        "(recv|send) failure",
        "http/2 stream",
        "protocol error",
    ),
    GitFailure.CORRUPT: (
        "bad object",
        "is corrupt",
        "corrupt ",
        "inflate",
        "index file",
        "missing (blob|tree|commit)",
        "unable to (read|parse|unpack)",
        "could not (parse|read) object",
        "not a git repository",
        "bad signature",
        "packfile .* (cannot|does not)",
        "invalid object",
        "object file .* is empty",
        "not a tree object",
        "not a valid object name",
        "unable to resolve reference",
        "wrong index",
        "could not open pack",
    ),
}
_COMPILED: Final = {
    kind: re.compile("|".join(phrases), re.IGNORECASE) for kind, phrases in _PHRASES.items()
}
_LINE_LIMIT: Final = 300


def classify(stderr: str) -> tuple[GitFailure, str]:
    """The kind of failure, and the line of git's output that says it best."""
    lines = [text for raw in stderr.splitlines() if (text := _printable(raw))]
    for kind, pattern in _COMPILED.items():
        for line in reversed(lines):
            if pattern.search(line):
                return kind, line[:_LINE_LIMIT]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    last = (fatal or lines or ["git said nothing"])[-1]
    return GitFailure.OTHER, last[:_LINE_LIMIT]


def _printable(line: str) -> str:
    # The far end writes "remote:" lines; they must not steer a terminal or forge a CI command.
    return "".join(char if char.isprintable() else " " for char in line).strip()


_HINTS: Final = {
    GitFailure.NETWORK: "Check the network, proxy and host name; add `mirrors` to the layer for "
    "hosts that are often down.",
    GitFailure.AUTHENTICATION: "Check the URL; for a private repository the operator adds "
    "credentials for this host to git.credentials in agent.yaml.",
    GitFailure.HOST_KEY: "Check the server's key, then add it to the known_hosts file that the "
    "operator's credentials name.",
    GitFailure.CERTIFICATE: "Add the site's CA to the host's certificates, or set SSL_CERT_FILE.",
    GitFailure.NOT_FOUND: "Check the spelling of the URL; a private repository is also reported as "
    "not found when credentials are missing.",
    GitFailure.DAMAGED_THERE: "Tell who keeps the repository, or name a mirror under `mirrors`.",
    GitFailure.LFS: "Push what Git LFS keeps of it: 'git lfs push --all origin'.",
    GitFailure.UNSERVED: "Check the commit id; it may have been removed by a force-push.",
    GitFailure.PROTOCOL: "Use a URL with https, ssh, git or file, if the operator allows it.",
    GitFailure.DISK: "Make room on the disk that holds $SMIDR_HOME, then try again.",
    GitFailure.CORRUPT: "The mirror was made anew and is still damaged: check the disk.",
    GitFailure.OTHER: "Try the same with git by hand.",
}


def hint_for(failure: GitFailure) -> str:
    """What the user can do about it."""
    return _HINTS[failure]


class OneLayerError(Exception):
    """What is wrong with one layer; all problems of a build are told in one `LayerError`."""

    def __init__(
        self, layer: str, message: str, hint: str, failure: GitFailure | None = None
    ) -> None:
        super().__init__(message)
        self.layer = layer
        self.message = message
        self.hint = hint
        self.failure = failure


def raise_problems(problems: Iterable[OneLayerError]) -> None:
    """Raise one `LayerError` that names every layer in trouble; do nothing when there is none."""
    found = list(problems)
    if not found:
        return
    disk = all(problem.failure is GitFailure.DISK for problem in found)
    kind = FailureKind.DISK if disk else FailureKind.LAYERS
    hints = list(dict.fromkeys(problem.hint for problem in found if problem.hint))
    if len(found) == 1:
        only = found[0]
        raise LayerError(
            only.message,
            where=f"layer {only.layer}",
            hint=only.hint,
            kind=kind,
            layers=[only.layer],
        )
    lines = "".join(f"\n  layer {problem.layer}: {problem.message}" for problem in found)
    raise LayerError(
        f"{len(found)} layers can't be used:{lines}",
        hint="\n  ".join(hints),
        kind=kind,
        layers=[problem.layer for problem in found],
    )
