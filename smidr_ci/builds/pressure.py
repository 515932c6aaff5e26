"""How much tasks of this host wait for memory, as the kernel measures it.

Linux, Documentation/accounting/psi.rst: `some avg10=1.23 avg60=... avg300=... total=...`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["memory_pressure"]

_FILE: Final = Path("/proc/pressure/memory")
_SOME: Final = re.compile(
    r"^some (?:\S+ )*?avg10=([0-9]{1,3}(?:\.[0-9]{1,6})?)(?:\s|$)", re.MULTILINE
)
_MOST: Final = 4096


def memory_pressure(path: Path = _FILE) -> float | None:
    """Percent of the last ten seconds in which some task stood still for want of memory.

    None where the kernel does not tell: built or booted without it (psi=0), or another format.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_MOST).decode("ascii", errors="replace")
    except OSError:
        return None
    found = _SOME.search(text)
    percent = float(found[1]) if found else None
    return percent if percent is not None and percent <= 100 else None
