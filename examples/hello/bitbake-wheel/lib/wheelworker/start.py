"""Sets a worker up on the pipes that `bb.runqueue` starts it with."""

from __future__ import annotations

import logging
import os
import pickle
import sys

import bb
import bb.event
import bb.utils

from wheelworker.loop import Worker
from wheelworker.protocol import ProtocolError, event_frame

__all__ = ["main"]

MAGIC = "decafbad"
FAKEROOT_MAGIC = "beef"


def main(arguments: list[str]) -> int:
    """Serve on stdin and stdout; `arguments` is what `bb.runqueue` passes: one magic word."""
    if len(arguments) != 1 or not arguments[0].startswith(MAGIC):
        sys.exit("bitbake-worker is started by bitbake, not by hand.")
    if arguments[0].endswith(FAKEROOT_MAGIC):
        sys.exit(
            "Tasks with fakeroot need BitBake from its git repository: the wheel has no worker"
        )
    bb.utils.check_system_locale()
    commands, replies = os.dup(0), os.dup(1)
    # A stray print, here or in metadata, would break the frames.
    os.dup2(2, 1)
    bb.utils.set_process_name("Worker")
    worker = Worker(commands, replies)
    bb.event.worker_fire = lambda event, _d: worker.send(event_frame(event))
    logging.getLogger("BitBake").addHandler(bb.event.LogHandler())
    try:
        return worker.serve()
    except (ProtocolError, pickle.UnpicklingError) as error:
        print(f"bitbake-worker: {error}", file=sys.stderr)
        return 1
