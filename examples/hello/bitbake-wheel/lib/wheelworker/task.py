"""The life of one task in its own process, from the fork to the exit code."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import traceback
from dataclasses import dataclass, field
from typing import Any

import bb
import bb.build
import bb.cache
import bb.cookerdata
import bb.data
import bb.event
import bb.parse
import bb.utils

from wheelworker.protocol import event_frame, packed

__all__ = ["Setup", "run_task"]

LOGGER = logging.getLogger("BitBake")


@dataclass
class Setup:
    """What the run queue tells a worker before the first task, and what was made of it."""

    configuration: Any
    builder: Any
    extra_variables: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    task_hashes: dict[str, Any] | None = None


def run_task(setup: Setup, order: dict[str, Any], pipe: int) -> int:
    """Run the ordered task and return its exit code; the process ends after it.

    Events go to `pipe`. `order` is the object of the run queue's `runtask` command.
    """
    is_quiet = bool(order["quieterrors"])
    try:
        _report_to(pipe)
        _detach()
        _set_umask(setup, order)
        d = _datastore(setup, order)
        _cut_network(order["taskname"], d)
        _set_environment(order["taskname"], d)
    except Exception:  # noqa: BLE001 - whatever metadata raises is the failure of this task
        if not is_quiet:
            LOGGER.critical(traceback.format_exc())
        return 1
    if setup.configuration.dry_run or order["dry_run"]:
        return 0
    return int(bb.build.exec_task(order["fn"], order["taskname"], d, False))


def _detach() -> None:
    """Lead a process group of its own, which ends with its leader's SIGTERM or its parent."""
    bb.utils.signal_on_parent_exit("SIGTERM")
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_group)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _end_group(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.killpg(0, signal.SIGTERM)


def _report_to(pipe: int) -> None:
    """Send the events of this process, and of those that it forks, to the worker."""
    lock = multiprocessing.Lock()

    def fire(event: object, _d: object) -> None:
        data = memoryview(packed(event_frame(event)))
        with bb.utils.lock_timeout(lock):
            while data:
                data = data[os.write(pipe, data) :]

    bb.event.worker_pid = os.getpid()
    bb.event.worker_fire = fire


def _set_umask(setup: Setup, order: dict[str, Any]) -> None:
    own = order["taskdep"].get("umask", {}).get(order["taskname"])
    umask = own or setup.info["umask"]
    if umask:
        os.umask(bb.utils.to_filemode(umask))


def _datastore(setup: Setup, order: dict[str, Any]) -> Any:
    """Parse the recipe again, with what belongs to this run and this task."""
    fn, task = order["fn"], order["taskname"]
    base = setup.builder.mcdata[bb.cache.virtualfn2realfn(fn)[2]]
    for name, value in _run_variables(setup, order).items():
        base.setVar(name, value)
    bb.parse.siggen.set_taskdata(setup.info["sigdata"])
    if setup.task_hashes is not None:
        bb.parse.siggen.set_taskhashes(setup.task_hashes)
    d = setup.builder.parseRecipe(fn, order["appends"], order["layername"])
    d.setVar("BB_TASKHASH", order["taskhash"])
    d.setVar("BB_UNIHASH", order["unihash"])
    bb.parse.siggen.setup_datacache_from_datastore(fn, d)
    if order["quieterrors"]:
        d.setVarFlag(task, "quieterrors", "1")
    bb.utils.set_process_name("{}:{}".format(d.getVar("PN"), task.replace("do_", "")))
    return d


def _run_variables(setup: Setup, order: dict[str, Any]) -> dict[str, Any]:
    variables = {
        "BB_WORKERCONTEXT": "1",
        "BB_TASKDEPDATA": order["taskdepdata"],
        "BB_CURRENTTASK": order["taskname"].replace("do_", ""),
        "BUILDNAME": setup.info["buildname"],
        "DATE": setup.info["date"],
        "TIME": setup.info["time"],
    }
    if setup.configuration.limited_deps:
        variables["BB_LIMITEDDEPS"] = "1"
    return {**variables, **setup.extra_variables}


def _cut_network(task: str, d: Any) -> None:
    """Leave the network to tasks that ask for it with the `network` flag."""
    uid = os.getuid()
    wants_network = bb.utils.to_boolean(d.getVarFlag(task, "network"))
    if not wants_network and bb.utils.is_local_uid(uid):
        bb.utils.disable_network(uid, os.getgid())


def _set_environment(task: str, d: Any) -> None:
    """Replace the environment by the variables that the recipe exports."""
    exported = [(name, value) for name, value in bb.data.exported_vars(d) if value is not None]
    bb.utils.empty_environment()
    os.environ.update(exported)
    for name in (d.getVarFlag(task, "exports") or "").split():
        d.setVarFlag(name, "export", "1")
        value = d.getVar(name)
        if value is not None:
            os.environ[name] = value
