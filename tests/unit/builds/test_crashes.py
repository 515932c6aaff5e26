"""A build whose process is killed at every single step: the next process ends it as if nothing was.

`Steps` says what a step is.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.crashes import CrashSite
from tests.fakes.runtime import FakeContainer

_SAME = (
    *("state", "exit_code", "failure_kind", "failure_message", "artifacts", "findings", "tasks"),
    *("sstate", "layer_commits", "image", "rebuilt", "cancel_reason", "owner_pid"),
)


def answer(container: FakeContainer, code: int, **result: object) -> int:
    control = container.host_path("/smidr/control")
    raw = {"exit_code": code, "phase": "build", **result}
    (control / "result.json").write_text(json.dumps(raw))
    return code


def say(container: FakeContainer, *lines: str) -> None:
    """Append to the console, and to `events.jsonl`."""
    control = container.host_path("/smidr/control")
    with (control / "console.log").open("a") as out:
        out.write("".join(f"{line}\n" for line in ("attempt", *lines)))
    events: list[Mapping[str, object]] = [
        {"event": "phase", "phase": "build"},
        {"event": "sstate-summary", "wanted": 3, "local": 1, "missed": 2},
        {"event": "task-started", "pid": 1, "pn": "zlib", "task": "do_compile"},
        {"event": "task-succeeded", "pid": 1, "pn": "zlib", "task": "do_compile"},
        *({"event": "log", "level": "error", "message": line} for line in lines),
    ]
    with (control / "events.jsonl").open("a") as out:
        out.write("".join(f"{json.dumps(event)}\n" for event in events))


def leave_image(container: FakeContainer) -> None:
    images = container.host_path("/smidr/build") / "tmp" / "deploy" / "images" / "machine"
    images.mkdir(parents=True, exist_ok=True)
    (images / "image.wic").write_text("an image\n")


def succeeds(container: FakeContainer) -> int:
    say(container)
    leave_image(container)
    return answer(container, 0)


def succeeds_alone(container: FakeContainer) -> int:
    """Succeeds when it is alone in a directory where all before it had ended."""
    mark = container.host_path("/smidr/build") / "in-use"
    is_alone = not mark.exists()
    mark.touch()
    code = succeeds(container) if is_alone else answer(container, 1)
    mark.unlink()
    return code


def fails(container: FakeContainer) -> int:
    say(container, "ERROR: zlib-1.3-r0 do_compile: oh no")
    return answer(container, 1)


def recovers(container: FakeContainer) -> int:
    """Finds a damaged sstate object of its own, and succeeds once that was set aside."""
    name = f"sstate:{container.spec.build_id}:x:1.3:r0:x:10:abcd_populate_sysroot.tar.zst"
    thing = container.host_path("/smidr/sstate") / name
    if not (container.host_path("/smidr/control") / "console.log").exists():
        thing.write_bytes(b"half")
        owner = thing.parent.stat()
        os.chown(thing, owner.st_uid, owner.st_gid)
    if thing.exists():
        say(
            container,
            f"ERROR: zlib-1.3-r0 do_populate_sysroot: sstate: /smidr/sstate/{name} is corrupt",
        )
        return answer(container, 1)
    say(container)
    leave_image(container)
    return answer(container, 0)


def console(site: CrashSite, record: Mapping[str, Any]) -> str:
    build_id = str(record["build_id"])
    path = site.home / "builds" / build_id / "control" / "console.log"
    return path.read_text().replace(build_id, "ID")


def check_artifacts(site: CrashSite, record: Mapping[str, Any]) -> None:
    folder = site.home / "artifacts" / "acme" / record["build_id"]
    listed = {item["path"]: item["sha256"] for item in record["artifacts"]}
    if not listed:
        assert not folder.exists()
        return
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {item["path"]: item["sha256"] for item in manifest["artifacts"]} == listed
    for path, checksum in listed.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == checksum


def check_stages(record: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    stages = record["stages"]
    assert [item["name"] for item in stages] == [item["name"] for item in expected["stages"]]
    times = [time for item in stages for time in (item["started"], item["ended"])]
    assert times == sorted(times)
    assert (record["started"], record["ended"]) == (times[0], times[-1])


def check(site: CrashSite, record: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The build came to the same as one that nobody disturbed, and no work was done twice."""
    differences = {
        name: (record[name], expected[name]) for name in _SAME if record[name] != expected[name]
    }
    assert differences == {}, f"{record['requested_by']}: {differences}"
    check_stages(record, expected)
    check_artifacts(site, record)
    assert console(site, record) == console(site, expected)
    assert bool(record["workspace"]) is bool(expected["workspace"])
    if record["workspace"]:
        assert (Path(record["workspace"]) / "build").is_dir()


@pytest.mark.parametrize(
    ("program", "order", "state", "attempts", "first_step"),
    [
        (succeeds, {}, "completed", 1, 1),
        (fails, {}, "failed", 1, 40),
        (recovers, {"keep_workspace": True}, "completed", 2, 40),
    ],
    ids=["success", "failure", "retry"],
)
def test_a_death_at_any_step_changes_nothing(
    tmp_path: Path,
    program: Callable[[FakeContainer], int],
    order: dict[str, Any],
    state: str,
    attempts: int,
    first_step: int,
) -> None:
    chance = random.Random(7)
    site = CrashSite(tmp_path / "site", program, order)
    # The second one sees its layers and an earlier build, as all later ones do.
    for _ in range(2):
        site.begin()
    expected = site.records()[-1]
    assert expected["state"] == state, expected["failure_message"]
    assert console(site, expected).count("attempt\n") == attempts
    step = first_step - 1
    is_done = False
    while not is_done:
        step += 1
        is_done = site.begin(step) is not None
        if chance.random() < 0.5:
            site.meanwhile()
        assert step < 200
    assert step > 60
    deaths = 0
    while site.go_on(die_at=chance.randrange(1, 200)) is None:
        deaths += 1
        assert deaths < 500
    records = site.records()[2:]
    assert (len(records) > 20, deaths >= 3) == (True, True)
    for record in records:
        check(site, record, expected)
    assert site.left() == [], "\n".join(site.left())
    kept = [record["workspace"] for record in site.records() if record["workspace"]]
    assert sorted(map(str, site.workspaces())) == sorted(kept)


def test_a_death_at_any_step_leaves_no_warm_workspace_that_is_not_whole(tmp_path: Path) -> None:
    warm = {"workspaces": {"mode": "warm", "max_count": 1000}}
    site = CrashSite(tmp_path / "site", succeeds_alone, settings=warm)
    for _ in range(2):
        site.begin()
    first, expected = site.records()
    assert expected["warm_from"] == first["build_id"]
    chance = random.Random(3)
    step, is_done = chance.randrange(1, 4), False
    while not is_done:
        is_done = site.begin(step) is not None
        if chance.random() < 0.5:
            while site.go_on(die_at=chance.randrange(1, 200)) is None:
                pass
        step += chance.randrange(1, 4)
    while site.go_on(die_at=chance.randrange(1, 200)) is None:
        pass
    records = site.records()
    assert len(records) > 20
    for record in records[2:]:  # a later build may have its workspace by now
        check(site, {**record, "workspace": ""}, {**expected, "workspace": ""})
    assert site.left() == [], "\n".join(site.left())
    kept = [record["workspace"] for record in records if record["workspace"]]
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(map(str, site.workspaces()))
    assert {record["warm_from"] != "" for record in records} == {True, False}
