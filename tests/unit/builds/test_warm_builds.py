"""Builds that go on in the directory that an earlier one left, and all that must never do so."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.observer import SilentObserver
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.warmth import is_sound, signs_of_damage
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.workspaces import WorkspaceSettings
from smidr_ci.errors import FailureKind
from smidr_ci.images.model import BuilderImage
from smidr_ci.trust import Trust
from tests.fakes.bench import Bench
from tests.fakes.runtime import FakeContainer, FakeRuntime, Program

LIMITS = {"min_free_disk": 1, "min_free_disk_percent": 0}
DAMAGED = "ERROR: OE-core's config sanity checker: Error, TMPDIR has changed location. Move it back"


def config(**changes: Any) -> ProjectConfig:
    build = {"image": "image", **changes.pop("build", {})}
    return ProjectConfig.model_validate({"name": "project", "build": build, **changes})


def ends(code: int = 0, *console: str, **result: object) -> Program:
    """BitBake leaves an image and a stamp, and says how it ended."""

    def program(container: FakeContainer) -> int:
        tmp = container.host_path("/smidr/build") / "tmp"
        images = tmp / "deploy" / "images" / "machine"
        images.mkdir(parents=True, exist_ok=True)
        (images / "image.wic").write_text("image")
        with (tmp / "stamps").open("a") as stamps:
            stamps.write(f"{container.spec.build_id}\n")
        control = container.host_path("/smidr/control")
        (control / CONTROL_FILES["console"]).write_text("".join(f"{line}\n" for line in console))
        answer = {"exit_code": code, "phase": "build", **result}
        (control / CONTROL_FILES["result"]).write_text(json.dumps(answer))
        return code

    return program


class Images:
    """Gives the image that the test wants."""

    def __init__(self, number: int) -> None:
        self._number = number

    def ensure(self, *_: object, **__: object) -> BuilderImage:
        return BuilderImage("sha256:" + str(self._number) * 64, "builder", "builder")


class Reader(SilentObserver):
    """Keeps what a user would read."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)


@dataclass
class Warm:
    """A host that builds warm."""

    bench: Bench
    settings: dict[str, Any] = field(default_factory=lambda: {"mode": "warm"})
    image: int = 1
    notes: list[str] = field(default_factory=list)

    def build(
        self,
        program: Program | None = None,
        wanted: ProjectConfig | None = None,
        **request: Any,
    ) -> BuildRecord:
        host = self.host(program or ends())
        self.bench.clock.advance(60)
        asked = BuildRequest(project=self.bench.loaded(wanted or config()), **request)
        try:
            record = run_build(host, asked, CancelToken(), Reader(self.notes))
            return host.store.get(record.build_id)
        finally:
            host.store.close()

    def host(self, program: Program) -> Host:
        agent = AgentConfig.model_validate({"limits": LIMITS, "workspaces": self.settings})
        host = self.bench.host(agent)

        def main_process(container: FakeContainer) -> int:
            return program(container) if container.spec.role == "build" else 0

        vars(host).update(runtime=FakeRuntime(main_process), images=Images(self.image))
        return host

    def get(self, record: BuildRecord) -> BuildRecord:
        """As history has it now."""
        host = self.host(ends())
        try:
            return host.store.get(record.build_id)
        finally:
            host.store.close()


@pytest.fixture
def warm(tmp_path: Path) -> Warm:
    return Warm(Bench(tmp_path / "bench"))


def stamps(record: BuildRecord) -> list[str]:
    return (Path(record.workspace) / "build" / "tmp" / "stamps").read_text().split()


def test_a_second_build_goes_on_where_the_first_ended(warm: Warm) -> None:
    first = warm.build()
    assert first.warm_from == ""
    second = warm.build()
    assert (second.state, second.warm_from) == (BuildState.COMPLETED, first.build_id)
    assert second.workspace == first.workspace
    assert stamps(second) == [first.build_id, second.build_id]
    assert warm.get(first).workspace == ""
    assert warm.build().warm_from == second.build_id


def test_by_default_every_build_is_fresh_and_leaves_nothing(warm: Warm) -> None:
    warm.settings = {}
    records = [warm.build(), warm.build()]
    assert [record.warm_from for record in records] == ["", ""]
    assert [record.workspace for record in records] == ["", ""]
    assert AgentConfig().workspaces.mode == "fresh"


