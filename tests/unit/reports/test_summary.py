"""What a summary makes of records: images with dated names, findings kept as plain values."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.diagnosis.model import (
    Category,
    Consequence,
    Diagnosis,
    ExcerptLine,
    Finding,
    Severity,
    Summary,
)
from smidr_ci.reports.facts import facts_of


def record(stamp: str, size: int) -> BuildRecord:
    return BuildRecord(
        build_id="default-1",
        customer="default",
        project="project",
        targets=("image",),
        state=BuildState.COMPLETED,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        artifacts=(ArtifactRecord(f"images/m/image-m-{stamp}.wic", size, "0"),),
    )


def test_an_image_is_compared_though_its_name_holds_the_time_of_its_build() -> None:
    facts = facts_of(record("20261120152011", 12), record("20261119080000", 10))
    (image,) = facts.images
    assert (image.size_bytes, image.previous_bytes) == (12, 10)


def test_a_number_that_is_no_time_tells_images_apart() -> None:
    facts = facts_of(record("11111111111111", 12), record("22222222222222", 10))
    assert facts.images[0].previous_bytes is None


def test_findings_of_a_record_are_read_back_whole() -> None:
    finding = Finding(
        Category.COMPILE,
        Severity.ERROR,
        "error: x",
        line=3,
        excerpt=(ExcerptLine(1, 0, "a"),),
        consequences=(Consequence("later", "recipe"),),
    )
    (plain,) = json.loads(Diagnosis((finding,), Summary()).to_json())["findings"]
    assert Finding.from_dict({**plain, "key_of_a_later_version": 1}) == finding
