"""Values must not be able to leave their string."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.bitbake.quoting import assign, quote

# bb/parse/parse_py/ConfHandler.py, all releases: the end of an assignment.
_VALUE = re.compile(
    r"""(?!'[^']*'[^']*'$)(?!\"[^\"]*\"[^\"]*\"$)(?P<apo>['\"])(?P<value>.*)(?P=apo)$"""
)


def read_back(line: str) -> str:
    """What BitBake makes of a quoted value: no escapes, then expansion of `${@chr(N)}`."""
    found = _VALUE.match(line)
    assert found is not None, line
    return re.sub(r"\$\{@chr\((\d+)\)\}", lambda code: chr(int(code[1])), found["value"])


@given(st.text().filter(lambda text: "${" not in text))
def test_any_text_reads_back_as_itself(text: str) -> None:
    assert read_back(quote(text)) == text


@given(st.text())
def test_a_value_stays_on_its_line(text: str) -> None:
    line = assign("NAME", text)
    assert line.splitlines() == [line]
    assert not line.endswith("\\")


@pytest.mark.parametrize(
    "text",
    [
        '"',
        "'",
        'one " mark',
        "\"both\" and 'both'",
        "a\"b'c",
        "end\\",
        '"\nEVIL = "1',
        "'; EVIL = '1",
        "tab\tstays",
    ],
)
def test_quotation_marks_and_line_ends_are_kept_inside(text: str) -> None:
    assert read_back(quote(text)) == text


def test_bitbakes_own_variables_pass_through() -> None:
    assert quote("${TOPDIR}/tmp") == '"${TOPDIR}/tmp"'


@pytest.mark.parametrize("name", ["", "A B", 'A"', "A\n", "1A", "A = 1 #"])
def test_a_name_that_is_no_variable_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        assign(name, "1")
