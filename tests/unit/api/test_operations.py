"""What the operations refuse, whatever the protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from smidr_ci.api.bundles import receive_bundle
from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.client import StartRequest
from smidr_ci.api.limits import MAX_CONFIG_BYTES
from smidr_ci.api.operations import Operations
from smidr_ci.artifacts.collect import collect
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    HostError,
    InternalError,
    NotFoundError,
    TooLargeError,
    UsageError,
)
from smidr_ci.home import Home
from tests.fakes.http_agent import ADMIN, FakePlaces, QuietAgent

READER = Caller("token r", Scope.READ)
BUILDER = Caller("token b", Scope.BUILD)
ORDER = StartRequest(customer="acme", config_text="name: demo\n", config_name="smidr.yaml")


@dataclass
class Bench:
    home: Home
    agent: QuietAgent
    operations: Operations

    def started(self) -> BuildRecord:
        return self.operations.start(BUILDER, ORDER)

    def finished(self, **files: bytes) -> BuildRecord:
        record = self.started()
        deploy = self.home.root / "deploy"
        deploy.mkdir(exist_ok=True)
        for name, content in files.items():
            (deploy / name).write_bytes(content)
        folder = self.folder_of(record)
        collect(deploy, ["**"], folder, created=datetime.now(UTC))
        return self.agent.finish(record.build_id)

    def folder_of(self, record: BuildRecord) -> Path:
        return self.home.artifacts / record.customer / record.build_id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    home = Home(tmp_path / "home")
    agent = QuietAgent(home)
    places = FakePlaces(home)
    yield Bench(
        home,
        agent,
        Operations(agent, agent.store, lambda: places, partial(receive_bundle, home)),
    )
    agent.close()


def test_each_operation_needs_its_scope(bench: Bench) -> None:
    build_id = bench.started().build_id
    operations = bench.operations
    for refused in (
        lambda: operations.start(READER, ORDER),
        lambda: operations.cancel(READER, build_id),
        lambda: operations.delete(BUILDER, build_id),
        lambda: operations.purge(BUILDER),
        lambda: operations.drain(BUILDER),
        lambda: operations.stop(BUILDER),
    ):
        with pytest.raises(ForbiddenError):
            refused()
    assert operations.get(READER, build_id).build_id == build_id
    assert operations.status(READER).pid
    assert not bench.agent.is_draining


def test_only_a_local_caller_names_a_directory_of_the_host(bench: Bench, tmp_path: Path) -> None:
    order = replace(ORDER, directory=tmp_path)
    with pytest.raises(ForbiddenError, match="directory") as caught:
        bench.operations.start(BUILDER, order)
    assert "bundle" in caught.value.hint
    assert bench.agent.orders == []
    bench.operations.start(ADMIN, order)
    assert bench.agent.orders[0].directory == tmp_path
    assert not bench.agent.orders[0].is_confined


def test_an_order_without_directory_is_confined_to_an_empty_one(bench: Bench) -> None:
    bench.operations.start(ADMIN, ORDER)
    order = bench.agent.orders[0]
    assert order.is_confined
    assert order.directory.parent == bench.home.incoming
    assert [path.name for path in order.directory.iterdir()] == [".smidr-owned"]
    assert order.requested_by == "uid 0"


def test_a_refused_order_leaves_nothing_behind(bench: Bench) -> None:
    bench.agent.is_draining = True
    with pytest.raises(BusyError):
        bench.operations.start(BUILDER, ORDER)
    assert list(bench.home.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"customer": "../acme"}, UsageError),
        ({"customer": "Acme Corp"}, UsageError),
        ({"config_text": "x" * (MAX_CONFIG_BYTES + 1)}, TooLargeError),
        ({"config_text": "\ud800"}, UsageError),
        ({"config_name": "a\nb"}, UsageError),
        ({"config_name": ""}, UsageError),
        ({"targets": ("x" * 300,)}, TooLargeError),
        ({"targets": ("a",) * 101}, TooLargeError),
        ({"targets": ("\x1b[2J",)}, UsageError),
        ({"variables": {"A B": "1"}}, UsageError),
        ({"variables": {"A": "\x00"}}, UsageError),
        ({"environment": {f"V{number}": "" for number in range(257)}}, TooLargeError),
        ({"environment": {"A": "x" * (256 << 10) + "x"}}, TooLargeError),
        ({"bundle": b"\x00" * (32 << 20) + b"\x00"}, TooLargeError),
        ({"bundle": b"x", "directory": Path("/")}, UsageError),
        ({"directory": Path("relative")}, UsageError),
        ({"directory": Path("/no/such/directory")}, UsageError),
    ],
)
def test_a_malformed_order_is_refused_before_the_agent_sees_it(
    bench: Bench, changes: dict[str, object], kind: type[UsageError]
) -> None:
    with pytest.raises(kind):
        bench.operations.start(ADMIN, replace(ORDER, **changes))  # type: ignore[arg-type] # as parametrized
    assert bench.agent.orders == []


def test_no_answer_shows_the_variables_of_an_order(bench: Bench) -> None:
    order = replace(ORDER, variables={"CI_SECRET": "hunter2"})
    record = bench.operations.start(BUILDER, order)
    build_id = record.build_id
    answers = [
        record,
        bench.operations.get(READER, build_id),
        bench.operations.view(READER, build_id).record,
        bench.operations.cancel(BUILDER, build_id),
        *bench.operations.list(READER),
    ]
    assert "hunter2" not in repr(answers)
    assert bench.agent.store.get(build_id).order["variables"] == {"CI_SECRET": "hunter2"}


def test_a_cancel_says_who_asked(bench: Bench) -> None:
    build_id = bench.started().build_id
    with pytest.raises(UsageError):
        bench.operations.cancel(BUILDER, build_id, CancelLevel.NONE)
    bench.operations.cancel(BUILDER, build_id[:8], CancelLevel.KILL)
    assert bench.agent.cancelled == [(build_id, "Cancelled by token b.", CancelLevel.KILL)]


@pytest.mark.parametrize("build_id", ["", "..", "../x", "a/b", "x" * 65, "acme-00000000", "A"])
def test_an_id_that_is_none_is_not_found(bench: Bench, build_id: str) -> None:
    bench.started()
    operations = bench.operations
    for look in (operations.get, operations.view, operations.log_path, operations.artifacts):
        with pytest.raises(NotFoundError):
            look(READER, build_id)
    with pytest.raises(NotFoundError):
        operations.list(READER, before=build_id or "-")


def test_a_page_of_history_is_bounded(bench: Bench) -> None:
    for limit in (0, 1001, -5):
        with pytest.raises(UsageError):
            bench.operations.list(READER, limit=limit)


def test_history_is_filtered_and_paged(bench: Bench) -> None:
    ids = [bench.started().build_id for _ in range(5)]
    bench.agent.finish(ids[1])
    listed = bench.operations.list(READER, limit=2)
    rest = bench.operations.list(READER, before=listed[-1].build_id)
    assert [item.build_id for item in [*listed, *rest]] == ids[::-1]
    done = bench.operations.list(READER, state=BuildState.COMPLETED)
    assert [item.build_id for item in done] == [ids[1]]
    assert bench.operations.list(READER, customer="other") == []


def test_whether_a_build_is_over_is_known_also_after_its_purge(bench: Bench) -> None:
    build_id = bench.started().build_id
    assert not bench.operations.is_over(build_id)
    bench.agent.finish(build_id)
    assert bench.operations.is_over(build_id)
    bench.operations.delete(ADMIN, build_id)
    bench.operations.purge(ADMIN)
    assert bench.operations.is_over(build_id)


def test_an_artifact_is_read_by_its_listed_path_only(bench: Bench) -> None:
    record = bench.finished(image=b"abc")
    (bench.home.artifacts / "secret").write_text("x")
    (bench.folder_of(record) / "unlisted").write_text("x")
    (listed,) = bench.operations.artifacts(READER, record.build_id)
    assert listed.path == "image"
    with bench.operations.open_artifact(READER, record.build_id, "image").file as file:
        assert file.read() == b"abc"
    for path in ("../../secret", "./image", "/image", "image/", "unlisted", "manifest.json", ""):
        with pytest.raises(NotFoundError):
            bench.operations.open_artifact(READER, record.build_id, path)


def test_a_linked_artifact_is_the_listed_file_behind_it(bench: Bench) -> None:
    record = bench.started()
    deploy = bench.home.root / "deploy"
    deploy.mkdir()
    (deploy / "image-1").write_bytes(b"abc")
    (deploy / "image").symlink_to("image-1")
    collect(deploy, ["**"], bench.folder_of(record), created=datetime.now(UTC))
    with bench.operations.open_artifact(READER, record.build_id, "image").file as file:
        assert file.read() == b"abc"


def test_a_file_that_became_a_symlink_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    record = bench.finished(image=b"abc")
    secret = tmp_path / "secret"
    secret.write_bytes(b"xyz")
    place = bench.folder_of(record) / "image"
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(HostError):
        bench.operations.open_artifact(READER, record.build_id, "image")
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(HostError):
        bench.operations.open_artifact(READER, record.build_id, "image")


def test_a_running_build_can_not_be_deleted(bench: Bench) -> None:
    build_id = bench.started().build_id
    with pytest.raises(ConflictError):
        bench.operations.delete(ADMIN, build_id)


def test_deleting_hides_and_purging_removes_the_files(bench: Bench) -> None:
    gone, kept = bench.finished(image=b"abc"), bench.finished(image=b"abc")
    bench.agent.log_of(gone.build_id).write_text("log")
    bench.operations.delete(ADMIN, gone.build_id)
    assert [item.build_id for item in bench.operations.list(READER)] == [kept.build_id]
    assert bench.folder_of(gone).is_dir()
    assert bench.operations.purge(ADMIN, datetime(2020, 1, 1, tzinfo=UTC)) == ()
    assert bench.operations.purge(ADMIN) == (gone.build_id,)
    assert not bench.folder_of(gone).exists()
    assert not (bench.home.builds / gone.build_id).exists()
    assert bench.folder_of(kept).is_dir()
    with pytest.raises(NotFoundError):
        bench.agent.store.get(gone.build_id, include_deleted=True)


def test_what_a_purge_may_not_delete_stays_with_its_record(bench: Bench) -> None:
    stays, goes = bench.finished(image=b"abc"), bench.finished(image=b"abc")
    (bench.folder_of(stays) / ".smidr-owned").unlink()
    for record in (stays, goes):
        bench.operations.delete(ADMIN, record.build_id)
    with pytest.raises(InternalError, match="refusing to delete"):
        bench.operations.purge(ADMIN)
    assert bench.agent.store.hidden() == [stays.build_id]
    assert bench.folder_of(stays).is_dir()


def test_a_build_that_is_still_owned_is_not_purged(bench: Bench) -> None:
    record = bench.finished(image=b"abc")
    bench.operations.delete(ADMIN, record.build_id)
    with bench.agent.store.claim(record.build_id):
        assert bench.operations.purge(ADMIN) == ()
    assert bench.operations.purge(ADMIN) == (record.build_id,)


def test_drain_and_stop_reach_the_agent(bench: Bench) -> None:
    bench.operations.drain(ADMIN)
    bench.operations.stop(ADMIN, cancel_builds=True)
    assert bench.agent.is_draining
    assert bench.agent.stopped_with is True