@pytest.mark.parametrize(
    "second",
    [
        {"wanted": config(build={"machine": "qemuarm64"})},
        {"wanted": config(base={"distro": "poky"})},
        {"wanted": config(build={"multiconfig": ["second"]})},
        {"wanted": config(build={"image": "other-image"})},
        {"wanted": config(name="project-b")},
        {"wanted": config(local_conf='TCLIBC = "musl"')},
        {"wanted": config(environment={"TCLIBC": "musl"})},
        {"wanted": config(directories={"tmp": "fast"})},
        {"wanted": config(advanced={"bb_signature_handler": "OEEquivHash"})},
        {"wanted": config(build={"workspace": "fresh"})},
        {"customer": "acme"},
        {"targets": ("busybox",)},
        {"trust": Trust.UNTRUSTED},
        {"fresh": True},
        {"clean": True},
        {"keep_workspace": True},
        {"ref": "refs/heads/release/1.0"},
        {"ref": "refs/tags/v1"},
    ],
    ids=str,
)
def test_what_does_not_fit_gets_a_fresh_workspace(warm: Warm, second: dict[str, Any]) -> None:
    first = warm.build()
    other = warm.build(**second)
    assert (other.state, other.warm_from) == (BuildState.COMPLETED, "")
    assert warm.build().warm_from in {first.build_id, other.build_id}


@pytest.mark.parametrize(
    "second",
    [
        {"wanted": config(build={"parallel_make": 3})},
        {"wanted": config(local_conf='GREETING = "hi"')},
        {"wanted": config(environment={"GREETING": "hi"})},
        {"ref": "refs/heads/feature/a"},
        {"fetch_only": True},
    ],
    ids=str,
)
def test_what_bitbake_can_tell_by_itself_stays_warm(warm: Warm, second: dict[str, Any]) -> None:
    first = warm.build()
    assert warm.build(**second).warm_from == first.build_id


def test_another_builder_image_makes_all_tmpdirs_strange(warm: Warm) -> None:
    warm.build()
    warm.image = 2
    assert warm.build().warm_from == ""


def test_another_layout_of_tmpdir_is_not_gone_on_with(warm: Warm) -> None:
    abi = warm.bench.project / "core" / "conf" / "abi_version.conf"
    abi.write_text('OELAYOUT_ABI = "15"\n')
    first = warm.build()
    assert warm.build().warm_from == first.build_id
    abi.write_text('OELAYOUT_ABI = "16"\n')
    assert warm.build().warm_from == ""


def test_a_changed_layer_stays_warm(warm: Warm) -> None:
    first = warm.build()
    (warm.bench.project / "core" / "recipe.bb").write_text('SUMMARY = "new"\n')
    second = warm.build()
    assert second.layer_commits != first.layer_commits
    assert second.warm_from == first.build_id


def test_an_untrusted_build_leaves_nothing_to_others(warm: Warm) -> None:
    for code in (0, 1):
        warm.build(ends(code), trust=Trust.UNTRUSTED)
        assert warm.build(trust=Trust.UNTRUSTED).warm_from == ""
    assert warm.build().warm_from == ""


def test_who_asked_for_fresh_leaves_the_directory_that_the_next_goes_on_in(warm: Warm) -> None:
    warm.build()
    renewed = warm.build(fresh=True)
    assert warm.build().warm_from == renewed.build_id


@pytest.mark.parametrize(
    ("code", "result", "kind"),
    [
        (1, {"interrupted": True}, FailureKind.INTERRUPTED),
        (1, {"interrupted": True, "timed_out": True}, FailureKind.TIMEOUT),
        (1, {"oom_kills": 1}, FailureKind.OUT_OF_MEMORY),
    ],
)
def test_a_workspace_whose_build_was_stopped_is_never_used_again(
    warm: Warm, code: int, result: dict[str, Any], kind: FailureKind
) -> None:
    first = warm.build()
    stopped = warm.build(ends(code, **result))
    assert (stopped.failure_kind, stopped.warm_from) == (kind, first.build_id)
    assert Path(stopped.workspace).is_dir()
    after = warm.build()
    assert (after.warm_from, warm.get(stopped).workspace) == ("", stopped.workspace)


