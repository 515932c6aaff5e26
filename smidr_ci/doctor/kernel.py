"""Checks of what the kernel allows: namespaces, inotify, memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smidr_ci.doctor.model import CheckResult, fine, warned

__all__ = ["check_inotify", "check_kernel", "check_memory", "check_user_namespaces"]

_OLDEST_KERNEL: Final = (4, 19)
_WATCHES: Final = 65_536
_INSTANCES: Final = 128
_GIB: Final = 1024**3
_BYTES_PER_CPU: Final = 2 * _GIB


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _persistent(setting: str) -> str:
    return f"echo '{setting}' | sudo tee -a /etc/sysctl.d/60-smidr.conf && sudo sysctl --system"


def check_kernel(proc: Path) -> list[CheckResult]:
    """The kernel's version."""
    release = (proc / "sys/kernel/osrelease").read_text().strip()
    found = re.match(r"(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) < _OLDEST_KERNEL:
        text = ".".join(map(str, _OLDEST_KERNEL))
        remedy = "Upgrade the kernel: sudo apt-get dist-upgrade"
        return [warned("kernel", f"{release} is older than {text}, which is tested", remedy)]
    return [fine("kernel", release)]


def check_user_namespaces(proc: Path) -> list[CheckResult]:
    """Whether unprivileged users may make them: BitBake cuts tasks off the network with them.

    They also let mmdebstrap work without root.
    """
    name = "user namespaces"
    problems = list(_namespace_problems(proc / "sys"))
    if problems:
        why = "BitBake then can't keep tasks off the network, nor mmdebstrap work without root"
        return [
            warned(name, f"{setting} forbids them; {why}", _persistent(f"{setting}={value}"))
            for setting, value in problems
        ]
    return [fine(name, "allowed for unprivileged users")]


def _namespace_problems(sys: Path) -> Iterator[tuple[str, int]]:
    if _number(sys / "kernel/unprivileged_userns_clone") == 0:  # Debian's and Arch's
        yield "kernel.unprivileged_userns_clone", 1
    if _number(sys / "kernel/apparmor_restrict_unprivileged_userns") == 1:  # Ubuntu's
        yield "kernel.apparmor_restrict_unprivileged_userns", 0
    if _number(sys / "user/max_user_namespaces") == 0:
        yield "user.max_user_namespaces", 15_000


def check_inotify(proc: Path) -> list[CheckResult]:
    """Limits of inotify, with which BitBake's server watches metadata."""
    name, found = "inotify", []
    for key, least, good in (
        ("max_user_watches", _WATCHES, 524_288),
        ("max_user_instances", _INSTANCES, 512),
    ):
        value = _number(proc / "sys/fs/inotify" / key)
        if value is not None and value < least:
            setting = f"fs.inotify.{key}"
            remedy = _persistent(f"{setting}={good}")
            found.append(warned(name, f"{setting} is {value}; builds want {least}", remedy))
    return found or [fine(name, "limits are high enough")]


def check_memory(proc: Path, cpus: int) -> list[CheckResult]:
    """Memory per CPU: a compiler of C++ takes one to two GiB."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", (proc / "meminfo").read_text(), re.MULTILINE)
    total = int(match[1]) * 1024 if match else 0
    detail = f"{total / _GIB:.1f} GiB for {cpus} CPUs"
    if total < cpus * _BYTES_PER_CPU:
        jobs = max(1, total // _BYTES_PER_CPU)
        remedy = f"Set build.parallel_make to {jobs} and build.bb_number_threads to {jobs}"
        return [warned("memory", f"{detail}: too little to compile on all of them", remedy)]
    return [fine("memory", detail)]
