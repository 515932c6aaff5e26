"""A builder image from a base and a list of Debian packages: run apt in a container, commit it.

A container and a commit, not the engine's build API: they work alike on Docker and Podman, a cancel
ends them at once, and the proxies that apt needs don't become part of the image.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from smidr_ci.engine import Engine
from smidr_ci.errors import EngineError, ImageError
from smidr_ci.images.background import Steady, run_cancellable
from smidr_ci.images.model import IMAGE_LABEL, BaseImage, ImageSettings, Making

__all__ = ["INSTALL_CONTAINER_PREFIX", "RECIPE", "builder_tag", "install", "install_script"]

RECIPE: Final = "1"
"""Version of the script below: a change of what it makes must change this."""

INSTALL_CONTAINER_PREFIX: Final = "smidr-image-"
"""Names of the containers that packages are installed in: known by name, since an image inherits
the labels of the container that it is committed from."""

_ALWAYS: Final = ("ca-certificates", "locales")
_NO_APT: Final = 93
_SCRIPT_PATH: Final = "smidr-install.sh"
_LINE_EVERY_S: Final = 2.0
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](:[a-z0-9]+)?")
_CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("SETFCAP", "SETGID", "SETUID", "SYS_CHROOT"),
)
_MISSING: Final = re.compile(
    r"E: (?:Unable to locate package (\S+)|Package '([^']+)' has no installation candidate)"
)
_NO_NETWORK: Final = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect|Failed to fetch|"
    r"Unable to connect|Connection timed out|Connection failed"
)


def builder_tag(base_id: str, packages: Iterable[str]) -> str:
    """The tag's hash: same base, same set of packages, same recipe, same tag."""
    text = json.dumps([RECIPE, base_id, sorted(set(packages))])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def install_script(packages: Sequence[str], settings: ImageSettings) -> str:
    """The shell script that runs as root in the container; it deletes itself first."""
    wanted = " ".join(sorted({*packages, *_ALWAYS}))
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in settings.environment.items()
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    ]
    update = "apt-get -q -o Acquire::Retries=3 -o APT::Update::Error-Mode=any update"
    options = "-q -y -o Acquire::Retries=3 -o APT::Cmd::Pattern-Only=true -o Dpkg::Use-Pty=0"
    lines = [
        'rm -f "$0"',
        "set -eu",
        *exports,
        "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8",
        f"command -v apt-get >/dev/null 2>&1 || exit {_NO_APT}",
        update,
        f"apt-get {options} --no-install-recommends install {wanted}",
        "localedef -i en_US -f UTF-8 en_US.UTF-8",
        "apt-get clean",
        "rm -rf /var/lib/apt/lists/*",
    ]
    return "\n".join(lines) + "\n"


def install(making: Making, base: BaseImage, packages: Sequence[str], repository: str) -> str:
    """Make `repository:<builder_tag>`, and return its id; leaves no container behind.

    Raises `ImageError` (naming packages that apt does not know), `EngineError`, `CancelledError`.
    """
    _check_names(packages)
    engine, tag = making.engine, builder_tag(base.id, packages)
    script = install_script(packages, making.settings)
    container_id = _create(engine, base, tag, making.settings)

    def kill() -> None:
        with suppress(EngineError), engine.calling("stop the installation"):
            engine.api.kill(container_id)

    try:
        tail = run_cancellable(
            lambda say: _run(
                engine, container_id, script, Steady(say, making.clock, _LINE_EVERY_S)
            ),
            making,
            on_cancel=kill,
        )
        _check_result(engine, container_id, base, tail)
        return _commit(engine, container_id, base, packages, f"{repository}:{tag}")
    finally:
        with suppress(EngineError), engine.calling("remove the installation's container"):
            engine.api.remove_container(container_id, v=True, force=True)


def _check_names(packages: Iterable[str]) -> None:
    for name in packages:
        # A trailing "-" would tell apt to remove the package.
        if not _PACKAGE.fullmatch(name):
            raise ImageError(
                f"{name!r} is no name of a Debian package",
                hint="Correct it in container.packages of smidr.yaml.",
            )


