"""Lines of a job's script as one shell script, for bash or any POSIX shell.

As on the official runner each line is shown and then run, and the first that fails ends it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from smidr_ci.text import printable

__all__ = ["LAUNCHER", "shell_text"]

LAUNCHER: Final = """\
# Runs the lines ($1) with their output in a file ($2); SIGTERM goes to all their processes.
trap 'trap "" TERM; kill -TERM 0' TERM
shell=sh
if command -v bash >/dev/null 2>&1; then shell=bash; fi
"$shell" "$1" >>"$2" 2>&1 </dev/null &
child=$!
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done
exit "$code"
"""

_HEAD: Final = """\
set -e
if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi
set +o noclobber
"""
_LOAD: Final = """\
if [ -f "$GITLAB_ENV" ]; then
    while IFS= read -r smidr_line || [ -n "$smidr_line" ]; do
        case ${smidr_line%%=*} in
            "$smidr_line" | '' | [0-9]* | *[!A-Za-z0-9_]*) ;;
            *) export "$smidr_line" ;;
        esac
    done <"$GITLAB_ENV"
    unset smidr_line
fi
"""


def shell_text(
    lines: Sequence[str],
    environment: Mapping[str, str],
    *,
    directory: str,
    load: str = "",
    save: str = "",
) -> str:
    """A script that runs the lines in `directory` with these variables.

    What earlier lines exported is read from the file `load`, what these export is written to
    `save` when the end is reached; both may be empty.
    """
    return "".join(_parts(lines, environment, directory, load, save))


def _parts(
    lines: Sequence[str], environment: Mapping[str, str], directory: str, load: str, save: str
) -> Iterator[str]:
    yield _HEAD
    for name, value in environment.items():
        yield f"export {name}={shlex.quote(value)}\n"
    yield f"cd -- {shlex.quote(directory)}\n"
    if load:
        file = shlex.quote(load)
        yield f'if [ -f {file} ]; then . {file}; cd -- "$PWD"; fi\n'
    yield _LOAD
    for line in lines:
        yield f"printf '%s\\n' {shlex.quote(_shown(line))}\n{line}\n"
    if save:
        yield f"export -p >{shlex.quote(save)}\n"


def _shown(line: str) -> str:
    first, *more = printable(line, keep_newlines=True).split("\n")
    note = " # collapsed multi-line command" if any(text.strip() for text in more) else ""
    return f"\x1b[32;1m$ {first}{note}\x1b[0;m"
