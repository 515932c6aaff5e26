"""The Markdown summary of a build that history knows, beside its logs as `summary.md`."""

from __future__ import annotations

import logging
from dataclasses import replace

from smidr_ci.builds.history import previous_build
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.store import BuildStore
from smidr_ci.diagnosis.model import Diagnosis, Finding, Summary
from smidr_ci.errors import SmidrError
from smidr_ci.files import make_marked_dir, write_atomic
from smidr_ci.reports.facts import facts_of
from smidr_ci.reports.markdown import render_markdown

__all__ = ["render_summary", "summary_of", "write_summary"]

_log = logging.getLogger(__name__)


def render_summary(host: Host, record: BuildRecord) -> str:
    """Result, cause, and the differences to the build before; raises `HostError`."""
    return summary_of(host.store, record)


def summary_of(store: BuildStore, record: BuildRecord) -> str:
    """The same where there is only the store."""
    summary = Summary(succeeded=record.state is BuildState.COMPLETED)
    findings = tuple(Finding.from_dict(item) for item in record.findings)
    previous = previous_build(store, record)
    if previous is not None:
        previous = store.get(previous.build_id)
    facts = facts_of(record, previous)
    if not record.state.is_final:
        facts = replace(facts, message="The build is not over.")
    return render_markdown(Diagnosis(findings, summary), facts)


def write_summary(host: Host, record: BuildRecord) -> None:
    """Put `summary.md` into the build's directory; trouble with it fails nothing."""
    folder = host.home.builds / record.build_id
    try:
        make_marked_dir(folder)
        write_atomic(folder / "summary.md", render_summary(host, record))
    except (OSError, SmidrError) as error:
        _log.warning("no summary of build %s: %s", record.build_id, error)