def test_a_killed_driver_leaves_a_workspace_that_nobody_uses(warm: Warm) -> None:
    first = warm.build()
    killed = warm.build(lambda _: 137)
    assert (killed.failure_kind, killed.warm_from) == (FailureKind.INTERRUPTED, first.build_id)
    assert warm.build().warm_from == ""


def test_a_failed_build_can_be_looked_at_until_the_next_goes_on(warm: Warm) -> None:
    failed = warm.build(ends(1))
    assert failed.state is BuildState.FAILED
    assert stamps(warm.get(failed)) == [failed.build_id]
    again = warm.build()
    assert again.warm_from == failed.build_id
    assert warm.get(failed).workspace == ""


def test_after_two_failures_in_a_row_the_directory_is_not_trusted(warm: Warm) -> None:
    warm.build(ends(1))
    failed = warm.build(ends(1))
    assert failed.warm_from
    third = warm.build(ends(1))
    assert third.warm_from == ""
    assert warm.get(failed).workspace == failed.workspace
    assert warm.build().warm_from == third.build_id
    assert warm.build(ends(1)).warm_from
    assert warm.build().warm_from


def test_a_damaged_workspace_is_left_for_a_fresh_one_at_once(warm: Warm) -> None:
    warm.build()
    seen = list[bool]()

    def notices(container: FakeContainer) -> int:
        build = container.host_path("/smidr/build")
        seen.append((build / "tmp" / "stamps").exists())
        return (ends(1, DAMAGED) if seen[-1] else ends())(container)

    record = warm.build(notices)
    assert (record.state, record.warm_from) == (BuildState.COMPLETED, "")
    assert seen == [True, False]
    assert stamps(record) == [record.build_id]
    assert any("TMPDIR has changed location" in note for note in warm.notes)
    assert record.findings == ()
    assert warm.build().warm_from == record.build_id


def test_a_fresh_workspace_that_fails_like_a_damaged_one_is_not_tried_again(warm: Warm) -> None:
    count = list[str]()

    def fails(container: FakeContainer) -> int:
        count.append(container.spec.build_id)
        return ends(1, DAMAGED)(container)

    assert warm.build(fails).state is BuildState.FAILED
    assert len(count) == 1
    assert warm.build().warm_from == ""


def test_artifacts_of_a_workspace_that_stays_share_nothing_with_it(warm: Warm) -> None:
    record = warm.build()
    (artifact,) = record.artifacts
    host = warm.host(ends())
    kept = host.artifacts_of(record) / artifact.path
    host.store.close()
    source = Path(record.workspace) / "build/tmp/deploy" / artifact.path
    assert (kept.read_text(), kept.stat().st_nlink, source.stat().st_nlink) == ("image", 1, 1)


def test_a_warm_build_gets_a_home_and_conf_of_its_own(warm: Warm) -> None:
    def leaves_things(container: FakeContainer) -> int:
        (container.host_path("/smidr/home") / ".netrc").write_text("secret")
        conf = container.host_path("/smidr/build/conf")
        (conf / "auto.conf").write_text('GREETING = "bad"\n')
        (conf / "multiconfig").mkdir()
        (conf / "sanity_info").write_text("kept")
        return ends()(container)

    def looks(container: FakeContainer) -> int:
        assert os.listdir(container.host_path("/smidr/home")) == []
        conf = container.host_path("/smidr/build/conf")
        assert sorted(os.listdir(conf)) == ["bblayers.conf", "local.conf", "sanity_info"]
        return ends()(container)

    first = warm.build(leaves_things)
    second = warm.build(looks)
    assert (second.state, second.warm_from) == (BuildState.COMPLETED, first.build_id)


