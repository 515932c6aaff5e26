"""Records the failures of `tests/data/failure-cases/` anew: real BitBake, in containers.

python tools/record_failures.py [NAME[-RELEASE]...]

Needs Docker Engine and git repositories with the release branches: SMIDR_TEST_OE_CORE and
SMIDR_TEST_BITBAKE name them, the public ones are cloned otherwise. The image is made from
`tests/data/failure-layers/Dockerfile` unless SMIDR_TEST_OE_IMAGE names one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from tools.failure_builds import DATA, Run, Site  # noqa: E402 - needs the path above
from tools.failure_cases import RELEASES, Expected, read_cases  # noqa: E402 - needs the path above

_MAX_SIZE: Final = 50_000
_MAX_LINE: Final = 6_000


def main(arguments: list[str]) -> int:
    """Record the named cases, or all; the number of those that went wrong."""
    parser = argparse.ArgumentParser(description="Record real failures for the tests of diagnosis.")
    parser.add_argument("names", nargs="*", help="a case, or a case and a release: NAME-RELEASE")
    parser.add_argument("--new", action="store_true", help="only those without a recording")
    parser.add_argument("--expect", action="store_true", help="keep logs, write expectations anew")
    parser.add_argument("--work", type=Path, help="keep checkouts and builds in this folder")
    options = parser.parse_args(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="record-failures-"))
    image = os.environ.get("SMIDR_TEST_OE_IMAGE") or ("" if options.expect else _make_image())
    site = Site(image, work.resolve())
    runs = [run for run in _runs(site) if _is_wanted(run, options.names, options.new)]
    problems = 0
    for run in runs:
        problem = _expect_anew(run) if options.expect else _record(run, site)
        print(f"{run.name}: {problem or 'recorded'}", flush=True)
        problems += bool(problem)
    if not options.work:
        shutil.rmtree(work, ignore_errors=True)
    return min(problems, 100)


def _runs(site: Site) -> list[Run]:
    return [
        Run(case, release, site.work / "builds" / f"{case.name}-{release}")
        for case in read_cases(DATA / "failure-cases")
        for release in case.releases
    ]


def _is_wanted(run: Run, names: list[str], is_new: bool) -> bool:
    if is_new and _is_complete(run):
        return False
    return not names or run.name in names or run.case.name in names


def _is_complete(run: Run) -> bool:
    path = run.kept / "expect.json"
    log = run.kept / run.case.expected_in(run.release).message_log
    return path.exists() and log.exists() and "category" in json.loads(path.read_text())


def _record(run: Run, site: Site) -> str:
    """Build and keep the logs; what went wrong, if anything."""
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    run.write()
    try:
        run.build(site)
    except subprocess.TimeoutExpired:
        return "did not end in time"
    if not (run.folder / "exit-code").exists():
        return "the container did not start"
    code = int((run.folder / "exit-code").read_text())
    shutil.rmtree(run.kept, ignore_errors=True)
    run.kept.mkdir(parents=True)
    (run.kept / "expect.json").write_text(json.dumps({"exit_code": code}) + "\n")
    _keep_logs(run)
    return _expect_anew(run)


def _keep_logs(run: Run) -> None:
    """Copy console and task logs."""
    logs = {"console.log": run.folder / "console.log"}
    for pattern in run.case.task_logs:
        for path in sorted((run.folder / "build").glob(pattern)):
            if not path.is_symlink():
                logs[re.sub(r"\.\d+$", "", path.name)] = path
    for name, path in logs.items():
        text = path.read_bytes().decode("utf-8", "replace")
        (run.kept / name).write_text(_shorten(text), encoding="utf-8")


def _shorten(text: str) -> str:
    """Leave out the middle of a long log, and of a long line: always at the same places."""
    lines = [_cut(line) for line in text.splitlines(keepends=True)]
    if sum(map(len, lines)) <= _MAX_SIZE:
        return "".join(lines)
    head = _fitting(lines, _MAX_SIZE // 2)
    tail = _fitting(lines[::-1], _MAX_SIZE // 2)
    left_out = len(lines) - len(head) - len(tail)
    return "".join([*head, f"[{left_out} lines left out]\n", *tail[::-1]])


def _cut(line: str) -> str:
    if len(line) <= _MAX_LINE:
        return line
    half = _MAX_LINE // 2
    return f"{line[:half]}[{len(line) - _MAX_LINE} characters left out]{line[-half:]}"


def _fitting(lines: list[str], size: int) -> list[str]:
    sizes = itertools.accumulate(map(len, lines))
    return [line for line, total in zip(lines, sizes, strict=True) if total <= size]


def _expect_anew(run: Run) -> str:
    """Write `expect.json` for the kept logs; what is wrong with them, if anything."""
    path = run.kept / "expect.json"
    expected = run.case.expected_in(run.release)
    if not path.exists() or not (run.kept / expected.message_log).exists():
        return "was never recorded"
    code = json.loads(path.read_text())["exit_code"]
    if (code == 0) != (expected.category is None):
        return f"ended with exit code {code}"
    console = (run.kept / "console.log").read_text(encoding="utf-8")
    source = (run.kept / expected.message_log).read_text(encoding="utf-8")
    message = _line_that_matches(expected.message, source)
    also = [_line_that_matches(pattern, console) for pattern in expected.also]
    if message is None or None in also:
        return f"no line matches {expected.message!r} or one of {expected.also!r}"
    values = expected.model_dump(exclude={"message_log"})
    values |= {"message": message, "also": also, "exit_code": code}
    file = _file(expected, console)
    values |= {"file": file, "version": expected.version or _version(file)}
    if isinstance(expected.line, str):
        values["line"] = int(_group(expected.line, console) or 0)
    values |= {"release": run.release, "bitbake": RELEASES[run.release]}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return ""


_RESIDUE: Final = re.compile(r"^(?:(?:Loading cache|Parsing recipes|Initialising tasks)\.\.\.)+")


def _line_that_matches(pattern: str, text: str) -> str | None:
    lines = (line for line in text.splitlines() if pattern and re.search(pattern, line))
    found = next((_RESIDUE.sub("", line).strip() for line in lines), None)
    return found if pattern else ""


def _file(expected: Expected, console: str) -> str | None:
    """What the log prints, or the recipe as the file to open when it prints none."""
    if expected.file is None and expected.task and expected.recipe:
        recipe = re.escape(expected.recipe)
        return _group(rf"ERROR: Task \((\S*/{recipe}(?:_\S*)?\.bb):{expected.task}\)", console)
    return _group(expected.file, console) if "(" in (expected.file or "") else expected.file


def _group(pattern: str | None, text: str) -> str | None:
    found = re.search(pattern or "", text)
    return found[1] if found else None


def _version(file: str | None) -> str | None:
    """PV out of the recipe's file name."""
    found = re.search(r"_([^_/]+)\.bb$", file or "")
    return found[1] if found else None


def _make_image() -> str:
    name = "smidr-record-failures"
    command = ["docker", "build", "--quiet", f"--tag={name}", str(DATA / "failure-layers")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
