"""`hooks:pre_get_sources_script` and `hooks:post_get_sources_script` of a job.

Their lines run where those of the script do, in a container of the builder image. The config names
that image, and before the checkout there is none: for a first hook the commit is fetched apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.order import Order
from smidr_ci.files import as_host_error, make_marked_dir, remove_marked_tree
from smidr_ci.forges.gitlab.checkout import PROJECT
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.payload import Variable
from smidr_ci.forges.gitlab.ports import Checkout, JobLog
from smidr_ci.forges.gitlab.scripting import run_lines

__all__ = ["POST", "PRE", "run_post_hook", "run_pre_hook"]

PRE: Final = "pre_get_sources_script"
POST: Final = "post_get_sources_script"
_WITHOUT: Final = frozenset({"none", "empty"})
"""Strategies of the checkout that GitLab runs no hooks for."""
_PEEK: Final = (
    Variable("GIT_STRATEGY", "clone"),
    Variable("GIT_CHECKOUT", "true"),
    Variable("GIT_LFS_SKIP_SMUDGE", "true"),
)


def run_pre_hook(job: OpenJob, checkout: Checkout, directory: Path) -> None:
    """Run the lines that come before the sources do, if there are any and they have not run.

    They see what an earlier job left of the project. Raises as `run_lines` does.
    """
    lines = _lines(job, PRE)
    if not lines:
        return
    project = directory / PROJECT
    with _commit_apart(job, checkout) as apart:
        try:
            project.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise as_host_error(error, "can't make the project's directory", project) from error
        job.workshop.give(project)
        _run(job, PRE, lines, job.order(job.script(), apart), project)


def run_post_hook(job: OpenJob) -> None:
    """Run the lines that come behind the checkout, unless they have run. Raises as `run_lines`."""
    lines = _lines(job, POST)
    if lines:
        _run(job, POST, lines, job.order(job.script()), job.project)


def _lines(job: OpenJob, name: str) -> tuple[str, ...]:
    hook = job.context.job.hook(name)
    is_wanted = job.context.variables.get("GIT_STRATEGY", "").strip() not in _WITHOUT
    is_due = is_wanted and job.workshop.scripts is not None and name not in job.state.prepared
    return hook.script if hook is not None and is_due else ()


def _run(job: OpenJob, name: str, lines: tuple[str, ...], order: Order, project: Path) -> None:
    with job.joblog.section(name, f"Running {name}"):
        run_lines(job, name, lines, order, job.stops.job, directory=project)
    job.save(prepared=(*job.state.prepared, name))


@contextmanager
def _commit_apart(job: OpenJob, checkout: Checkout) -> Iterator[Path]:
    """The job's commit in a directory of its own, until the end of the block."""
    place, given = job.folder.path / "apart", job.context.job
    shallow = replace(
        given,
        variables=(*given.variables, *_PEEK),
        git_info=replace(given.git_info, depth=1),
    )
    try:
        make_marked_dir(place)
        yield checkout.run(shallow, place, job.stops.job, _Quiet(job.joblog))
        remove_marked_tree(place, job.folder.path)
    except OSError as error:
        raise as_host_error(error, "can't fetch the config for a hook", place) from error


@dataclass(frozen=True)
class _Quiet:
    """Implements `JobLog`, and passes on what somebody must know."""

    log: JobLog

    def __call__(self, text: str) -> None:
        """Nothing of the usual."""

    def info(self, text: str) -> None:
        """Nothing of the usual."""

    def warning(self, text: str) -> None:
        self.log.warning(text)

    def error(self, text: str) -> None:
        self.log.error(text)

    def output(self, data: bytes, **marks: int) -> None:
        """Nothing of the usual."""

    def section(
        self, name: str, header: str = "", *, is_collapsed: bool = False
    ) -> AbstractContextManager[None]:
        """No section."""
        del name, header, is_collapsed
        return nullcontext()
