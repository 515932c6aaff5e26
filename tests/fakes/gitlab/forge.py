"""A whole little GitLab on loopback: runner protocol, git over HTTP, notes and statuses, pipelines.

A pipeline's jobs are made from `.gitlab-ci.yml` as GitLab would: `include: local`, `extends`,
variables, scripts, artifacts with reports.
"""

from __future__ import annotations

import http.client
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import yaml

from tests.fakes.git_server import GitServer
from tests.fakes.git_server import serve as serve_git
from tests.fakes.gitlab.api import GitLabApi, serve_gitlab_api
from tests.fakes.gitlab.server import FakeJob, GitLabServer, serve

__all__ = [
    "API_TOKEN",
    "PROJECT",
    "GitLabForge",
    "artifact_of",
    "findings_of",
    "hello_files",
    "open_forge",
    "zip_of",
]

PROJECT: Final = "acme/distro"
API_TOKEN: Final = "glpat-x"
_PROJECT_ID: Final = 7
_HOP: Final = frozenset({"connection", "transfer-encoding", "content-length", "host"})
_REPORTS: Final = {
    "codequality": ("raw", "gl-code-quality-report.json"),
    "junit": ("gzip", "junit.xml"),
    "annotations": ("gzip", "gl-annotations.json"),
    "metrics": ("gzip", "metrics.txt"),
}
_AUTHOR: Final = ("-c", "user.name=Dev", "-c", "user.email=dev@example.invalid")


