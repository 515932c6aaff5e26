"""The line of a layer's file that must change, found in the layer trees that are at hand.

The trees are a stranger's: only regular files inside the tree are read, and not much of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.diagnosis.model import Category, DiagnosisContext, Finding, LayerMount
from smidr_ci.files import open_untrusted

__all__ = ["locate"]

_MAX_FILE: Final = 1 << 20
_MISSING: Final = re.compile(
    r"R?PROVIDES '?(?P<what>[^'\s]{1,200})'?|^(?P<skipped>\S{1,160}) was skipped"
)
_CHECKSUM: Final = re.compile(
    r"has (?P<kind>\w{1,12}) checksum \\?'?(?P<new>[0-9a-f]{32,128})\\?'? when "
    r"\\?'?(?P<old>[0-9a-f]{32,128})\\?'?"
)
_ASKS: Final = re.compile(r"^\s*R?(?:DEPENDS|RECOMMENDS)\b|^\s*PACKAGECONFIG\[|^\s*IMAGE_INSTALL\b")


def locate(finding: Finding, context: DiagnosisContext) -> Finding:
    """The finding with file and line of what must change, where a layer tree shows it."""
    mount = _mount_of(finding, context)
    if mount is None or finding.repo_path is None:
        return finding
    if finding.category is Category.MISSING_PROVIDER:
        return _asking_line(finding, mount)
    if finding.category is Category.CHECKSUM:
        return _checksum_line(finding, mount)
    if finding.category is Category.PATCH:
        return _patch_file(finding, mount)
    return finding


def _mount_of(finding: Finding, context: DiagnosisContext) -> LayerMount | None:
    for mount in context.layers:
        if mount.name == finding.layer and mount.tree:
            return mount
    return None


def _asking_line(finding: Finding, mount: LayerMount) -> Finding:
    wanted = {
        match["what"] or match["skipped"]
        for text in (finding.message, *(line.text for line in finding.excerpt))
        if (match := _MISSING.search(text))
    }
    is_asking = False
    for path, number, text in _lines(finding, mount):
        # A value may go over several lines; each ends with a backslash.
        is_asking = is_asking or bool(_ASKS.match(text))
        if is_asking and any(name in text.replace('"', " ").split() for name in wanted if name):
            return replace(finding, repo_path=path, line=number, column=None)
        is_asking = is_asking and text.endswith("\\")
    return finding


def _checksum_line(finding: Finding, mount: LayerMount) -> Finding:
    texts = (finding.message, *(line.text for line in finding.excerpt))
    match = next((found for text in texts if (found := _CHECKSUM.search(text))), None)
    if match is None:
        return finding
    proposal = f'The new value would be {match["kind"]}sum = "{match["new"]}".'
    finding = replace(finding, hint=f"{finding.hint} {proposal}")
    for path, number, text in _lines(finding, mount):
        if match["old"] in text:
            return replace(finding, repo_path=path, line=number, column=None)
    return finding


def _patch_file(finding: Finding, mount: LayerMount) -> Finding:
    texts = (finding.message, *(line.text for line in finding.excerpt))
    names = re.findall(r"[\w.+-]{1,200}\.(?:patch|diff)\b", "\n".join(texts))
    if not names or finding.repo_path is None:
        return finding
    folder = PurePosixPath(finding.repo_path).parent
    name = PurePosixPath(names[0]).name
    for place in (folder / (finding.recipe or "files") / name, folder / "files" / name):
        if _read(Path(mount.tree), str(place)) is not None:
            return replace(finding, repo_path=str(place), line=None, column=None)
    return finding


def _lines(finding: Finding, mount: LayerMount) -> Iterator[tuple[str, int, str]]:
    """Lines of the recipe and of the include files beside it: repository path, number, text."""
    recipe = PurePosixPath(finding.repo_path or "")
    tree = Path(mount.tree)
    beside = [recipe]
    stem = recipe.name.partition("_")[0]
    beside += [recipe.parent / f"{name}.inc" for name in (recipe.stem, stem, f"{stem}-common")]
    for path in dict.fromkeys(beside):
        for number, line in enumerate((_read(tree, str(path)) or "").splitlines(), 1):
            yield str(path), number, line


def _read(tree: Path, relative: str) -> str | None:
    path = tree / relative
    try:
        if not path.parent.resolve().is_relative_to(tree.resolve()):
            return None
        with open_untrusted(path) as stream:
            return stream.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return None
