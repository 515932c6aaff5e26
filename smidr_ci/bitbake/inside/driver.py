"""Start the driver: `python3 /smidr/control/driver/driver.py [shell [COMMAND...]]`.

`rebuilt BITBAKE TIME` says instead why tasks of a build that is over ran again, and `relay SOCKET
PORT` leads from a port to a unix socket.

`smidr_inside` beside this file is the package that smidr knows as `smidr_ci.bitbake.inside`.
"""

from __future__ import annotations

import importlib
import os
import sys

if __name__ == "__main__":
    sys.dont_write_bytecode = True
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, here)
    control = os.path.dirname(here)
    if sys.argv[1:2] == ["shell"]:
        shell = importlib.import_module("smidr_inside.shell")
        sys.exit(shell.main(control, sys.argv[2:]))
    if sys.argv[1:2] == ["rebuilt"]:
        rebuilt = importlib.import_module("smidr_inside.rebuilt")
        sys.exit(rebuilt.main(control, sys.argv[2:]))
    if sys.argv[1:2] == ["relay"]:
        relay = importlib.import_module("smidr_inside.relay")
        sys.exit(relay.main(sys.argv[2], int(sys.argv[3])))
    run = importlib.import_module("smidr_inside.run")
    sys.exit(run.main(control))
