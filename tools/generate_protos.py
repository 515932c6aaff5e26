"""Writes smidr_ci/api/grpc/generated from proto/.

python tools/generate_protos.py           write it
python tools/generate_protos.py --check   exit 1 and name the files that are out of date
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from grpc_tools import protoc

_ROOT: Final = Path(__file__).resolve().parent.parent
_SOURCE: Final = "smidr/v1/smidr.proto"
_PACKAGE: Final = "smidr_ci.api.grpc.generated"
_IMPORT: Final = re.compile(r"^from smidr\.v1 import smidr_pb2 as \w+$", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write or check the generated files; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the gRPC code from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    is_check = parser.parse_args(arguments).check
    made = _generate()
    folder = _ROOT.joinpath(*_PACKAGE.split("."))
    stale = [name for name, text in made.items() if _is_stale(folder / name, text)]
    for name in stale:
        shown = (folder / name).relative_to(_ROOT)
        if is_check:
            print(f"{shown} is out of date; run: python tools/generate_protos.py")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(made[name], encoding="utf-8")
            print(f"wrote {shown}")
    return 1 if is_check and stale else 0


def _generate() -> dict[str, str]:
    """File name -> text."""
    with tempfile.TemporaryDirectory() as out:
        arguments = [f"-I{_ROOT / 'proto'}", f"-I{resources.files('grpc_tools') / '_proto'}"]
        outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", *arguments, *outputs, _SOURCE]) != 0:
            raise SystemExit(1)
        made = {path.name: path.read_text(encoding="utf-8") for path in Path(out).rglob("*.py*")}
    # protoc imports by the path of the .proto file, which is no package of ours.
    grpc_code = made["smidr_pb2_grpc.py"]
    made["smidr_pb2_grpc.py"] = _IMPORT.sub(
        lambda found: found[0].replace("smidr.v1", _PACKAGE), grpc_code
    )
    made["__init__.py"] = '"""Made from proto/ by tools/generate_protos.py; never edited."""\n'
    return dict(sorted(made.items()))


def _is_stale(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
