"""Reads a job's workflow at the commit that it runs for, and what that calls in turn."""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from smidr_ci.config.document import Mapping, Node, YamlError, compose
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.auth import Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.facts import PRIVILEGED
from smidr_ci.forges.github.runners.steps import (
    entry,
    is_named,
    local_action,
    runs_smidr,
    steps_of,
    text_of,
)
from smidr_ci.forges.github.site import Site, is_repository_name

__all__ = ["Finding", "Workflows"]

_MOST_FILES: Final = 20
_DEEPEST: Final = 10
_MOST_BYTES: Final = 512 * 1024
_MOST_JOBS: Final = 300
_CALLS_PER_LOOK: Final = 40
_KEPT_FILES: Final = 64
_KEPT_FINDINGS: Final = 1000
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PATH: Final = re.compile(r"[A-Za-z0-9._ +@~-]+(?:/[A-Za-z0-9._ +@~-]+)*", re.ASCII)
_WORKFLOW: Final = re.compile(r"\.github/workflows/[A-Za-z0-9._ +@~-]+\.ya?ml", re.ASCII)
_REF: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]{0,200}", re.ASCII)


class Finding(NamedTuple):
    """Whether a job builds with smidr, and in a few words why not."""

    is_smidr: bool
    reason: str = ""


@dataclass(frozen=True)
class _File:
    repository: str
    ref: str
    """A commit; empty for the default branch."""
    path: str


class _UnreadableError(Exception):
    """Why a file tells nothing; it is not worth another try."""


class Workflows:
    """For one thread. `actions` are patterns of `owner/name` of the actions that are smidr's."""

    def __init__(
        self, site: Site, client: GitHubClient, actions: Callable[[], Sequence[str]]
    ) -> None:
        self._site = site
        self._client = client
        self._actions = actions
        self._files: OrderedDict[_File, Node | None] = OrderedDict()
        self._findings: OrderedDict[tuple[object, ...], Finding] = OrderedDict()
        self._calls_left = _CALLS_PER_LOOK

    def begin_look(self) -> None:
        """Files may be asked of GitHub again, up to some number."""
        self._calls_left = _CALLS_PER_LOOK

    def find(self, repository: str, run: AnyMapping[str, Any], job_name: str) -> Finding:
        """Whether this job of a run builds with smidr.

        Raises `ForgeError` when GitHub does not answer: then it is not known yet.
        """
        start = _start_of(repository, run)
        if start is None:
            return Finding(False, "its workflow is no file of the repository")
        actions = tuple(self._actions())
        key = (start, str(run.get("head_sha")), job_name, actions)
        if start.ref and key in self._findings:
            return self._findings[key]
        found = _Search(self._read, self._site, run, repository, actions).find(start, job_name)
        self._findings[key] = found
        while len(self._findings) > _KEPT_FINDINGS:
            self._findings.popitem(last=False)
        return found

    def _read(self, file: _File) -> Node | None:
        """The file as YAML, None when there is none; raises `_UnreadableError`, `ForgeError`."""
        if file in self._files:
            self._files.move_to_end(file)
            return self._files[file]
        found = self._fetch(file)
        if _SHA.fullmatch(file.ref):  # anything else may be another text tomorrow
            self._files[file] = found
            while len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        return found

    def _fetch(self, file: _File) -> Node | None:
        if self._calls_left <= 0:
            raise ForgeError("more workflows are new than are read at once", where=file.repository)
        self._calls_left -= 1
        path = f"/repos/{file.repository}/contents/{quote(file.path)}"
        scope = Scope.of(file.repository, contents="read")
        params = {"ref": file.ref} if file.ref else None
        try:
            reply = self._client.get(path, scope, action="read a workflow", params=params)
        except (ForgeUnreachableError, RateLimitedError):
            raise
        except ForgeError as error:
            if error.status == 404:
                return None
            if error.status in {0, 401} or error.status >= 500:
                raise
            raise _UnreadableError(f"{file.path} can't be read: {error.message}") from error
        return _parsed(reply.json(), file)


def _parsed(found: object, file: _File) -> Node:
    content = found.get("content") if isinstance(found, dict) else None
    size = found.get("size") if isinstance(found, dict) else None
    if not isinstance(content, str) or not isinstance(size, int):
        raise _UnreadableError(f"{file.path} is no file")
    if size > _MOST_BYTES or len(content) > 2 * _MOST_BYTES:
        raise _UnreadableError(f"{file.path} is too long")
    try:
        return compose(base64.b64decode(content).decode("utf-8"))
    except (binascii.Error, UnicodeDecodeError, YamlError) as error:
        raise _UnreadableError(f"{file.path} is no YAML") from error


