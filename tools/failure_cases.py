"""The table of failures to record: `tests/data/failure-cases/*.yaml`.

Each case is a build that fails: files of a layer `meta-product`, lines of `local.conf`, a target,
and what a diagnosis must say. A `message` there is a regular expression: numbers of processes and
hashes differ from run to run; the recording has the whole line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["RELEASES", "Case", "Expected", "read_cases"]

RELEASES: Final = {
    "dunfell": "1.46",
    "kirkstone": "2.0",
    "scarthgap": "2.8",
    "wrynose": "2.18",
}
"""Branch of OpenEmbedded-Core: its branch of BitBake."""


class Expected(BaseModel):
    """What the first finding must say; `category: null` means that there must be no error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str | None
    also_accept: tuple[str, ...] = ()
    """Categories that are as good."""
    message: str = ""
    recipe: str | None = None
    version: str | None = None
    """Taken from the name of `file` when that is a recipe."""
    task: str | None = None
    file: str | None = None
    """The path, or a regular expression whose group is the path as the log prints it."""
    line: int | str | None = None
    """The number, or a regular expression whose group is the number as the log prints it."""
    retryable: bool = False
    message_log: str = "console.log"
    """Which recorded log holds the message."""
    consequences_of_one: bool = False
    """There must be no second error finding: all others follow from the first."""
    also: tuple[str, ...] = ()
    """Regular expressions of further findings' messages, each a problem of its own."""
    context: dict[str, Any] = Field(default_factory=dict)
    """What the caller of the diagnosis knows: fields of `DiagnosisContext`."""


class Case(BaseModel):
    """One build that fails, on one or more releases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    releases: tuple[str, ...] = ("kirkstone", "wrynose")
    target: str = "product"
    files: dict[str, str] = Field(default_factory=dict)
    """Path in `meta-product`, or absolute in the container under `/smidr/build`: content."""
    recipe: str = ""
    """Content of `recipes-product/product/product_2.1.bb`."""
    conf: str = ""
    """Lines added to `local.conf`."""
    layers: tuple[str, ...] = ()
    """Further layers in `bblayers.conf`, as container paths."""
    prepare: str = ""
    """Shell lines run before BitBake, in TOPDIR."""
    run: str = "bitbake $TARGET"
    """Shell lines that build; what they print is the console log."""
    docker: tuple[str, ...] = ()
    """Further arguments of `docker run`, such as `--memory=300m`."""
    user: str = ""
    """`root`, or the ordinary user of a build when empty."""
    task_logs: tuple[str, ...] = ()
    """Patterns under `/smidr/build` of logs to keep."""
    expect: Expected
    expect_in: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By release: fields of `expect` that are different there."""

    def expected_in(self, release: str) -> Expected:
        """What a diagnosis must say about this release's log."""
        values = {**self.expect.model_dump(), **self.expect_in.get(release, {})}
        return Expected.model_validate(values)


def read_cases(folder: Path) -> Iterator[Case]:
    """All cases in the order of the files; raises `ValueError` for a wrong table."""
    seen: set[str] = set()
    for path in sorted(folder.glob("*.yaml")):
        for raw in yaml.safe_load(path.read_text(encoding="utf-8")):
            case = Case.model_validate(raw)
            if case.name in seen:
                raise ValueError(f"{path.name}: two cases are called {case.name}")
            seen.add(case.name)
            yield case
