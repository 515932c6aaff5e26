"""Stands for BitBake's `bb` package beside the wheel's worker: as much of it as the worker calls.

A test copies this file to `bb/__init__.py`. A "recipe" is a Python file, a task a function in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

PR_SET_PDEATHSIG = 1

worker_pid = 0
loggerDefaultLogLevel = 0  # noqa: N816 - BitBake's name
loggerDefaultDomains: dict[str, int] = {}  # noqa: N816 - BitBake's name
verboseShellLogging = verboseStdoutLogging = False  # noqa: N816 - BitBake's names


def worker_fire(event: object, d: object) -> None:
    """Replaced by the worker, and again in each task."""


class LogHandler(logging.Handler):
    """Passes log records on as events, as `bb.event.LogHandler` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record on."""
        worker_fire(record, None)


class Datastore(dict[str, Any]):
    """Variables; flags under `NAME[flag]`."""

    def setVar(self, name: str, value: object) -> None:  # noqa: N802 - BitBake's name
        """Set a variable."""
        self[name] = value

    def getVar(self, name: str) -> Any:  # noqa: N802 - BitBake's name
        """A variable's value."""
        return self.get(name)

    def setVarFlag(self, name: str, flag: str, value: object) -> None:  # noqa: N802 - BitBake's name
        """Set a flag."""
        self[f"{name}[{flag}]"] = value

    def getVarFlag(self, name: str, flag: str) -> Any:  # noqa: N802 - BitBake's name
        """A flag's value."""
        return self.get(f"{name}[{flag}]")


class CookerDataBuilder:
    """Knows one configuration."""

    def __init__(self, configuration: object, worker: bool) -> None:
        assert worker
        self.configuration = configuration
        self.mcdata = {"": Datastore()}

    def parseBaseConfiguration(self, worker: bool) -> None:  # noqa: N802 - BitBake's name
        """Set what every recipe has."""
        assert worker
        self.mcdata[""].setVar("EXPORTED", "from the configuration")

    def parseRecipe(self, fn: str, _appends: object, _layer: str) -> Datastore:  # noqa: N802 - BitBake's name
        """A recipe's variables."""
        if not os.path.exists(fn):
            raise FileNotFoundError(fn)
        return Datastore(self.mcdata[""], PN="recipe")


class SignatureGenerator:
    """Takes what it is told."""

    def set_taskdata(self, data: object) -> None:
        """Take signatures."""

    def set_taskhashes(self, hashes: object) -> None:
        """Take hashes."""

    def setup_datacache_from_datastore(self, fn: str, d: Datastore) -> None:
        """Take a recipe."""


siggen = SignatureGenerator()
logging.getLogger("BitBake").setLevel(logging.DEBUG)


def exec_task(fn: str, task: str, d: Datastore, _profile: bool) -> int:
    """Call the function `task` of the file `fn` with the datastore and an event sender."""
    namespace: dict[str, Any] = {"__file__": fn}
    with open(fn, encoding="utf-8") as source:
        exec(source.read(), namespace)
    fire: Callable[[object], None] = lambda event: worker_fire(event, d)  # noqa: E731 - a closure
    return int(namespace[task](d, fire) or 0)


def virtualfn2realfn(fn: str) -> tuple[str, str, str]:
    """File, class and multiconfig."""
    return fn, "", ""


def exported_vars(d: Datastore) -> Iterator[tuple[str, str]]:
    """What a task sees in its environment."""
    yield "EXPORTED", d.getVar("EXPORTED")


def empty_environment() -> None:
    """Remove every variable."""
    os.environ.clear()


def to_filemode(value: str) -> int:
    """An octal number."""
    return int(value, 8)


def to_boolean(value: object) -> bool:
    """Whether a flag is set."""
    return value == "1"


def is_local_uid(_uid: int) -> bool:
    """Whether the user may lose the network."""
    return False


def disable_network(_uid: int, _gid: int) -> None:
    """Leave the network."""


def check_system_locale() -> None:
    """Accept the locale."""


def set_process_name(_name: str) -> None:
    """Keep the name."""


def signal_on_parent_exit(name: str) -> None:
    """Ask the kernel for a signal when the parent ends."""
    assert name == "SIGTERM"
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 15)


@contextlib.contextmanager
def lock_timeout(lock: Any) -> Iterator[None]:
    """Hold a lock."""
    with lock:
        yield


# Every submodule is this one module.
for _name in ("build", "cache", "cookerdata", "data", "event", "msg", "parse", "utils"):
    sys.modules[f"{__name__}.{_name}"] = sys.modules[__name__]
    globals()[_name] = sys.modules[__name__]
