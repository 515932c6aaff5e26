"""Where findings are in the repository of the project itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.diagnosis.model import Category, Diagnosis, Finding, Severity, Summary
from smidr_ci.reports.project_paths import in_project

CONFIG = """\
name: p
layers:
  - {name: meta-own, path: layers/meta-own}
  - {name: meta-outer, path: ../../elsewhere}
  - {name: meta-git, git: "https://git.example.com/meta-git"}
"""


def placed(
    layer: str | None, path: str | None, config: str = CONFIG, at: str = "smidr.yaml"
) -> str:
    record = BuildRecord("p-1", "c", "p", (), BuildState.FAILED, datetime.now(UTC), config)
    finding = Finding(
        category=Category.PARSE_ERROR,
        severity=Severity.ERROR,
        message="m",
        layer=layer,
        repo_path=path,
        fingerprint="f",
    )
    diagnosis = Diagnosis((finding,), Summary(succeeded=False))
    return in_project(diagnosis, record, at).findings[0].repo_path or ""


def test_a_layer_in_the_project_has_its_path_before() -> None:
    assert placed("meta-own", "recipes/a/a.bb") == "layers/meta-own/recipes/a/a.bb"


def test_the_path_of_a_layer_starts_where_the_config_lies() -> None:
    assert placed("meta-own", "a.bb", at="ci/smidr.yaml") == "ci/layers/meta-own/a.bb"


@pytest.mark.parametrize("layer", ["meta-git", "poky", "meta-outer"])
def test_a_file_of_a_layer_from_elsewhere_is_in_no_file_of_the_project(layer: str) -> None:
    assert placed(layer, "a.bb") == ""


def test_what_is_in_no_layer_stays() -> None:
    assert placed(None, "smidr.yaml") == "smidr.yaml"


@pytest.mark.parametrize("config", ["", "layers: 3", "[", "layers: [{a: b}]"])
def test_a_config_that_can_not_be_read_places_nothing(config: str) -> None:
    assert placed("meta-own", "a.bb", config) == ""
