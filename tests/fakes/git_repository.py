"""Small real git repositories, made by git itself with fixed names and times."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["GitRepository", "core_layer", "layer_conf"]

_TIME = 1_700_000_000


class GitRepository:
    """A work tree with commits; each commit is one minute after the last."""

    def __init__(self, path: Path, branch: str = "main") -> None:
        self.path = path
        self.time = _TIME
        path.mkdir(parents=True)
        self.git("init", "--quiet", f"--initial-branch={branch}")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        stamp = f"{self.time} +0000"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.com",
            "GIT_AUTHOR_DATE": stamp,
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.com",
            "GIT_COMMITTER_DATE": stamp,
        }
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", "-C", str(self.path), *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: Mapping[str, str | bytes] | None = None, *, tick: int = 60) -> str:
        self.write(files or {})
        self.time += tick
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD")


def layer_conf(collection: str, **values: str) -> str:
    """A `conf/layer.conf`; `values` are such as `depends="core"`, `compat="scarthgap"`."""
    names = {
        "depends": "LAYERDEPENDS",
        "recommends": "LAYERRECOMMENDS",
        "compat": "LAYERSERIES_COMPAT",
        "priority": "BBFILE_PRIORITY",
    }
    lines = [
        'BBPATH .= ":${LAYERDIR}"',
        'BBFILES += "${LAYERDIR}/recipes-*/*/*.bb"',
        f'BBFILE_COLLECTIONS += "{collection}"',
        f'BBFILE_PATTERN_{collection} = "^${{LAYERDIR}}/"',
    ]
    if "core" in values:
        lines.append(f'LAYERSERIES_CORENAMES = "{values.pop("core")}"')
    lines += [f'{names[key]}_{collection} = "{value}"' for key, value in values.items()]
    return "\n".join(lines) + "\n"


def core_layer(series: str = "scarthgap") -> dict[str, str]:
    """A repository that looks like poky: BitBake, init script, core, and test layers."""
    return {
        "oe-init-build-env": "#!/bin/sh\n",
        "bitbake/bin/bitbake": "#!/usr/bin/env python3\n",
        "bitbake/lib/bb/__init__.py": '__version__ = "2.8.1"\n',
        "bitbake/lib/layerindexlib/tests/testdata/layer1/conf/layer.conf": layer_conf("layer1"),
        "meta/conf/layer.conf": layer_conf("core", core=series, compat=series, priority="5"),
        "meta/recipes-core/base/base_1.0.bb": 'SUMMARY = "base"\n',
        "meta/classes/base.bbclass": "inherit nothing\n",
        "meta-poky/conf/layer.conf": layer_conf("yocto", depends="core (>= 13)", compat=series),
        "meta-selftest/conf/layer.conf": layer_conf("selftest", depends="core", compat=series),
        "meta-skeleton/conf/layer.conf": layer_conf("skeleton", depends="core", compat=series),
    }
