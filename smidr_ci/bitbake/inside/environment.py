"""The environment that BitBake gets: made new, not inherited."""

from __future__ import annotations

import contextlib
import locale
import os
import pwd
import re
import shutil
import tempfile
from typing import Any

from .control import read_small

__all__ = [
    "bare_environment",
    "bitbake_version",
    "clean_environment",
    "init_command",
    "parse_environment",
    "split_dump",
    "with_passthrough",
]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOCALES = ("en_US.UTF-8", "C.UTF-8")
_NEW_NAMES = (1, 53)
_MARK = b"\0smidr-environment\0"
# The shell's own variables don't matter: `env -0` prints what a program would get.
_INIT = r'script=$1; shift; . "$script" "$@" || exit; printf "\0smidr-environment\0"; exec env -0'


def clean_environment(plan: dict[str, Any]) -> dict[str, str]:
    """PATH of the builder image, who and where we are, a UTF-8 locale, and the plan's variables."""
    user = _user_name()
    home = _writable_home()
    _trust_layer_trees(home)
    environment = {
        "PATH": os.environ.get("PATH") or _PATH,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh",
        "TERM": "dumb",
        "LANG": _usable_locale(),
    }
    environment.update({str(name): str(value) for name, value in plan["environment"].items()})
    return environment


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or "builder"


def _writable_home() -> str:
    homes = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    for home in homes:
        if os.path.isabs(home) and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
            return home
    return tempfile.mkdtemp(prefix="smidr-home-")


def _trust_layer_trees(home: str) -> None:
    # Trees may belong to another uid; git refuses those unless told otherwise, and takes the
    # setting from files only. BitBake's and OE-Core's classes run git on the layers.
    path = os.path.join(home, ".gitconfig")
    if re.search(r"^\s*directory\s*=\s*\*", read_small(path) or "", re.MULTILINE):
        return
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # git then says itself which tree it distrusts
        fd = os.open(path, flags, 0o644)
        os.write(fd, b"[safe]\n\tdirectory = *\n")
        os.close(fd)


def _usable_locale() -> str:
    for name in _LOCALES:
        try:
            locale.setlocale(locale.LC_CTYPE, name)
        except locale.Error:
            continue
        return name
    return _LOCALES[0]  # BitBake says what to install


def bitbake_version(bitbake: str) -> tuple[int, int]:
    """Such as (2, 8), from `lib/bb/__init__.py`; (0, 0) when it does not say."""
    text = read_small(os.path.join(bitbake, "lib", "bb", "__init__.py")) or ""
    found = re.search(r"^__version__ = [\"'](\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def bare_environment(environment: dict[str, str], bitbake: str, topdir: str) -> dict[str, str]:
    """What a project without an init script needs: PATH and BBPATH."""
    path = os.path.join(bitbake, "bin") + os.pathsep + environment["PATH"]
    return {**environment, "PATH": path, "BBPATH": topdir, "BUILDDIR": topdir}


def init_command(plan: dict[str, Any], environment: dict[str, str]) -> list[str] | None:
    """Source the plan's init script in bash and print the environment; None without a bash."""
    bash = shutil.which("bash", path=environment["PATH"])
    if bash is None:
        return None
    arguments = [str(plan[name]) for name in ("init_script", "topdir", "bitbake")]
    return [bash, "--norc", "--noprofile", "-c", _INIT, "bash", *arguments]


def split_dump(output: bytes) -> tuple[bytes, bytes]:
    """What `init_command` printed: the script's chatter, and the environment for the next one."""
    chatter, _, dump = output.rpartition(_MARK)
    return chatter, dump


def parse_environment(dump: bytes) -> dict[str, str]:
    """What `env -0` printed, without what describes only the shell that ran it.

    OE-Core's script leaves a colon at the end of PYTHONPATH, of which its own checks complain.
    """
    environment = {}
    for entry in dump.split(b"\0"):
        name, separator, value = os.fsdecode(entry).partition("=")
        if separator:
            environment[name] = value
    for name in ("_", "SHLVL", "OLDPWD", "PWD", "BBSERVER"):
        environment.pop(name, None)
    python_path = environment.get("PYTHONPATH", "").strip(os.pathsep)
    if python_path:
        environment["PYTHONPATH"] = python_path
    else:
        environment.pop("PYTHONPATH", None)
    return environment


def with_passthrough(
    environment: dict[str, str], names: list[str], version: tuple[int, int]
) -> dict[str, str]:
    """Tell BitBake, in its release's words, to take these variables from its environment."""
    if not names:
        return environment
    new = version >= _NEW_NAMES or version == (0, 0)
    variable = "BB_ENV_PASSTHROUGH_ADDITIONS" if new else "BB_ENV_EXTRAWHITE"
    present = environment.get(variable, "").split()
    return {**environment, variable: " ".join(dict.fromkeys([*present, *names]))}
