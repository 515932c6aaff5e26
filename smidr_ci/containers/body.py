"""What a `ContainerSpec` becomes on the wire: the body of the Engine API's POST /containers/create.

Everything that confines a build stands here: no root, no capabilities, no new privileges, no
engine socket, real limits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from smidr_ci.containers.runtime import ContainerSpec, Mount
from smidr_ci.engine import EngineFacts
from smidr_ci.errors import EngineError

__all__ = [
    "BUILD_LABEL",
    "OWNER_LABEL",
    "ROLE_LABEL",
    "check_spec",
    "container_name",
    "create_body",
]

BUILD_LABEL: Final = "io.smidr.build-id"
OWNER_LABEL: Final = "io.smidr.owner"
ROLE_LABEL: Final = "io.smidr.role"

DEFAULT_PIDS: Final = 32_768
"""Enough for any parallel make, and the end of a fork bomb."""
DEFAULT_SHM_BYTES: Final = 1024**3
"""The engine's 64 MiB are too small for some recipes' tasks; what is used counts as memory."""


def container_name(spec: ContainerSpec, suffix: str) -> str:
    """`smidr-build-<build-id>` for a build; other roles may run several times, so get a suffix."""
    name = f"smidr-{spec.role}-{spec.build_id}"
    return name if spec.role == "build" else f"{name}-{suffix}"


def create_body(spec: ContainerSpec, facts: EngineFacts) -> dict[str, Any]:
    """The request's JSON. The image's entrypoint, command, user and health check never count."""
    program = (*spec.entrypoint, *spec.command)
    return {
        "Image": spec.image,
        "Entrypoint": list(program[:1]),
        "Cmd": list(program[1:]),
        "Env": [f"{name}={value}" for name, value in _environment(spec).items()],
        "User": f"{spec.user.uid}:{spec.user.gid}",
        "WorkingDir": str(spec.workdir),
        "Labels": {**spec.labels, BUILD_LABEL: spec.build_id, ROLE_LABEL: spec.role},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, facts),
    }


def _environment(spec: ContainerSpec) -> Mapping[str, str]:
    who = {"HOME": str(spec.user.home), "USER": spec.user.name, "LOGNAME": spec.user.name}
    return {**who, **spec.environment}


def _host_config(spec: ContainerSpec, facts: EngineFacts) -> dict[str, Any]:
    config: dict[str, Any] = {
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "Init": True,
        "ReadonlyRootfs": spec.read_only_root,
        "CapDrop": ["ALL"],
        "SecurityOpt": _security_options(facts),
        "PidsLimit": spec.pids or DEFAULT_PIDS,
        "ShmSize": spec.shm_bytes or DEFAULT_SHM_BYTES,
        "LogConfig": _log_config(facts),
        "RestartPolicy": {"Name": "unless-stopped" if spec.restarts else "no"},
    }
    if spec.memory_bytes:
        # Equal values mean no swap; otherwise the limit would be twice what was asked for.
        config |= {"Memory": spec.memory_bytes, "MemorySwap": spec.memory_bytes}
    if spec.cpus:
        # The engine refuses more CPUs than the host has; as a limit they are the same.
        cpus = min(spec.cpus, facts.cpus) if facts.cpus else spec.cpus
        config["NanoCpus"] = int(cpus * 1_000_000_000)
    if spec.network:
        config["NetworkMode"] = spec.network
    if mode := _user_namespace(facts):
        config["UsernsMode"] = mode
    return config


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": str(mount.target),
        "ReadOnly": not mount.writable,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _security_options(facts: EngineFacts) -> list[str]:
    options = ["no-new-privileges"]
    if facts.has_selinux:
        # Relabelling (`z`) would rewrite hundreds of GB of caches and the host's own labels.
        options.append("label=disable")
    return options


def _log_config(facts: EngineFacts) -> dict[str, Any]:
    # The driver writes its own files; what reaches stdout is small, and must stay so.
    options = {"max-size": "1m"} if facts.is_podman else {"max-size": "1m", "max-file": "2"}
    return {"Type": "json-file", "Config": options}


def _user_namespace(facts: EngineFacts) -> str | None:
    if facts.is_podman:
        return "keep-id" if facts.is_rootless else None
    # Files in bind mounts must belong to the host's user, not to a mapped one.
    return "host" if facts.has_user_remap else None


def check_spec(spec: ContainerSpec, facts: EngineFacts, engine_url: str) -> None:
    """Raise `EngineError` for what can't or must not run."""
    if spec.user.uid == 0:
        raise EngineError(
            f"the container of {spec.build_id} would run as root, which BitBake refuses",
            hint="Run smidr as an unprivileged user, or set the builder's user in agent.yaml.",
        )
    if not (*spec.entrypoint, *spec.command):
        raise EngineError(f"the container of {spec.build_id} has no command")
    if facts.is_rootless and not facts.is_podman:
        raise EngineError(
            "rootless Docker can't run builds: it maps the builder to a subordinate uid, which "
            "can't write to your directories, and only its root would be you",
            hint="Use the system's Docker Engine, or rootless Podman: `systemctl --user enable "
            "--now podman.socket` and DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock.",
        )
    socket_path = Path(engine_url.removeprefix("unix://")) if engine_url[:1] == "u" else None
    for mount in spec.mounts:
        _check_mount(mount, socket_path)
    targets = [mount.target for mount in spec.mounts]
    if twice := {str(target) for target in targets if targets.count(target) > 1}:
        raise EngineError(f"two mounts have the same place in the container: {', '.join(twice)}")


def _check_mount(mount: Mount, socket_path: Path | None) -> None:
    try:
        mode = os.stat(mount.source).st_mode
    except OSError as error:
        raise EngineError(
            f"can't mount {mount.source} at {mount.target}: {error.strerror}",
            where=str(mount.source),
            hint="The path must exist on the host of the container engine.",
        ) from error
    if not mount.source.is_absolute() or not mount.target.is_absolute():
        raise EngineError(f"a mount needs absolute paths: {mount.source} at {mount.target}")
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise EngineError(f"refusing to mount {mount.source}: neither a directory nor a file")
    if socket_path and socket_path.resolve().is_relative_to(mount.source.resolve()):
        raise EngineError(
            f"refusing to mount {mount.source}: it holds the container engine's socket",
            hint="A build that reaches the socket owns the host.",
        )
