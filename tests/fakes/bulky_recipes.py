"""Recipes with big downloads and results, for builds that meet in the middle of writing them."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.hello import HelloProject

__all__ = ["BULKY", "BulkySources"]

BULKY = ("bulky-a", "bulky-b", "bulky-c", "bulky-d")
"""The recipes, each a target of its own that no other needs."""

_SIZE_BYTES = 2_000_000
_GIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "gc.auto=0")
_INCLUDE = """
SRC_URI = "git://${HELLO_SOURCES}/bulky.git;protocol=file;branch=main;destsuffix=bulky"
SRCREV = "%s"
S = "${SOURCES}/bulky"

do_compile() {
    cat ${S}/data ${S}/data ${S}/data > data
}

do_install() {
    install -D -m 0644 data "${D}/usr/share/${PN}/data"
}
"""


@dataclass(frozen=True)
class BulkySources:
    """The git repository that the recipes are built from; add it before the first build."""

    project: HelloProject

    def change(self, seed: int) -> None:
        """Other content, so that all of the recipes have to be fetched and built again."""
        repository = self.project.work / "sources" / "bulky.git"
        files = repository.with_name("bulky")
        if not files.exists():
            _git(repository.parent, "init", "-q", "-b", "main", str(files))
            _git(repository.parent, "init", "-q", "--bare", "-b", "main", str(repository))
        (files / "data").write_bytes(random.Random(seed).randbytes(_SIZE_BYTES))
        _git(files, "add", "data")
        _git(files, "commit", "-q", "-m", f"Content {seed}")
        _git(files, "push", "-q", str(repository), "main")
        self._write_recipes(_git(files, "rev-parse", "HEAD"))

    def _write_recipes(self, commit: str) -> None:
        folder = self.project.layer / "recipes" / "bulky"
        folder.mkdir(exist_ok=True)
        (folder / "bulky.inc").write_text(_INCLUDE % commit)
        for name in BULKY:
            (folder / f"{name}_1.0.bb").write_text("require bulky.inc\n")
        self.project.prepare()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*_GIT, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