class GitLabForge:
    """One project, `acme/distro`; what is pushed becomes jobs with `start_job`."""

    def __init__(self, root: Path, server: GitLabServer, git: GitServer, api: GitLabApi) -> None:
        self.root, self.server, self.git, self.api = root, server, git, api
        self.work = root / "work"
        self._numbers = itertools.count(42)
        server.elsewhere = self._elsewhere

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def repository(self) -> Path:
        return self.git.root / f"{PROJECT}.git"

    def push(self, files: Path, message: str = "Change", branch: str = "main") -> str:
        """Commit all of a directory; the commit's id."""
        if not self.repository.exists():
            run_git("init", "--quiet", "--bare", str(self.repository))
            run_git("-C", str(self.repository), "config", "uploadpack.allowAnySHA1InWant", "true")
        place = {"GIT_WORK_TREE": str(files), "GIT_DIR": str(self.repository)}
        place["GIT_INDEX_FILE"] = str(self.root / "index")
        settings = (*_AUTHOR, "-c", "core.bare=false")
        run_git(*settings, "add", "--all", "--force", ".", **place)
        tree = run_git("write-tree", **place)
        commit = run_git(*settings, "commit-tree", "-m", message, tree, **place)
        run_git("update-ref", f"refs/heads/{branch}", commit, **place)
        return commit

    def share(self, repository: Path, name: str) -> str:
        """Serve another repository under the forge's address; its URL."""
        target = self.git.root / name
        shutil.copytree(repository, target, dirs_exist_ok=True)
        return f"{self.url}/{name}"

    def start_job(
        self,
        name: str,
        sha: str,
        *,
        variables: Mapping[str, str] | None = None,
        merge_request: int | None = None,
        source_project: int = _PROJECT_ID,
        is_protected: bool = True,
        timeout_s: int = 3600,
    ) -> FakeJob:
        """Queue a job of `.gitlab-ci.yml` as it is in the commit."""
        number = next(self._numbers)
        payload = self.payload(number, name, sha, timeout_s)
        git_info, given = payload["git_info"], dict(variables or {})
        git_info["protected"] = is_protected
        for cache in payload["cache"]:
            cache["key"] += "-1-protected" if is_protected else "-1-non_protected"
        if merge_request is not None:
            ref = f"refs/merge-requests/{merge_request}/head"
            run_git("-C", str(self.repository), "update-ref", ref, sha)
            git_info |= {"ref": ref, "refspecs": [f"+{ref}:refs/pipelines/{number}"]}
            given |= {
                "CI_MERGE_REQUEST_IID": str(merge_request),
                "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": str(source_project),
            }
        payload["variables"] += [{"key": key, "value": value} for key, value in given.items()]
        return self.server.add_job(payload)

    def payload(self, number: int, name: str, sha: str, timeout_s: int) -> dict[str, Any]:
        job, defaults = self._job(name, sha)
        token = f"glcbt-64_job{number}secret"
        web = f"{self.url}/{PROJECT}"
        predefined = {
            "CI": "true",
            "GITLAB_CI": "true",
            "CI_JOB_ID": str(number),
            "CI_JOB_NAME": name,
            "CI_JOB_NAME_SLUG": name,
            "CI_JOB_URL": f"{web}/-/jobs/{number}",
            "CI_PROJECT_ID": str(_PROJECT_ID),
            "CI_PROJECT_PATH": PROJECT,
            "CI_PROJECT_URL": web,
            "CI_COMMIT_SHA": sha,
            "CI_COMMIT_SHORT_SHA": sha[:8],
        }
        values = {**predefined, **defaults, **job.get("variables", {})}
        return {
            "id": number,
            "token": token,
            "allow_git_fetch": True,
            "job_info": {
                "id": number,
                "name": name,
                "stage": job.get("stage", "test"),
                "pipeline_id": 1000 + number,
                "project_id": _PROJECT_ID,
                "project_full_path": PROJECT,
            },
            "git_info": {
                "repo_url": f"{self.url.replace('://', f'://gitlab-ci-token:{token}@')}/{PROJECT}.git",
                "ref": "main",
                "ref_type": "branch",
                "sha": sha,
                "refspecs": ["+refs/heads/main:refs/remotes/origin/main"],
                "depth": int(values.get("GIT_DEPTH", 20)),
            },
            "runner_info": {"timeout": timeout_s},
            "variables": [
                *({"key": key, "value": str(value)} for key, value in values.items()),
                {"key": "CI_JOB_TOKEN", "value": token, "masked": True},
            ],
            "steps": _steps(job),
            "hooks": _hooks(job),
            "cache": list(_caches(job.get("cache", []))),
            "artifacts": list(_artifacts(job.get("artifacts", {}))),
            "features": {"trace_sections": True, "failure_reasons": ["job_canceled"]},
        }

    def _job(self, name: str, sha: str) -> tuple[dict[str, Any], dict[str, Any]]:
        config = self._config(".gitlab-ci.yml", sha)
        return _extended(config, name), config.get("variables", {})

    def _config(self, path: str, sha: str) -> dict[str, Any]:
        text = run_git("-C", str(self.repository), "show", f"{sha}:{path}")
        config: dict[str, Any] = yaml.safe_load(text)
        included = config.pop("include", None)
        if included is not None:
            config = {**self._config(included["local"], sha), **config}
        return config

    def _elsewhere(self, handler: BaseHTTPRequestHandler) -> bool:
        """Serve what is not the runner protocol."""
        path = handler.path
        if path.startswith("/api/v4/") and not path.startswith(
            ("/api/v4/projects", "/api/v4/user")
        ):
            return False
        port = (self.api if path.startswith("/api/v4/") else self.git).server_address[1]
        _pass_on(handler, port)
        return True


@contextmanager
def open_forge(root: Path, port: int = 0) -> Iterator[GitLabForge]:
    """A forge that runs until the end of the block; port 0 is any."""
    repositories = root / "repositories"
    repositories.mkdir(parents=True)
    with serve(port=port) as server, serve_git(repositories) as git, serve_gitlab_api() as api:
        yield GitLabForge(root, server, git, api)


