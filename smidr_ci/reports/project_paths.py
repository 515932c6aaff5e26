"""Where findings lie in the project's own repository, which is what a forge shows them on."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from smidr_ci.builds.model import BuildRecord
from smidr_ci.diagnosis.model import Diagnosis, Finding

__all__ = ["in_project"]


def in_project(diagnosis: Diagnosis, record: BuildRecord, config_path: str) -> Diagnosis:
    """The findings with paths relative to the repository that the record's config came from.

    A file of a layer that came from elsewhere has no path there. `config_path` is relative to the
    top of the repository.
    """
    folder = posixpath.dirname(config_path)
    roots = _layer_roots(record.config_text)
    findings = tuple(_placed(finding, folder, roots) for finding in diagnosis.findings)
    return replace(diagnosis, findings=findings)


def _placed(finding: Finding, folder: str, roots: Mapping[str, str | None]) -> Finding:
    if finding.layer is None or finding.repo_path is None:
        return finding
    root = roots.get(finding.layer)
    if root is None:
        return replace(finding, repo_path=None)
    path = posixpath.normpath(posixpath.join(folder, root, finding.repo_path))
    is_inside = not path.startswith(("/", "../"))
    return replace(finding, repo_path=path if is_inside else None)


def _layer_roots(config_text: str) -> dict[str, str | None]:
    """Layers by name with their path, None for those that a URL names."""
    try:
        config: Any = yaml.safe_load(config_text)
        layers = config["layers"]
        return {str(item["name"]): item.get("path") for item in layers}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
