"""The benchmarks still run; how fast anything is, only `make bench` tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.hello import HelloProject

# `hello` is left out: `generated` does the same and more.
REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


def test_every_part_gives_its_rows(
    hello_project: HelloProject, base_image: str, tmp_path: Path
) -> None:
    report = tmp_path / "rows.json"
    small = ["--rounds", "1", "--recipes", "3", "--console-mb", "2", "--no-kas"]
    small += ["--history", "60", "--idle", "1"]
    where = ["--work", str(tmp_path), "--json", str(report), "--base-image", base_image]
    command = [sys.executable, "-m", "benchmarks.overhead", *small, *where]
    done = subprocess.run(
        [*command, "--parts", "agent,generated,console,log", "--bitbake", hello_project.bitbake],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(report.read_text())["rows"]
    assert [row["what"] for row in rows if row.get("goal")] == [
        "hello, nothing to do, by an agent",
        "3 recipes, all cached",
    ]
    assert all(row["ratio"] > 0 for row in rows if "ratio" in row)
    units = [row["unit"] for row in rows if "unit" in row]
    assert units == ["s", "ms", "% of a CPU", "MB", "MB", "MB", "lines/s", "lines/s"]
    assert all(row["value"] > 0 for row in rows if row.get("unit", "%")[0] != "%")
    assert "3 recipes, all cached" in done.stdout
    assert not list(tmp_path.glob("smidr-benchmark-*"))


def test_workspaces_are_compared_with_raw_bitbake(
    hello_project: HelloProject, base_image: str, tmp_path: Path
) -> None:
    report = tmp_path / "rows.json"
    small = ["--rounds", "1", "--recipes", "3", "--no-kas", "--parts", "generated"]
    where = ["--work", str(tmp_path), "--json", str(report), "--base-image", base_image]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.workspaces"),
            *(*small, *where, "--bitbake", hello_project.bitbake),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(report.read_text())["rows"]
    assert [row["what"] for row in rows if row["goal"]] == [
        "3 recipes, nothing to do: warm",
        "3 recipes, nothing to do: fresh with parse cache",
    ]
    assert {row["what"] for row in rows if "changed" in row["what"]} == {
        "3 recipes, one recipe changed: warm",
        "3 recipes, one recipe changed: fresh with parse cache",
    }
    assert all(row["ratio"] > 0 for row in rows)
    assert not list(tmp_path.glob("smidr-benchmark-*"))


def test_uploads_are_compared_with_curl(tmp_path: Path) -> None:
    report = tmp_path / "rows.json"
    small = ["--gigabytes", "0.02", "--rounds", "1", "--work", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.uploads", *small, "--json", str(report)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr  # how fast it was is not asked here
    rows = json.loads(report.read_text())["rows"]
    assert [row["baseline"]["name"] for row in rows if "ratio" in row] == [
        "curl -F",
        "curl -F + sha256sum",
    ]
    assert [row["unit"] for row in rows if "unit" in row] == ["MB", "MB"]
    assert all(row["is_met"] for row in rows if "unit" in row)
    assert not list(tmp_path.glob("smidr-benchmark-*"))
