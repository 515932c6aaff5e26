"""What a diagnosis says: findings, their place, and the figures of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

__all__ = [
    "Category",
    "Consequence",
    "Diagnosis",
    "DiagnosisContext",
    "ExcerptLine",
    "Finding",
    "LayerMount",
    "Severity",
    "Summary",
]


class Category(StrEnum):
    """The closed list of causes; the same word labels history, metrics and reports."""

    PARSE_ERROR = "parse-error"
    EXPANSION_ERROR = "expansion-error"
    MISSING_CLASS = "missing-class-or-include"
    MISSING_PROVIDER = "missing-provider"
    LAYER_COMPAT = "layer-compat"
    LAYER_DEPENDENCY = "layer-dependency"
    MULTIPLE_PROVIDERS = "multiple-providers"
    FETCH = "fetch"
    CHECKSUM = "checksum"
    PATCH = "patch"
    CONFIGURE = "configure"
    COMPILE = "compile"
    LINK = "link"
    INSTALL = "install"
    PACKAGE_QA = "package-qa"
    LICENSE = "license"
    PACKAGING = "packaging"
    ROOTFS = "rootfs"
    IMAGE = "image"
    KERNEL = "kernel"
    SSTATE = "sstate"
    PSEUDO = "pseudo"
    TASKHASH = "taskhash"
    SANITY = "sanity"
    SERVER = "server"
    DISK_SPACE = "disk-space"
    OUT_OF_MEMORY = "out-of-memory"
    PYTHON_EXCEPTION = "python-exception"
    NETWORK_DENIED = "network-denied"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OTHER = "other"


class Severity(StrEnum):
    """`error` failed the build or a task; `warning` did not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class ExcerptLine:
    """One line of context; `offset` is its first byte in the log, `number` counts from 1."""

    number: int
    offset: int
    text: str


@dataclass(frozen=True)
class Consequence:
    """A later error that the finding explains."""

    message: str
    recipe: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Finding:
    """One diagnosed problem. `message` is one line, as printed in `log` without CI prefixes."""

    category: Category
    severity: Severity
    message: str
    rule: str = ""
    recipe: str | None = None
    version: str | None = None
    task: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    repo_path: str | None = None
    """The file relative to its repository, when it lies in one of the build's layers."""
    layer: str | None = None
    hint: str = ""
    excerpt: tuple[ExcerptLine, ...] = ()
    log: str | None = None
    """Which log holds the message: `console`, or a task log's path."""
    log_line: int | None = None
    task_log: str | None = None
    """Where BitBake says the task's own log lies."""
    retryable: bool = False
    cause_visible: bool = True
    """False: the text names what failed, not why; the hint says where to look."""
    reproduce: str | None = None
    fingerprint: str = ""
    consequences: tuple[Consequence, ...] = ()
    consequence_count: int = 0
    """All of them; `consequences` holds the first few."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Finding:
        """The finding that `Diagnosis.to_dict` or a build record holds as plain values."""
        known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
        return cls(
            **{
                **known,
                "category": Category(raw["category"]),
                "severity": Severity(raw["severity"]),
                "excerpt": tuple(ExcerptLine(**line) for line in raw.get("excerpt", ())),
                "consequences": tuple(Consequence(**one) for one in raw.get("consequences", ())),
            }
        )


@dataclass(frozen=True)
class LayerMount:
    """A layer tree as the container saw it, and where a reader finds the same file."""

    container_path: str
    name: str
    repo_url: str = ""
    commit: str = ""
    tree: str = ""
    """Host directory of the tree, empty when it isn't there any more."""
    is_project: bool = False
    """The repository that the build was asked for by."""


@dataclass(frozen=True)
class DiagnosisContext:
    """What the caller knows beside the logs; everything may be missing."""

    layers: tuple[LayerMount, ...] = ()
    targets: tuple[str, ...] = ()
    exit_code: int | None = None
    oom_kills: int = 0
    timed_out: bool = False
    cancelled: bool = False
    warnings_as_errors: bool = False


@dataclass(frozen=True)
class Summary:
    """Figures of the run, as far as the log prints them."""

    succeeded: bool | None = None
    """None: the log does not say."""
    errors: int = 0
    warnings: int = 0
    bitbake_version: str | None = None
    machine: str | None = None
    distro: str | None = None
    distro_version: str | None = None
    tasks_attempted: int | None = None
    tasks_not_rerun: int | None = None
    tasks_failed: int | None = None
    failed_tasks: tuple[str, ...] = ()
    sstate: Mapping[str, int] = field(default_factory=dict)
    """BitBake's "Sstate summary": wanted, local, mirrors, missed, current."""
    lines: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Diagnosis:
    """The first finding is the primary cause; warnings come last."""

    findings: tuple[Finding, ...]
    summary: Summary

    @property
    def primary(self) -> Finding | None:
        """The cause to show first, if the build failed."""
        first = self.findings[0] if self.findings else None
        return first if first and first.severity is Severity.ERROR else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or a build record."""
        return {
            "version": _FORMAT_VERSION,
            "findings": [asdict(finding) for finding in self.findings],
            "summary": asdict(self.summary),
        }

    def to_json(self) -> str:
        """The text of `--format json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


_FORMAT_VERSION: Final = 1