def run_git(*arguments: str, **environment: str) -> str:
    """Run git apart from this machine's settings; what it prints."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    apart = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments],
        env={**own, **apart, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def artifact_of(job: FakeJob, kind: str) -> bytes:
    """What a job uploaded as `archive`, `codequality` and so on, out of its multipart body."""
    (body,) = [body for query, body in job.uploads if query["artifact_type"] == kind]
    head, _, rest = body.partition(b"\r\n\r\n")
    boundary = head.split(b"\r\n", 1)[0]
    return rest[: rest.rindex(b"\r\n" + boundary)]


def zip_of(job: FakeJob) -> zipfile.ZipFile:
    """The archive that a job uploaded."""
    return zipfile.ZipFile(io.BytesIO(artifact_of(job, "archive")))


def _pass_on(handler: BaseHTTPRequestHandler, port: int) -> None:
    if handler.headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(handler.rfile.readline(), 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
    else:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    headers = {key: value for key, value in handler.headers.items() if key.lower() not in _HOP}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(handler.command, handler.path, body=body or None, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in _HOP:
                handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
    finally:
        connection.close()


def _extended(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    job = dict(config[name])
    parent = job.pop("extends", None)
    return job if parent is None else _merged(_extended(config, parent), job)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(one[key], other[key]) for key in one if _are_maps(one, other, key)}
    return {**one, **other, **both}


def _are_maps(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return isinstance(one.get(key), dict) and isinstance(other.get(key), dict)


def _steps(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    script = [*job.get("before_script", ()), *job["script"]]
    steps: list[dict[str, Any]] = [{"name": "script", "script": script, "when": "on_success"}]
    if "after_script" in job:
        after = {"name": "after_script", "script": list(job["after_script"])}
        steps.append({**after, "when": "always", "allow_failure": True})
    return steps


def _hooks(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "script": lines} for name, lines in job.get("hooks", {}).items()]


def _caches(spec: Any) -> Iterator[dict[str, Any]]:
    for item in spec if isinstance(spec, list) else [spec]:
        yield {"untracked": False, "policy": "pull-push", "when": "on_success", **item}


def _artifacts(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    common = {"when": spec.get("when", "on_success"), "expire_in": spec.get("expire_in", "")}
    if spec.get("paths"):
        yield {
            **common,
            "name": spec.get("name", ""),
            "paths": spec["paths"],
            "exclude": spec.get("exclude", []),
            "artifact_type": "archive",
            "artifact_format": "zip",
        }
    for kind, path in spec.get("reports", {}).items():
        form, name = _REPORTS[kind]
        report = {"name": name, "paths": [path], "artifact_type": kind, "artifact_format": form}
        yield {**common, **report, "when": "always"}


def findings_of(job: FakeJob) -> list[dict[str, Any]]:
    """The Code Quality report that a job uploaded."""
    found: list[dict[str, Any]] = json.loads(artifact_of(job, "codequality"))
    return found


_CI: Final = """\
include: {local: gitlab-template.yml}

image:
  extends: .smidr-build
  variables: {SMIDR_CONFIG: smidr.yaml, SMIDR_TARGET: hello-image}
"""


def hello_files(target: Path, hello: Path, bitbake: str, branch: str, ci: str = _CI) -> Path:
    """The hello project (a prepared copy) as the files of a repository with `.gitlab-ci.yml`."""
    unwanted = shutil.ignore_patterns("work", "__pycache__")
    shutil.copytree(hello, target, ignore=unwanted)
    shutil.copytree(hello / "work" / "sources", target / "work" / "sources")
    text = (target / "smidr.yaml").read_text()
    text = re.sub(r"(?m)^    git: .*$", f"    git: {bitbake}", text)
    text = re.sub(r"(?m)^    branch: .*$", f"    branch: {branch}", text)
    (target / "smidr.yaml").write_text(text)
    template = Path(__file__).resolve().parents[3] / "gitlab-template.yml"
    shutil.copyfile(template, target / template.name)
    (target / ".gitlab-ci.yml").write_text(ci)
    return target