def test_of_two_builds_at_once_one_is_warm_and_the_other_fresh(warm: Warm) -> None:
    first = warm.build()
    inside, go_on = threading.Barrier(2, timeout=60), ends()

    def meets(container: FakeContainer) -> int:
        inside.wait()  # both have their workspace now
        return go_on(container)

    records = list[BuildRecord]()
    threads = [threading.Thread(target=lambda: records.append(warm.build(meets))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.warm_from for record in records) == ["", first.build_id]
    assert len({record.workspace for record in records}) == 2
    assert warm.build().warm_from in {record.build_id for record in records}


def test_the_least_recently_used_goes_and_its_record_forgets_it(warm: Warm) -> None:
    warm.settings = {"mode": "warm", "max_count": 2}
    arm, x86, pc = (
        warm.build(wanted=config(build={"machine": name}))
        for name in ("qemuarm64", "qemux86", None)
    )
    assert [warm.get(record).workspace != "" for record in (arm, x86, pc)] == [False, True, True]
    assert not Path(arm.workspace).exists()


@pytest.mark.parametrize("has_run", [False, True])
def test_a_workspace_is_measured_again_only_when_something_ran(warm: Warm, has_run: bool) -> None:
    def grows(container: FakeContainer) -> int:
        events = container.host_path("/smidr/control") / CONTROL_FILES["events"]
        task = {"pid": 1, "pn": "zlib", "task": "do_compile"}
        lines = [{"event": f"task-{what}", **task} for what in ("started", "succeeded")]
        events.write_text("".join(f"{json.dumps(line)}\n" for line in lines if has_run))
        container.host_path("/smidr/build/big").write_bytes(bytes(1 << 20))
        return ends()(container)

    def size(record: BuildRecord) -> int:
        note = json.loads((Path(record.workspace) / "workspace.json").read_text())
        assert isinstance(note["size_bytes"], int)
        return note["size_bytes"]

    first = size(warm.build())
    second = warm.build(grows)
    assert second.tasks["executed"] == int(has_run)
    assert (size(second) >= first + (1 << 20)) is has_run


@pytest.mark.parametrize(
    ("settings", "ref", "is_warm"),
    [
        ({}, "", False),
        ({}, "refs/heads/main", False),
        ({"mode": "warm"}, "", True),
        ({"mode": "warm"}, "refs/heads/release/2", False),
        ({"mode": "warm"}, "refs/tags/v2", False),
        ({"mode": "warm", "fresh_refs": ["v*"]}, "refs/tags/v2", False),
        ({"mode": "warm", "fresh_refs": ["v*"]}, "refs/tags/w2", True),
        ({"mode": "warm", "fresh_refs": []}, "refs/tags/v2", True),
        ({"warm_refs": ["main"]}, "refs/heads/main", True),
        ({"warm_refs": ["refs/merge-requests/*"]}, "refs/merge-requests/7/head", True),
        ({"warm_refs": ["*"]}, "", False),
        ({"warm_refs": ["*"]}, "refs/heads/release/2", False),
    ],
)
def test_the_ref_decides(settings: dict[str, Any], ref: str, is_warm: bool) -> None:
    assert WorkspaceSettings.model_validate(settings).is_warm(ref) is is_warm


@pytest.mark.parametrize(
    ("kind", "sound"),
    [
        (FailureKind.BUILD, True),
        (FailureKind.FETCH, True),
        (FailureKind.ARTIFACTS, True),
        *((kind, False) for kind in FailureKind if kind not in {"build", "fetch", "artifacts"}),
    ],
)
def test_only_a_build_that_ended_by_itself_leaves_a_sound_directory(
    kind: FailureKind, sound: bool
) -> None:
    assert is_sound(Outcome(BuildState.FAILED, 1, kind), (), 0) is sound
    assert not is_sound(Outcome(BuildState.CANCELLED, 1, kind), (), 0)


@pytest.mark.parametrize(
    "text",
    [
        "Error, TMPDIR has changed its layout version number (14 to 15) and you need to",
        "The recipe a is trying to install files into a shared area when those files already exist",
        "sqlite3.DatabaseError: database disk image is malformed",
        "_pickle.UnpicklingError: invalid load key, '\\x00'.",
        "EOFError: Ran out of input",
    ],
)
def test_signs_of_damage_are_known(text: str) -> None:
    error = {"severity": "error", "message": "failed", "excerpt": [{"text": text}]}
    assert signs_of_damage([error]) == "failed"
    assert not signs_of_damage([{**error, "severity": "warning"}])
    assert not signs_of_damage([{**error, "excerpt": [{"text": "undefined reference"}]}])
