"""Which variables a build may be given, and why some may not."""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.config.base import KeyPath, MisfitError, MisfitsError
from smidr_ci.config.matching import shown

__all__ = ["check_environment_list", "check_environment_names", "why_refused"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MAX_NAMES: Final = 256

_KEYS: Final = {
    "MACHINE": "base.machine",
    "DISTRO": "base.distro",
    "BBMULTICONFIG": "build.multiconfig",
    "PARALLEL_MAKE": "build.parallel_make",
    "DL_DIR": "directories.downloads",
    "SSTATE_DIR": "directories.sstate",
    "SSTATE_MIRRORS": "advanced.sstate_mirrors",
    "PREMIRRORS": "advanced.premirrors",
    "DEPLOY_DIR": "directories.deploy",
    "BB_NUMBER_THREADS": "build.bb_number_threads",
    "BB_NO_NETWORK": "advanced.bb_no_network",
    "BB_HASHSERVE": "advanced.bb_hashserve",
}
_PER_BUILD: Final = "every build has its own"
_SHELL: Final = "it changes how every shell of the build behaves"
_REFUSED: Final = {
    "TMPDIR": _PER_BUILD,
    "BUILDDIR": _PER_BUILD,
    "TOPDIR": _PER_BUILD,
    "BBSERVER": "it would lead BitBake to another build's server",
    "BBPATH": "smidr sets it from the layers",
    "BBLAYERS": "smidr sets it from the layers",
    "BBFILES": "smidr sets it from the layers",
    "PATH": "smidr sets it from the builder image",
    "HOME": "smidr sets it",
    "USER": "smidr sets it",
    "LOGNAME": "smidr sets it",
    "SHELL": "smidr sets it",
    "PWD": "smidr sets it",
    "LANG": "BitBake needs the UTF-8 locale that smidr sets",
    "LANGUAGE": "BitBake needs the UTF-8 locale that smidr sets",
    "ENV": _SHELL,
    "IFS": _SHELL,
    "CDPATH": _SHELL,
    "BASH_ENV": _SHELL,
    "BASHOPTS": _SHELL,
    "SHELLOPTS": _SHELL,
    "PS4": _SHELL,
    "PROMPT_COMMAND": _SHELL,
    "SDKTARGETSYSROOT": "it comes from an SDK and must not leak into a build",
    "PKG_CONFIG_SYSROOT_DIR": "it comes from an SDK and must not leak into a build",
}
_REFUSED_PREFIXES: Final = {
    "LD_": "it changes which libraries the build's programs load",
    "PYTHON": "it changes which modules BitBake's Python loads",
    "BB_": "write it in local_conf; BitBake takes its own settings from there",
    "BITBAKE_": "write it in local_conf; BitBake takes its own settings from there",
    "LC_": "BitBake needs the UTF-8 locale that smidr sets",
    "OECORE_": "it comes from an SDK and must not leak into a build",
    "OE_SDK": "it comes from an SDK and must not leak into a build",
    "PSEUDO_": "pseudo's own state would be mixed up",
    "SSH_": "git credentials belong in agent.yaml, where recipes don't see them",
    "GIT_": "git credentials belong in agent.yaml, where recipes don't see them",
    "SMIDR_": "these are smidr's own",
}


def why_refused(name: str) -> str | None:
    """Why a build must not be given this variable; None when it may."""
    if not _NAME.fullmatch(name):
        return "a name has letters, digits and _, and no digit in front"
    if name in _KEYS:
        return f"use the key {_KEYS[name]}"
    if name in _REFUSED:
        return _REFUSED[name]
    return next((why for lead, why in _REFUSED_PREFIXES.items() if name.startswith(lead)), None)


def check_environment_names(environment: dict[str, str]) -> dict[str, str]:
    """The mapping itself; raises `MisfitsError` with each name that is refused and why."""
    if len(environment) > _MAX_NAMES:
        raise ValueError(f"has {len(environment)} variables; {_MAX_NAMES} are allowed")
    reasons = {name: why_refused(name) for name in environment}
    faults = [_refusal(name, why, (name,)) for name, why in reasons.items() if why]
    if faults:
        raise MisfitsError(tuple(faults))
    return environment


def check_environment_list(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names themselves; raises `MisfitsError` with each one that is refused and why."""
    reasons = [why_refused(name) for name in names]
    pairs = enumerate(zip(names, reasons, strict=True))
    faults = [_refusal(name, why, (index,)) for index, (name, why) in pairs if why]
    if faults:
        raise MisfitsError(tuple(faults))
    return names


def _refusal(name: str, why: str, at: KeyPath) -> MisfitError:
    return MisfitError(f"the variable {shown(name)} can't be given to a build: {why}", at)
