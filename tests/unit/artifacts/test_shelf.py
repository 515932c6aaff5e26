from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smidr_ci.artifacts.collect import collect
from smidr_ci.artifacts.retention import clean
from smidr_ci.artifacts.shelf import copy_artifacts, list_artifacts, show
from smidr_ci.errors import HostError, UsageError

NOW = datetime(2026, 3, 4, tzinfo=UTC)
NEWEST = "acme-00000001"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    deploy = tmp_path / "deploy"
    (deploy / "images").mkdir(parents=True)
    (deploy / "images" / "run").write_text("#!/bin/sh\n")
    (deploy / "images" / "run").chmod(0o700)
    (deploy / "images" / "latest").symlink_to("run")
    for customer, ages in {"acme": (1, 20, 40, 60), "zeta": (50,)}.items():
        for number, age in enumerate(ages, 1):
            place = tmp_path / "artifacts" / customer / f"{customer}-{number:08x}"
            collect(deploy, None, place, created=NOW - timedelta(days=age))
    return tmp_path / "artifacts"


def names(root: Path) -> list[str]:
    return sorted(item.build_id.replace("-0000000", "") for item in list_artifacts(root))


def test_a_list_is_newest_first_and_by_customer(root: Path) -> None:
    assert [item.build_id for item in list_artifacts(root)][:2] == [NEWEST, "acme-00000002"]
    assert [item.build_id for item in list_artifacts(root, "zeta")] == ["zeta-00000001"]
    assert list_artifacts(root / "nowhere") == []


def test_show_takes_a_unique_beginning(root: Path) -> None:
    assert show(root, "zeta").build_id == "zeta-00000001"
    with pytest.raises(UsageError, match="several"):
        show(root, "acme")
    for wanted in ("", "nobody", "../zeta", ".", "zeta-00000001/images"):
        with pytest.raises(UsageError, match="no artifacts"):
            show(root, wanted)


def test_a_copy_keeps_modes_and_links(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = copy_artifacts(root, NEWEST, out)
    assert paths == [out / "images/latest", out / "images/run"]
    assert (out / "images/run").stat().st_mode & 0o777 == 0o755
    assert (out / "images/latest").readlink() == Path("run")
    assert sorted(os.listdir(out / "images")) == ["latest", "run"]


def test_a_copy_overwrites_nothing_unless_forced(root: Path, tmp_path: Path) -> None:
    out, precious = tmp_path / "out" / "images", tmp_path / "precious"
    out.mkdir(parents=True)
    precious.write_text("mine")
    (out / "run").symlink_to(precious)
    with pytest.raises(UsageError, match="images/run would be overwritten"):
        copy_artifacts(root, NEWEST, tmp_path / "out")
    assert os.listdir(out) == ["run"]
    copy_artifacts(root, NEWEST, tmp_path / "out", force=True)
    assert (out / "run").read_text() == "#!/bin/sh\n"
    assert precious.read_text() == "mine"


def test_a_changed_artifact_is_not_handed_out(root: Path, tmp_path: Path) -> None:
    (root / "acme" / NEWEST / "images" / "run").write_text("#!/bin/evil")
    with pytest.raises(HostError, match="checksum differs"):
        copy_artifacts(root, NEWEST, tmp_path / "out")
    assert os.listdir(tmp_path / "out" / "images") == []


@pytest.mark.parametrize(
    ("path", "link"),
    [("../../evil", None), ("/tmp/evil", None), ("images/x", "../../evil"), ("", None)],
)
def test_a_manifest_that_names_places_outside_is_refused(
    root: Path, tmp_path: Path, path: str, link: str | None
) -> None:
    file = root / "acme" / NEWEST / "manifest.json"
    raw = json.loads(file.read_text())
    raw["artifacts"][0] |= {"path": path, "link": link}
    file.write_text(json.dumps(raw))
    with pytest.raises(HostError, match="outside"):
        copy_artifacts(root, NEWEST, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', "\x00" * 10])
def test_a_damaged_manifest_is_told_and_does_not_hide_the_others(root: Path, text: str) -> None:
    (root / "acme" / NEWEST / "manifest.json").write_text(text)
    with pytest.raises(HostError, match="can't be read"):
        show(root, NEWEST)
    assert len(list_artifacts(root)) == 5
    assert list_artifacts(root)[-1].manifest is None


@pytest.mark.parametrize(
    ("keep", "days", "left"),
    [
        (2, None, ["acme1", "acme2", "zeta1"]),
        (None, 30, ["acme1", "acme2"]),
        (1, 50, ["acme1", "acme2", "acme3", "zeta1"]),
        (0, None, []),
        (9, 0, ["acme1", "acme2", "acme3", "acme4", "zeta1"]),
    ],
)
def test_clean_keeps_the_newest_and_the_young(
    root: Path, keep: int | None, days: int | None, left: list[str]
) -> None:
    planned = clean(root, now=NOW, keep=keep, days=days, dry_run=True)
    assert len(list_artifacts(root)) == 5
    assert clean(root, now=NOW, keep=keep, days=days) == planned
    assert names(root) == left
    assert all(item.reason and item.size_bytes == 10 for item in planned)


def test_clean_leaves_other_customers_and_builds_that_run(root: Path) -> None:
    clean(root, now=NOW, keep=0, customer="acme", is_in_use=lambda name: name == "acme-00000004")
    assert names(root) == ["acme4", "zeta1"]


def test_clean_touches_nothing_without_a_marker_and_no_link(root: Path, tmp_path: Path) -> None:
    (root / "acme" / "holiday-photos").mkdir()
    (root / "acme" / ".smidr-owned").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".smidr-owned").touch()
    (root / "acme" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "acme" / ".deleting-link").symlink_to(tmp_path / "elsewhere")
    clean(root, now=NOW, keep=0)
    assert sorted(os.listdir(root / "acme")) == [
        ".deleting-link",
        ".smidr-owned",
        "holiday-photos",
        "linked",
    ]
    assert (tmp_path / "elsewhere").is_dir()


def test_clean_takes_what_a_crash_left_half_done_after_a_day(root: Path) -> None:
    for name in (".collecting-abc", ".deleting-abc"):
        (root / "acme" / name / "images").mkdir(parents=True)
        (root / "acme" / name / "images" / "half").touch()
    for age, count in ((0.9, 2), (1.1, 0)):
        moment = (NOW - timedelta(days=age)).timestamp()
        for path in (root / "acme").glob(".*-abc"):
            os.utime(path, (moment, moment))
        clean(root, now=NOW, keep=99)
        assert len(list((root / "acme").glob(".*-abc"))) == count


def test_clean_without_a_limit_is_refused(root: Path) -> None:
    for keep, days in ((None, None), (-1, None), (None, -1)):
        with pytest.raises(UsageError):
            clean(root, now=NOW, keep=keep, days=days)
    assert len(list_artifacts(root)) == 5
