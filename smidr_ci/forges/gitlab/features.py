"""What this runner says of itself; GitLab hands out jobs by it, so it promises what is there."""

from __future__ import annotations

import platform
from typing import Any, Final

from smidr_ci import __version__

__all__ = ["runner_info"]

_CAN: Final = (
    "variables",
    "raw_variables",
    "refspecs",
    "masking",
    "artifacts",
    "upload_multiple_artifacts",
    "upload_raw_artifacts",
    "artifacts_exclude",
    "cache",
    "fallback_cache_keys",
    "return_exit_code",
    "shared",
    "trace_reset",
    "trace_checksum",
    "trace_size",
    "cancelable",
    "cancel_gracefully",
    "two_phase_job_commit",
)
_CAN_NOT: Final = (
    "multi_build_steps",
    "image",
    "services",
    "session",
    "terminal",
    "proxy",
    "vault_secrets",
    "service_variables",
    "service_multiple_aliases",
    "image_executor_opts",
    "service_executor_opts",
    "native_steps_integration",
    "job_inputs",
)
_GO_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def runner_info() -> dict[str, Any]:
    """`info` of every request that has one.

    The whole of it each time: GitLab believes the first one for most of an hour, and without
    `cancel_gracefully` in it a cancel would skip after_script.
    """
    features = dict.fromkeys(_CAN, True) | dict.fromkeys(_CAN_NOT, False)
    machine = platform.machine()
    return {
        "name": "smidr-ci",
        "version": __version__,
        "revision": "",
        "platform": platform.system().lower(),
        "architecture": _GO_NAMES.get(machine, machine),
        "executor": "shell",
        "shell": "bash",
        "features": features,
        "config": {"gpus": ""},
    }
