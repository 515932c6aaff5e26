"""`kas build` in `docker run`: the same project, image, limits, mounts and caches as smidr's.

kas gets its best case: layers that are checked out already, and a build directory that stays. Only
what it needs besides is made here: its project file, and the init script that it insists on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.twin import Twin

__all__ = ["Kas", "install_kas"]

_INIT: Final = """\
export PATH=/smidr/layers/bitbake/bin:$PATH BBPATH=$1 BUILDDIR=$1 LANG=C.UTF-8
export BB_ENV_PASSTHROUGH_ADDITIONS=
cd "$1"
"""
_PYTHON_VERSION: Final = "import sys; print('%d.%d' % sys.version_info[:2])"


def install_kas(destination: Path, image: str) -> str:
    """The newest kas from PyPI for the image's Python, as a folder for PYTHONPATH; its version."""
    version = _in_image(image, [], _PYTHON_VERSION)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["--target", str(destination), "--python-version", version, "--only-binary=:all:"]
    subprocess.run([*pip, *wanted, "kas"], check=True)
    mount = ["-v", f"{destination}:/kas"]
    compiled = "import compileall; compileall.compile_dir('/kas', quiet=2)"
    _in_image(image, mount, compiled)
    return _in_image(image, [*mount, "-e", "PYTHONPATH=/kas"], "import kas; print(kas.__version__)")


def _in_image(image: str, options: list[str], program: str) -> str:
    command = ["docker", "run", "--rm", "--entrypoint", "python3", *options, image, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Kas:
    """A kas project beside a smidr project."""

    folder: Path
    installed: Path
    twin: Twin
    target: str

    def prepare(self) -> None:
        """Write the project file with the settings that smidr wrote for BitBake."""
        (self.folder / "init").mkdir(parents=True)
        (self.folder / "init" / "oe-init-build-env").write_text(_INIT, encoding="utf-8")
        (self.folder / "project.json").write_text(json.dumps(self._project()), encoding="utf-8")
        self.clear()

    def _project(self) -> Mapping[str, Any]:
        conf = (self.twin.topdir / "conf" / "local.conf").read_text(encoding="utf-8")
        layers = {"meta-hello": {".": None}, "bitbake": {".": "excluded"}}
        repos: dict[str, Any] = {
            name: {"path": f"/smidr/layers/{name}", "layers": parts}
            for name, parts in layers.items()
        }
        repos["init"] = {"path": "/kas-project/init", "layers": {".": "excluded"}}
        return {
            "header": {"version": 14},
            "machine": "hello-x86",
            "distro": "hello",
            "target": self.target,
            "repos": repos,
            "local_conf_header": {"smidr": conf},
        }

    def clear(self) -> None:
        """Start from an empty build directory."""
        build = self.folder / "build"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        owner = self.twin.topdir.stat()
        for path in (build, self.folder):
            shutil.chown(path, owner.st_uid, owner.st_gid)

    def build(self) -> float:
        """Seconds of `docker run ... kas build`; a failure ends the benchmark."""
        begun = time.perf_counter()
        done = subprocess.run(
            self._command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"kas build failed:\n{done.stdout}")
        return time.perf_counter() - begun

    def fresh(self) -> float:
        """The same in an empty build directory."""
        self.clear()
        return self.build()

    def _command(self) -> list[str]:
        config, host = self.twin.facts["Config"], self.twin.facts["HostConfig"]
        mounts = {mount["Target"]: mount for mount in host["Mounts"]}
        del mounts["/smidr/control"]
        own = {"/smidr/build": self.folder / "build", "/kas-project": self.folder}
        options = [
            *("--rm", "--init", "--user", config["User"], "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--shm-size", str(host["ShmSize"])),
            *("-e", "HOME=/smidr/home", "-e", "PYTHONPATH=/kas", "-e", "KAS_WORK_DIR=/kas-project"),
            *("-e", "KAS_BUILD_DIR=/smidr/build", "-v", f"{self.installed}:/kas:ro"),
        ]
        for target, mount in mounts.items():
            source = own.get(target, mount["Source"])
            options += ["-v", f"{source}:{target}" + (":ro" if mount.get("ReadOnly") else "")]
        options += ["-v", f"{self.folder}:/kas-project"]
        options += ["--entrypoint", "python3", config["Image"]]
        return ["docker", "run", *options, "-m", "kas", "build", "/kas-project/project.json"]
