"""What a crash left goes away as far as it can."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from smidr_ci.agent.recovery import remove_leftovers
from smidr_ci.builds.leftovers import usual_workspaces
from smidr_ci.files import MARKER_NAME
from tests.fakes.bench import Bench
from tests.fakes.child import child, line_from

HOLDER = """
import sys
from pathlib import Path
from smidr_ci.workspaces.store import WorkspaceStore
root, temporary = map(Path, sys.argv[1:])
store = WorkspaceStore(root)
for key in ("acme", "bravo"):
    held = store.lease(key, f"{key}-0000000c", {"tmp": temporary})
    print(held.path, held.extra["tmp"].parent, flush=True)
sys.stdin.readline()
"""


def test_one_that_can_t_be_removed_keeps_none_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = Bench(tmp_path).host()
    with child(HOLDER, host.places.workspaces, tmp_path / "tmp") as holder:
        first, extra = map(Path, line_from(holder).split())
        second = Path(line_from(holder).split()[0])
    (extra / MARKER_NAME).unlink()  # so that it is nobody's to delete
    assert len(usual_workspaces(host).leftovers()) == 2
    with caplog.at_level(logging.WARNING):
        remove_leftovers(host)
    host.store.close()
    assert (first.exists(), second.exists()) == (True, False)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert str(first) in warning