def _start_of(repository: str, run: AnyMapping[str, Any]) -> _File | None:
    """The run's own workflow; the form `path@ref` is that of newer answers."""
    path = str(run.get("path") or "").partition("@")[0]
    sha = str(run.get("head_sha") or "")
    if not _WORKFLOW.fullmatch(path) or not _SHA.fullmatch(sha):
        return None
    # In these events the commit is a stranger's, and the workflow that of the default branch.
    ref = "" if str(run.get("event") or "") in PRIVILEGED else sha
    return _File(repository, ref, path)


class _Search:
    """One job's workflow with all that it calls, within a budget of files."""

    def __init__(
        self,
        read: Callable[[_File], Node | None],
        site: Site,
        run: AnyMapping[str, Any],
        repository: str,
        actions: tuple[str, ...],
    ) -> None:
        self._read = read
        self._site = site
        self._actions = actions
        self._pinned = _pinned(run)
        self._workspace = _File(repository, str(run.get("head_sha") or ""), "")
        self._left = _MOST_FILES

    def find(self, start: _File, job_name: str) -> Finding:
        try:
            is_smidr = self._workflow(start, job_name, 0)
        except _UnreadableError as error:
            return Finding(False, str(error))
        return Finding(is_smidr, "" if is_smidr else "none of its steps builds with smidr")

    def _get(self, file: _File) -> Node | None:
        if self._left <= 0:
            raise _UnreadableError("its workflow calls too many files")
        self._left -= 1
        return self._read(file)

    def _workflow(self, file: _File, job_name: str, depth: int) -> bool:
        if depth > _DEEPEST:
            raise _UnreadableError("its workflow calls others too deeply")
        node = self._get(file)
        if node is None:
            raise _UnreadableError(f"{file.path} is not in {file.repository}")
        return any(self._job(file, job, inner, depth) for job, inner in _chosen(node, job_name))

    def _job(self, file: _File, job: Mapping, inner: str, depth: int) -> bool:
        called = text_of(entry(job, "uses"))
        if called:
            return self._workflow(self._called(file, called), inner, depth + 1)
        return self._steps(job, depth)

    def _called(self, file: _File, text: str) -> _File:
        if text.startswith("./"):
            path = text.removeprefix("./")
            if _WORKFLOW.fullmatch(path):
                return replace(file, path=path)
            raise _UnreadableError("it calls a workflow by a path that can be none")
        where, _, ref = text.partition("@")
        owner, _, rest = where.partition("/")
        name, _, path = rest.partition("/")
        repository = f"{owner}/{name}"
        is_form = is_repository_name(repository) and _WORKFLOW.fullmatch(path)
        if not is_form or not _REF.fullmatch(ref) or owner.lower() != self._site.owner.lower():
            raise _UnreadableError("its steps are in a workflow that this host can't read")
        return _File(repository, self._pinned.get(text, ref), path)

    def _steps(self, node: Node | None, depth: int) -> bool:
        local = []
        for step in steps_of(node):
            if runs_smidr(step, self._actions):
                return True
            local.append(local_action(step))
        return any(self._action(path, depth + 1) for path in filter(None, local))

    def _action(self, path: str, depth: int) -> bool:
        """A composite action of the workspace: most likely a file of the same commit."""
        if depth > _DEEPEST or not _is_inside(path):
            return False
        for name in ("action.yml", "action.yaml"):
            node = self._get(replace(self._workspace, path=f"{path}/{name}"))
            if node is not None:
                return self._steps(entry(node, "runs"), depth)
        return False


def _chosen(workflow: Node, job_name: str) -> Iterator[tuple[Mapping, str]]:
    """The jobs that may be shown by this name, each with the name's rest for a called workflow.

    Where none fits, all: a name that is put together in a way that we don't know must not leave a
    job without a runner.
    """
    jobs = entry(workflow, "jobs")
    if not isinstance(jobs, Mapping):
        return
    listed = [
        (name, job)
        for name, (_, job) in list(jobs.entries.items())[:_MOST_JOBS]
        if isinstance(job, Mapping)
    ]
    outer, _, inner = job_name.partition(" / ")
    fitting = [
        (job, "")
        for name, job in listed
        if "uses" not in job.entries and is_named(name, job, job_name)
    ]
    fitting += [
        (job, inner) for name, job in listed if "uses" in job.entries and is_named(name, job, outer)
    ]
    yield from fitting or [(job, "") for _, job in listed]


def _pinned(run: AnyMapping[str, Any]) -> dict[str, str]:
    """Which commits the called workflows are of, as the run tells."""
    listed = run.get("referenced_workflows")
    return {
        str(item.get("path")): str(item.get("sha"))
        for item in (listed if isinstance(listed, list) else ())
        if isinstance(item, dict) and _SHA.fullmatch(str(item.get("sha") or ""))
    }


def _is_inside(path: str) -> bool:
    is_plain = len(path) <= 300 and _PATH.fullmatch(path) is not None
    return is_plain and not any(part in {".", ".."} for part in path.split("/"))
