"""What we write, read by BitBake's own parser (from the wheel), on the host."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smidr_ci.bitbake.conf import ConfInputs, render_bblayers_conf, render_local_conf
from smidr_ci.bitbake.quoting import assign
from smidr_ci.config.models import ProjectConfig
from smidr_ci.layers.model import LayerSet
from tests.fakes.bitbake_site import check_out

pytestmark = pytest.mark.bitbake

# Reads {"conf": text, "names": [...]} per line, answers with the expanded values.
_SERVER = """
import json, os, sys, tempfile
sys.path.insert(0, sys.argv[1])
import bb, bb.data, bb.data_smart, bb.parse, bb.parse.parse_py
for line in sys.stdin:
    asked = json.loads(line)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "local.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(asked["conf"])
        d = bb.data_smart.DataSmart()
        d.setVar("TOPDIR", "/top")
        try:
            bb.parse.handle(path, d, False)
            answer = {name: d.getVar(name) for name in asked["names"]}
        except Exception as error:
            answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
"""


class Parser:
    """BitBake's parser in a process of its own."""

    def __init__(self, lib: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER, str(lib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def values(self, conf: str, *names: str) -> dict[str, str]:
        """The expanded values of variables after the text was read as a conf file."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"conf": conf, "names": names}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def close(self) -> None:
        """End the process."""
        with self._process as process:
            assert process.stdin
            process.stdin.close()


@pytest.fixture(scope="module")
def parser(wheel_bitbake_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parser]:
    bitbake = check_out(str(wheel_bitbake_repo), "main", tmp_path_factory.mktemp("bb") / "wheel")
    found = Parser(bitbake / "lib")
    yield found
    found.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "${" not in text))
def test_any_text_survives_bitbakes_parser(parser: Parser, text: str) -> None:
    conf = f"{assign('BEFORE', 'b')}\n{assign('VALUE', text)}\n{assign('AFTER', 'a')}\n"
    found = parser.values(conf, "BEFORE", "VALUE", "AFTER", "EVIL")
    assert found == {"BEFORE": "b", "VALUE": text, "AFTER": "a", "EVIL": None}


@settings(max_examples=200, deadline=None)
@given(st.text("\"'\\ #=${}@\n\r\tEVIL", max_size=12).filter(lambda text: "${" not in text))
def test_marks_and_line_ends_survive_bitbakes_parser(parser: Parser, text: str) -> None:
    found = parser.values(f"{assign('VALUE', text)}\n{assign('AFTER', 'a')}\n", "VALUE", "AFTER")
    assert found == {"VALUE": text, "AFTER": "a"}


def test_whole_files_are_read_as_meant(parser: Parser) -> None:
    config = ProjectConfig.model_validate(
        {
            "name": "demo",
            "base": {"machine": "qemuarm64", "distro": "poky"},
            "advanced": {
                "premirrors": ["https?://.*/.* http://mirror/"],
                "license_flags": ["commercial"],
            },
            "features": {"inherit_classes": ["rm_work"]},
            "local_conf": ['MACHINE = "last"', 'LONG = "a \\', 'b"'],
        }
    )
    layers = LayerSet((), (), PurePosixPath("/bb"), (2, 19))
    inputs = ConfInputs(config, layers, threads=2, make_jobs=4)
    text = render_bblayers_conf(inputs) + render_local_conf(inputs)
    names = ("MACHINE", "DISTRO", "TMPDIR", "PREMIRRORS", "INHERIT", "BBPATH", "LONG")
    found = parser.values(f"PREMIRRORS = 'old'\n{text}", *names)
    assert found == {
        "MACHINE": "last",
        "DISTRO": "poky",
        "TMPDIR": "/top/tmp",
        "PREMIRRORS": "https?://.*/.* http://mirror/ old",
        "INHERIT": " rm_work",
        "BBPATH": "/top",
        "LONG": "a b",
    }
