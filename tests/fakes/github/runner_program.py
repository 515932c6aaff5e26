"""An official runner that is none: a program that does and prints what a test tells it.

`archive` packs it as GitHub packs the real one. Its JIT configuration names a FIFO; each line that
a test writes there is a command.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

__all__ = ["Remote", "archive", "jit_config", "write_archive"]

_WRAPPER = """#!{interpreter}
exec '{python}' -I "$0.py" "$@"
"""

_PROGRAM = r"""
import base64, json, os, signal, subprocess, sys, time

def say(text):
    print(time.strftime("%Y-%m-%d %H:%M:%SZ: ") + text, flush=True)

root = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
assert sys.argv[1:] == ["run"], sys.argv
blob = os.environ.pop("ACTIONS_RUNNER_INPUT_JITCONFIG", "")
if not blob:
    print("Runner is not configured.")
    sys.exit(1)
for name, content in json.loads(base64.b64decode(blob)).items():
    with open(os.path.join(root, name), "wb") as file:
        file.write(base64.b64decode(content))
with open(os.path.join(root, ".runner")) as file:
    settings = json.load(file)
worker, name, is_deaf = None, "", settings.get("deaf", False)
job_environment = {**os.environ, "RUNNER_TRACKING_ID": "github_x"}

def interrupted(number, _frame):
    if is_deaf:
        return
    if number == signal.SIGINT:
        print("Exiting...", flush=True)
    if worker:
        worker.kill()
    os._exit(0 if number == signal.SIGINT else 143)

signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGTERM, interrupted)
if settings.get("at_once") is not None:
    sys.exit(settings["at_once"])
print("\n√ Connected to GitHub\n", flush=True)
print("Current runner version: '%s'" % "VERSION", flush=True)
commands = open(os.open(settings["control"], os.O_RDWR), "rb", buffering=0)
say("Listening for Jobs")
for line in commands:
    word, _, rest = line.decode().rstrip("\n").partition(" ")
    if word == "job":
        name = rest
        say("Running job: " + name)
        os.makedirs(os.path.join(root, "_diag"), exist_ok=True)
        open(os.path.join(root, "_diag", "Worker_20260801-100000-utc.log"), "w").close()
        os.makedirs(os.path.join(root, "_work", "_temp"), exist_ok=True)
        worker = subprocess.Popen(
            ["/bin/sh", "-c", "exec sleep 600 # Runner.Worker"], env=job_environment
        )
    elif word == "do":
        code = json.loads(rest)
        subprocess.run([sys.executable, "-I", "-c", code], env=job_environment, cwd=root)
    elif word == "done":
        worker.kill()
        worker.wait()
        say("Job %s completed with result: %s" % (name, rest))
    elif word == "exit":
        sys.exit(int(rest))
"""


def write_archive(
    path: Path,
    version: str = "2.336.0",
    *,
    interpreter: str = "/bin/sh",
    python: str = sys.executable,
) -> str:
    """A good archive at the path; its SHA-256. `python` is who runs the program."""
    raw = archive(version, interpreter=interpreter, python=python)
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def archive(
    version: str = "2.336.0",
    extra: tuple[tuple[tarfile.TarInfo, bytes], ...] = (),
    *,
    interpreter: str = "/bin/sh",
    python: str = sys.executable,
) -> bytes:
    """The archive's bytes, with more entries at its end."""
    wrapper = _WRAPPER.format(python=python, interpreter=interpreter)
    entries = [
        (_directory("./bin/"), b""),
        (_program("./bin/Runner.Listener"), wrapper.encode()),
        (_file("./bin/Runner.Listener.py"), _PROGRAM.replace("VERSION", version).encode()),
        (_file("./externals/node24/lib/tool.js"), b"// a tool\n"),
        (_link("./externals/node24/bin/tool", "../lib/tool.js"), b""),
        (_program("./run.sh"), b"#!/bin/sh\nexit 1\n"),
        *extra,
    ]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _file(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    return info


def _program(name: str) -> tarfile.TarInfo:
    info = _file(name)
    info.mode = 0o755
    return info


def _directory(name: str) -> tarfile.TarInfo:
    info = _program(name)
    info.type = tarfile.DIRTYPE
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = _file(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def jit_config(control: Path, **more: object) -> str:
    """What GitHub would call `encoded_jit_config`."""
    runner = {"AgentName": "x", "WorkFolder": "_work", "control": str(control), **more}
    files = {
        ".runner": json.dumps(runner),
        ".credentials": json.dumps({"Scheme": "OAuth"}),
        ".credentials_rsaparams": json.dumps({"d": "a-private-key"}),
    }
    packed = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    return base64.b64encode(json.dumps(packed).encode()).decode()


class Remote:
    """Tells one runner what to do; `close` it."""

    def __init__(self, control: Path) -> None:
        """Make a FIFO there, which any user may read."""
        os.mkfifo(control)
        control.chmod(0o666)
        self.control = control
        self._fd = os.open(control, os.O_RDWR)  # what is written waits for a reader

    def tell(self, *commands: str) -> None:
        """Commands: `job NAME`, `done RESULT`, `exit CODE`."""
        os.write(self._fd, "".join(f"{command}\n" for command in commands).encode())

    def do(self, code: str) -> None:
        """Have the job run Python code to its end, in a process of its own."""
        self.tell(f"do {json.dumps(code)}")

    def close(self) -> None:
        """Nothing more to say."""
        os.close(self._fd)
