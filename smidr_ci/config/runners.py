"""The part of `agent.yaml` about GitHub's official runners that the agent starts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from smidr_ci.config.base import MisfitError, Model
from smidr_ci.config.host_files import HostFile
from smidr_ci.config.host_values import BuilderUser, Variable
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.values import ImageReference, MemorySize

__all__ = ["RunnerSettings"]

_OWN = ("GITHUB_", "RUNNER_", "ACTIONS_RUNNER_INPUT_", "SMIDR_", "LD_")
_SET = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG"})


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if name in _SET or name.startswith(_OWN):
            raise MisfitError(
                f"the variable {name} can't be given to jobs: the runner or smidr sets it", (index,)
            )
    return names


Sha256 = Annotated[str, Matching("SHA-256", "[0-9a-f]{64}", "a SHA-256 in 64 small hex digits")]


class RunnerSettings(Model):
    """Official runners that the agent starts for waiting jobs, one per job."""

    mode: Literal["process", "container"] = "process"
    """A `process` of this host, or a `container` of `image`, which sees of the host only its own
    directory and a socket of the agent."""
    slots: Annotated[int, Field(ge=0, le=1000), Strict(), Called("number")] | None = None
    """Runners of all registrations at once. The default is as many as builds may run at once."""
    tarball: HostFile | None = None
    """The official runner's archive, as GitHub publishes it. The default is the newest that GitHub
    offers, which the agent downloads and keeps current."""
    sha256: Sha256 | None = None
    """Of `tarball`, which is not used without it."""
    user: BuilderUser | None = None
    """User name or `uid:gid` that jobs run as when root runs smidr; the default is that of builds.
    Anybody else's jobs run as themselves."""
    directory: HostFile | None = None
    """Where runners work. The default is `runners` in `$SMIDR_HOME`; when jobs run as another user
    than the agent it must be a directory that this user can reach."""
    image: ImageReference | None = None
    """Image for the mode `container`, with what GitHub's runner and the jobs need: `git`, ICU."""
    cpus: Annotated[float, Field(ge=0.1, le=4096), Strict(), Called("number")] | None = None
    """CPUs of each container; what smidr builds is not in it. The default is no limit."""
    memory: MemorySize | None = None
    """Memory of each container; the default is no limit."""
    environment: Annotated[tuple[Variable, ...], AfterValidator(_check_names)] = ()
    """Variables of the agent that jobs may see, besides the proxies; also what the runner itself
    reads, such as `ACTIONS_RUNNER_HOOK_JOB_STARTED`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.tarball) != bool(self.sha256):
            missing, given = ("sha256", "tarball") if self.tarball else ("tarball", "sha256")
            raise MisfitError(
                f"{given} needs {missing}",
                (given,),
                "GitHub names the SHA-256 of each archive on its release page.",
            )
        if self.mode == "container" and self.image is None:
            raise MisfitError(
                "runners in containers need an image",
                ("mode",),
                "Name one: image: ghcr.io/actions/actions-runner:latest",
            )
        return self