def _create(engine: Engine, base: BaseImage, tag: str, settings: ImageSettings) -> str:
    host: dict[str, Any] = {
        "Init": True,
        "CapDrop": ["ALL"],
        "CapAdd": list(_CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "20m"}},
    }
    if settings.network:
        host["NetworkMode"] = settings.network
    body = {
        "Image": base.id,
        "Entrypoint": ["/bin/sh"],
        "Cmd": [f"/{_SCRIPT_PATH}"],
        "User": "0:0",
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
    name = f"{INSTALL_CONTAINER_PREFIX}{tag}-{uuid.uuid4().hex[:6]}"
    with engine.calling(f"create a container of {base.reference}"):
        create: Any = engine.api.create_container_from_config  # it has no types
        return str(create(body, name)["Id"])


def _run(engine: Engine, container_id: str, script: str, steady: Steady) -> list[str]:
    """Run the script to its end; the last lines of its output."""
    tail: deque[str] = deque(maxlen=200)
    with engine.calling("install packages"):
        engine.api.put_archive(container_id, "/", _archive(script))
        engine.api.start(container_id)
        rest = b""
        for chunk in engine.api.logs(container_id, stream=True, follow=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _take(line.decode(errors="replace").rstrip(), tail, steady)
    return list(tail)


def _take(line: str, tail: deque[str], steady: Steady) -> None:
    tail.append(line)
    if line.startswith(("Get:", "Setting up", "Unpacking", "Fetched", "E:", "W:")):
        steady.say(line)


def _archive(script: str) -> bytes:
    raw = script.encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(_SCRIPT_PATH)
        member.size, member.mode = len(raw), 0o700
        tar.addfile(member, io.BytesIO(raw))
    return out.getvalue()


def _check_result(engine: Engine, container_id: str, base: BaseImage, tail: list[str]) -> None:
    with engine.calling("wait for the installation"):
        code = int(engine.api.wait(container_id)["StatusCode"])
    if code == 0:
        return
    if code == _NO_APT:
        raise ImageError(
            f"can't install packages on {base.reference}: it has no apt-get",
            hint="Use an image of Debian or Ubuntu as container.base_image, or one that holds "
            "all tools and no container.packages.",
        )
    text = "\n".join(tail)
    if unknown := sorted({found[1] or found[2] for found in _MISSING.finditer(text)}):
        raise ImageError(
            f"apt does not know these packages on {base.reference}: {', '.join(unknown)}",
            hint="Correct container.packages in smidr.yaml; names differ between releases.",
        )
    faults = [line for line in tail if line.startswith(("E:", "W: Failed"))] or tail[-5:]
    hint = "The whole of apt's output is above."
    if _NO_NETWORK.search(text):
        hint = "The container can't reach the package mirror: check network, DNS and proxy."
    raise ImageError(
        f"installing packages on {base.reference} failed with exit code {code}: "
        + " | ".join(faults[:5]),
        hint=hint,
    )


def _commit(
    engine: Engine, container_id: str, base: BaseImage, packages: Sequence[str], reference: str
) -> str:
    # Docker takes `ENTRYPOINT []` for silence and keeps the container's; Podman reads only changes.
    reset = ["ENTRYPOINT []"] if engine.facts.is_podman else []
    changes = [
        *reset,
        'CMD ["/bin/sh"]',
        "ENV LANG=C.UTF-8",
        f"LABEL {IMAGE_LABEL}=builder io.smidr.recipe={RECIPE} io.smidr.base={base.id}",
        f'LABEL io.smidr.packages="{" ".join(sorted(set(packages)))}"',
    ]
    repository, _, tag = reference.rpartition(":")
    with engine.calling(f"keep the image {reference}"):
        answer = engine.api.commit(
            container_id, repository, tag, changes=changes, conf={"Entrypoint": []}
        )
    return str(answer["Id"])
