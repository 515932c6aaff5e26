"""How fast and in how much memory a 200 MB console log is diagnosed.

Run: `python benchmarks/diagnosis.py [MEGABYTES]`. Two logs are made: a quiet one (notes and
compiler command lines, one failure) and a noisy one (the same with warnings and errors all over).
Goals: under 4 s on one core and under 80 MB.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Final

from smidr_ci.diagnosis.engine import diagnose

_NOTES: Final = (
    b"NOTE: Running task 2153 of 5120 "
    b"(/smidr/layers/oe-core/meta/recipes-core/zlib/zlib_1.3.bb:do_compile)\n"
    b"NOTE: recipe zlib-1.3-r0: task do_compile: Started\n"
    b"NOTE: recipe zlib-1.3-r0: task do_compile: Succeeded\n"
)
_COMMAND: Final = (
    b"| x86_64-poky-linux-gcc -m64 -march=core2 -fstack-protector-strong -O2 -D_FORTIFY_SOURCE=2"
    b" -Wformat -Wformat-security -Werror=format-security --sysroot=/smidr/build/tmp/work/core2-64"
    b"/demo/1.0/recipe-sysroot -c -o src/error_handling.o ../demo-1.0/src/error_handling.c\n"
)
_NOISE: Final = (
    b"| ../demo-1.0/src/a.c:12:3: warning: unused variable 'failed' [-Wunused-variable]\n"
    b"| checking for error_at_line... no\n"
    b"| ../demo-1.0/src/b.c:99:3: error: expected ';' before '}' token\n"
    b"WARNING: other-1.0-r0 do_package_qa: QA Issue: other rdepends on foo [build-deps]\n"
)
_FAILURE: Final = (
    b"ERROR: demo-1.0-r0 do_compile: oe_runmake failed\n"
    b"ERROR: Logfile of failure stored in: "
    b"/smidr/build/tmp/work/core2-64/demo/1.0/temp/log.do_compile.77\n"
    b"Log data follows:\n"
    b"| ../demo-1.0/src/main.c:3:10: fatal error: missing.h: No such file or directory\n"
    b"ERROR: Task (/smidr/layers/demo/recipes/demo_1.0.bb:do_compile) failed with exit code '1'\n"
)


class Log:
    """A log of `size` bytes that is made while it is read."""

    def __init__(self, block: bytes, size: int) -> None:
        self._pieces = self._make(block, size)

    @staticmethod
    def _make(block: bytes, size: int) -> Iterator[bytes]:
        yield _FAILURE
        chunk = block * max(1, (1 << 20) // len(block))
        for _ in range(max(1, size // len(chunk))):
            yield chunk

    def read(self, _size: int, /) -> bytes:
        """The next piece."""
        return next(self._pieces, b"")


def _measure(name: str, block: bytes, size: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    begun = time.perf_counter()
    result = diagnose(Log(block, size))  # type: ignore[arg-type]  # only `read` is used
    wall = time.perf_counter() - begun
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{name}: {size / 1e6:.0f} MB, {result.summary.lines} lines: {wall:.2f} s wall,"
        f" {usage.ru_utime - before:.2f} s CPU, peak {usage.ru_maxrss / 1024:.0f} MiB,"
        f" first finding: {result.findings[0].message}"
    )
    assert "missing.h" in result.findings[0].message


def main() -> None:
    """Measure each log in a process of its own."""
    size = int(sys.argv[1] if len(sys.argv) > 1 else 200) * 1_000_000
    quiet = _NOTES * 3 + _COMMAND * 6
    context = get_context("spawn")
    for name, block in (("quiet", quiet), ("noisy", quiet + _NOISE)):
        process = context.Process(target=_measure, args=(name, block, size))
        process.start()
        process.join()
        assert process.exitcode == 0


if __name__ == "__main__":
    main()
