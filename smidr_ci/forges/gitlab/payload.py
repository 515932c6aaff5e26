"""The job that GitLab hands out, as frozen models (GitLab: 201 of POST jobs/request)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "Artifact",
    "Cache",
    "Dependency",
    "Features",
    "GitInfo",
    "Hook",
    "Identity",
    "Image",
    "Job",
    "JobInfo",
    "RegistryLogin",
    "Step",
    "Variable",
]

DEFAULT_TIMEOUT_S: Final = 7200
"""What a timeout of zero or less means."""


@dataclass(frozen=True)
class Identity:
    """What is needed to speak about a job at all."""

    id: int
    token: str = field(repr=False)


@dataclass(frozen=True)
class JobInfo:
    """Names and numbers of the job and its project."""

    name: str = ""
    stage: str = ""
    pipeline_id: int = 0
    project_id: int = 0
    project_name: str = ""
    project_path: str = ""
    """`group/subgroup/project`; empty on servers that don't send it."""
    user_id: int = 0


@dataclass(frozen=True)
class GitInfo:
    """What to check out."""

    repo_url: str = field(default="", repr=False)
    """With the job token in it."""
    ref: str = ""
    sha: str = ""
    before_sha: str = ""
    ref_type: str = "branch"
    """`branch` or `tag`."""
    refspecs: tuple[str, ...] = ()
    depth: int = 0
    """0 means the whole history."""
    object_format: str = "sha1"
    is_protected: bool | None = None
    """Whether the ref is protected; None when the server does not say."""


@dataclass(frozen=True)
class Variable:
    """One variable; of two with the same key the later wins."""

    key: str
    value: str = field(default="", repr=False)
    is_public: bool = False
    is_masked: bool = False
    is_file: bool = False
    is_raw: bool = False
    """No expansion in its value."""


@dataclass(frozen=True)
class Step:
    """Lines of script: `script`, `release` or `after_script`."""

    name: str
    script: tuple[str, ...] = ()
    when: str = "on_success"
    allow_failure: bool = False


@dataclass(frozen=True)
class Hook:
    """`pre_get_sources_script` or `post_get_sources_script`."""

    name: str
    script: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """The image that the job asks for."""

    name: str
    entrypoint: tuple[str, ...] = ()
    pull_policy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """One upload: an archive or a report."""

    name: str = ""
    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    untracked: bool = False
    when: str = "on_success"
    """`on_success`, `on_failure` or `always`."""
    expire_in: str = ""
    type: str = "archive"
    format: str = "zip"
    """`zip`, `gzip` or `raw`."""


@dataclass(frozen=True)
class Cache:
    """One cache entry of `.gitlab-ci.yml`."""

    key: str = ""
    paths: tuple[str, ...] = ()
    untracked: bool = False
    policy: str = "pull-push"
    when: str = "on_success"
    fallback_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dependency:
    """An earlier job whose artifacts this one gets."""

    id: int
    name: str = ""
    token: str = field(default="", repr=False)
    filename: str = ""
    """Empty when there is nothing to download."""
    size: int = 0


@dataclass(frozen=True)
class RegistryLogin:
    """A login for a container registry."""

    type: str
    url: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Features:
    """What the server can do."""

    trace_sections: bool = False
    token_mask_prefixes: tuple[str, ...] = ()
    failure_reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One job. It comes from whoever may push to the project: nothing in it is trusted."""

    id: int
    token: str = field(repr=False)
    allow_git_fetch: bool = True
    info: JobInfo = JobInfo()
    git_info: GitInfo = GitInfo()
    timeout_s: int = DEFAULT_TIMEOUT_S
    variables: tuple[Variable, ...] = ()
    steps: tuple[Step, ...] = ()
    hooks: tuple[Hook, ...] = ()
    image: Image | None = None
    services: tuple[Image, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    cache: tuple[Cache, ...] = ()
    credentials: tuple[RegistryLogin, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    features: Features = Features()
    unsupported: tuple[str, ...] = ()
    """What the job demands and this runner can't do, as sentences; it must fail then."""

    def step(self, name: str) -> Step | None:
        """The step with this name."""
        return next((step for step in self.steps if step.name == name), None)

    def hook(self, name: str) -> Hook | None:
        """The hook with this name."""
        return next((hook for hook in self.hooks if hook.name == name), None)

    def variable(self, key: str) -> Variable | None:
        """The variable with this key that counts, not expanded."""
        return next((item for item in reversed(self.variables) if item.key == key), None)
