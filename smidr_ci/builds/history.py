"""Which build came before another one."""

from __future__ import annotations

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.store import BuildStore
from smidr_ci.trust import Trust

__all__ = ["previous_build"]

_AMONG = 200


def previous_build(store: BuildStore, record: BuildRecord) -> BuildRecord | None:
    """The newest trusted, completed build before it with the same customer, project and targets.

    One with the same config file wins: others may be for another machine. A summary, see
    `BuildStore.list`.
    """
    earlier = store.list(
        limit=_AMONG,
        state=BuildState.COMPLETED,
        customer=record.customer,
        project=record.project,
        before=record.build_id,
    )
    # What a stranger's build was says nothing of the project.
    trusted = [item for item in earlier if item.trust is Trust.TRUSTED]
    # Nor does one say more that was the same run.
    others = [item for item in trusted if not _is_same_run(item, record)]
    alike = [item for item in others if item.targets == record.targets]
    same = (item for item in alike if item.config_path == record.config_path)
    return next(same, alike[0] if alike else None)


def _is_same_run(one: BuildRecord, other: BuildRecord) -> bool:
    return bool(one.shared_run) and one.shared_run in {other.shared_run, other.build_id}
