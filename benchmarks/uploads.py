"""What it takes to bring a big image from the host to a forge, against curl with the same bytes.

    python -m benchmarks.uploads [--gigabytes 3] [--rounds 5] [--json FILE]

`zip`: an image that is compressed already goes into a zip and to GitLab's address while the zip is
made; curl sends that zip, which lies there ready, as the same form (`-F`). `blocks`: the same image
goes to a signed URL in blocks, with its SHA-256, as GitHub's artifacts do; curl sends it as a form
while sha256sum reads it.
The server is on loopback, a process of its own, and looks at nothing. smidr's figure is the upload
in a fresh process, without its imports; memory is that process's peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.samples import Bound, Comparison, Goal, in_turns, table
from benchmarks.site import REPOSITORY

__all__ = ["main", "upload_rows"]

_AS_CURL: Final = Goal(at_most_ratio=1.5)
_MEMORY_MB: Final = 150
_IMAGE: Final = "image.wic.zst"
_NOISE_BYTES: Final = 1 << 22


def upload_rows(
    folder: Path, gigabytes: float, rounds: int, note: Callable[[str], None]
) -> Iterator[Comparison | Bound]:
    """Both ways, each with its time against curl's and its memory."""
    image = folder / _IMAGE
    _fill(image, int(gigabytes * 1e9))
    archive = folder / "archive.zip"
    _pack(folder, archive)
    with _receiver() as url:
        for kind, form, name, words in (
            ("gitlab", archive, "curl -F", f"{gigabytes:g} GB, zip for GitLab"),
            ("github", image, "curl -F + sha256sum", f"{gigabytes:g} GB, blocks for GitHub"),
        ):
            peaks: list[int] = []
            curl = _curl(form, url, has_digest=kind == "github")
            contenders = {name: curl, "smidr": _smidr(kind, folder, url, peaks)}
            found = in_turns(contenders, rounds, note)
            yield Comparison(words, name, found[name], found["smidr"], _AS_CURL)
            yield Bound(words, max(peaks) / 1e6, "MB", at_most=_MEMORY_MB)


def _fill(image: Path, size: int) -> None:
    noise, left = Path("/dev/urandom"), size
    with noise.open("rb") as source, image.open("wb") as out:
        block = source.read(_NOISE_BYTES)
        while left:
            left -= out.write(block[:left])


def _pack(folder: Path, archive: Path) -> None:
    from smidr_ci.forges.gitlab.archive import zip_pieces  # noqa: PLC0415 - only the parent packs
    from smidr_ci.forges.gitlab.selection import Selection, Tree  # noqa: PLC0415 - the same

    with archive.open("wb") as out:
        for piece in zip_pieces(Selection(Tree(folder), [_IMAGE]), warn=print):
            out.write(piece.data)


@contextlib.contextmanager
def _receiver() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.receiver"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _curl(form: Path, url: str, *, has_digest: bool) -> Callable[[], float]:
    options = ["--silent", "--show-error", "--fail", "--output", "/dev/null"]
    commands = [["curl", *options, "--form", f"file=@{form}", f"{url}/form"]]
    if has_digest:
        commands.append(["sha256sum", str(form)])

    def run() -> float:
        begun = time.perf_counter()
        running = [subprocess.Popen(item, stdout=subprocess.DEVNULL) for item in commands]
        assert [process.wait() for process in running] == [0] * len(running)
        return time.perf_counter() - begun

    return run


def _smidr(kind: str, folder: Path, url: str, peaks: list[int]) -> Callable[[], float]:
    command = [sys.executable, "-m", "benchmarks.uploads", "--send", kind, str(folder), url]

    def run() -> float:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True
        )
        found = json.loads(done.stdout)
        peaks.append(found["peak_bytes"])
        return float(found["seconds"])

    return run


def _send(kind: str, folder: Path, url: str) -> dict[str, Any]:
    """What the fresh process does."""
    send = _to_gitlab(folder, url) if kind == "gitlab" else _to_github(folder, url)
    begun = time.perf_counter()
    send()
    seconds = time.perf_counter() - begun
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak is not None
    return {"seconds": seconds, "peak_bytes": int(peak[1]) * 1024}


def _to_gitlab(folder: Path, url: str) -> Callable[[], None]:
    from smidr_ci.cancel import CancelToken  # noqa: PLC0415 - not part of the time
    from smidr_ci.forges.gitlab.archive import zip_pieces  # noqa: PLC0415 - the same
    from smidr_ci.forges.gitlab.client import RunnerClient  # noqa: PLC0415 - the same
    from smidr_ci.forges.gitlab.replay import Replay  # noqa: PLC0415 - the same
    from smidr_ci.forges.gitlab.selection import Selection, Tree  # noqa: PLC0415 - the same
    from smidr_ci.forges.gitlab.sending import Delivery  # noqa: PLC0415 - the same
    from smidr_ci.forges.gitlab.transport import Transport  # noqa: PLC0415 - the same

    def send() -> None:
        client = RunnerClient(Transport(url))
        selection = Selection(Tree(folder), [_IMAGE])
        with Replay(zip_pieces(selection, warn=print), folder) as replay:
            delivery = Delivery(
                client=client,
                token="",
                url=client.artifacts_url(1),
                params={},
                file_name="archive.zip",
                replay=replay,
                cancel=CancelToken(),
                warn=print,
                patience_s=0,
            )
            answer = delivery.run()
        client.transport.close()
        assert answer.status == 201, answer

    return send


def _to_github(folder: Path, url: str) -> Callable[[], None]:
    from smidr_ci.cancel import CancelToken  # noqa: PLC0415 - not part of the time
    from smidr_ci.forges.github.blocks import BlockUpload  # noqa: PLC0415 - the same
    from smidr_ci.forges.github.transport import Transport  # noqa: PLC0415 - the same

    def send() -> None:
        image = folder / _IMAGE
        kind = "application/octet-stream"
        with Transport() as transport, image.open("rb", buffering=0) as stream:
            upload = BlockUpload(transport, f"{url}/blob?sig=x", kind, CancelToken())
            sent = upload.run(stream, image.stat().st_size)
        assert sent.size_bytes == image.stat().st_size

    return send


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 when a goal is not met."""
    parser = argparse.ArgumentParser(prog="benchmarks.uploads", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="where there is room for twice as much")
    parser.add_argument("--send", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.send:
        kind, folder, url = options.send
        sys.stdout.write(f"{json.dumps(_send(kind, Path(folder), url))}\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="smidr-benchmark-", dir=options.work) as work:
        rows = list(upload_rows(Path(work), options.gigabytes, options.rounds, _note))
    sys.stdout.write(f"{table(rows)}\n")
    if options.json:
        options.json.write_text(json.dumps({"rows": [row.to_dict() for row in rows]}, indent=1))
    return 0 if all(row.is_met is not False for row in rows) else 1


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
