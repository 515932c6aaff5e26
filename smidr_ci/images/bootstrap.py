"""A Debian base image without a registry: mmdebstrap's tar, imported by the engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Final

from smidr_ci.engine import Engine
from smidr_ci.errors import EngineError, ImageError
from smidr_ci.images.background import Steady, run_cancellable
from smidr_ci.images.model import IMAGE_LABEL, ImageSettings, Making

__all__ = ["BASE_REPOSITORY", "base_reference", "bootstrap"]

BASE_REPOSITORY: Final = "smidr-base"
_RECIPE: Final = "1"
_CHUNK: Final = 1024 * 1024
_LINE_EVERY_S: Final = 2.0
_STOP_S: Final = 10.0
_INSTALL_HINT: Final = "Install it: apt-get install mmdebstrap (or set container.base_image)."
_SUITE: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_SOURCE_LINE: Final = re.compile(r"deb(-src)? (\[[^\]\n]*\] )?\S+ [^\n]+")
_MIRROR: Final = re.compile(r"(https?|file|copy)://[^\s]+")


def base_reference(settings: ImageSettings) -> str:
    """The tag of the base for these settings: `smidr-base:<suite>-<hash>`."""
    sources = (settings.mirror, settings.apt_sources)
    text = json.dumps([_RECIPE, settings.suite, *sources, os.uname().machine])
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{BASE_REPOSITORY}:{settings.suite}-{digest}"


def bootstrap(making: Making) -> str:
    """Make the base image and return its id; leaves nothing behind when it fails.

    As root or not (mmdebstrap then needs user namespaces). Raises `ImageError`, `EngineError`,
    `CancelledError`.
    """
    engine, settings = making.engine, making.settings
    command = _command(settings)
    making.report(f"bootstrapping Debian {settings.suite} with mmdebstrap")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(settings),
        start_new_session=True,
    )
    try:
        image_id = run_cancellable(
            lambda say: _import(engine, process, Steady(say, making.clock, _LINE_EVERY_S)),
            making,
            on_cancel=lambda: _stop(process),
        )
    finally:
        _stop(process)
    reference = base_reference(settings)
    repository, _, tag = reference.rpartition(":")
    with engine.calling(f"tag the image {reference}"):
        engine.api.tag(image_id, repository, tag)
    making.report(f"bootstrapped {reference}")
    return image_id


def _command(settings: ImageSettings) -> list[str]:
    program = shutil.which(settings.mmdebstrap)
    if program is None:
        raise ImageError(
            "no base image: none is given, and mmdebstrap, which could make one, is not installed",
            hint=_INSTALL_HINT,
        )
    if not _SUITE.fullmatch(settings.suite):
        raise ImageError(f"{settings.suite!r} is no name of a Debian release")
    if settings.mirror is not None and not _MIRROR.fullmatch(settings.mirror):
        raise ImageError(
            f"{settings.mirror!r} is no URL of a Debian mirror",
            hint="It must start with http://, https:// or file://.",
        )
    mirror = [settings.mirror] if settings.mirror else []
    options = ["--variant=minbase", "--mode=auto", "--format=tar", "--include=ca-certificates"]
    if settings.apt_sources:
        options.append(f"--setup-hook={_sources_hook(settings.apt_sources)}")
    return [program, *options, settings.suite, "-", *mirror]


def _sources_hook(lines: tuple[str, ...]) -> str:
    """A command that mmdebstrap runs with the new system's root as `$1`, before it asks apt."""
    for line in lines:
        if not _SOURCE_LINE.fullmatch(line):
            raise ImageError(
                f"{line!r} is no line of a sources.list",
                hint="Lines in images.extra_apt_sources of agent.yaml look like "
                "`deb https://host/debian bookworm main`.",
            )
    return f"printf '%s\\n' {shlex.join(lines)} > \"$1\"/etc/apt/sources.list.d/smidr.list"


def _environment(settings: ImageSettings) -> dict[str, str]:
    # dpkg refuses to work without the sbin directories, which users' PATHs lack.
    path = os.environ.get("PATH", "/usr/bin:/bin")
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "USER") if name in os.environ}
    system = {"PATH": f"{path}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    return {**kept, **settings.environment, **system}


def _import(engine: Engine, process: subprocess.Popen[bytes], steady: Steady) -> str:
    """Pass the tar to the engine; the image's id. A tar that was cut short leaves no image."""
    if process.stdout is None or process.stderr is None:
        raise ImageError("mmdebstrap has no output")
    tail: deque[str] = deque(maxlen=20)
    with process.stdout as system, process.stderr as messages:
        reader = threading.Thread(target=_read_lines, args=(messages, tail, steady), daemon=True)
        reader.start()
        image_id, refusal = _send(engine, system)
        code = process.wait()
        reader.join()
    if code != 0:
        _discard(engine, image_id)
        raise ImageError(
            f"mmdebstrap ended with exit code {code}: {' | '.join(list(tail)[-4:])}",
            hint="Check that the host reaches the Debian mirror; without root it needs user "
            "namespaces and the package uidmap.",
        )
    if refusal is not None or not image_id:
        raise refusal or EngineError("the engine did not say what it imported")
    return image_id


def _send(engine: Engine, system: IO[bytes]) -> tuple[str, EngineError | None]:
    """The imported image's id, or why there is none."""
    changes = [f"LABEL {IMAGE_LABEL}=base", 'CMD ["/bin/sh"]', "ENV LANG=C.UTF-8"]
    try:
        with engine.calling("import the bootstrapped system"):
            answer: str = engine.api.import_image_from_stream(_chunks(system), changes=changes)
        return _imported_id(answer), None
    except EngineError as error:
        # Not raised yet: when mmdebstrap failed too, its own words explain more.
        for _ in _chunks(system):
            pass
        return "", error


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _read_lines(stream: IO[bytes], tail: deque[str], steady: Steady) -> None:
    for raw in stream:
        line = raw.decode(errors="replace").strip()
        if line:
            tail.append(line)
            steady.say(line.removeprefix("I: "))


def _imported_id(answer: str) -> str:
    # One JSON object per line; the last one's status is the id.
    for line in reversed(answer.strip().splitlines()):
        with suppress(ValueError):
            status = str(json.loads(line).get("status", ""))
            if re.fullmatch(r"sha256:[0-9a-f]{64}", status):
                return status
    return ""


def _discard(engine: Engine, image_id: str) -> None:
    if image_id:
        with suppress(EngineError), engine.calling("remove a half image"):
            engine.api.remove_image(image_id, force=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End mmdebstrap and what it started: it cleans up after SIGTERM, so that comes first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
