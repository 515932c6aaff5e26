"""Variables as GitLab documents them: the last wins, one pass, files, masked values."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.forges.gitlab.payload import Variable
from smidr_ci.forges.gitlab.variables import expand, expand_text


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$A-${A}-$A_B", "1-1-"),
        ("$$A costs 5$ or $5", "$A costs 5$ or "),
        ("[$*$#$@$!$?$-$0]", "[]"),
        ("${UNKNOWN}${A:-x}$UNKNOWN", ""),
        ("${", ""),
        ("$ä$", "$ä$"),
        ("$TWICE", "$A"),
    ],
)
def test_references_are_replaced_in_one_pass(text: str, expanded: str) -> None:
    assert expand_text(text, {"A": "1", "TWICE": "$A"}) == expanded


def test_the_last_of_several_variables_wins_also_in_references() -> None:
    found = expand([Variable("X", "old"), Variable("Y", "$X"), Variable("X", "new")])
    assert dict(found) == {"X": "new", "Y": "new"}


def test_a_raw_value_stays_as_it_is() -> None:
    assert expand([Variable("A", "1"), Variable("P", "5$A", is_raw=True)])["P"] == "5$A"


def test_79_a_file_variable_is_the_path_of_its_file_also_in_references() -> None:
    found = expand(
        [Variable("KEY", "one\ntwo $A\n", is_file=True), Variable("OPT", "-i $KEY")],
        file_directory=Path("/tmp/p.tmp"),
    )
    assert found["KEY"] == "/tmp/p.tmp/KEY"
    assert found["OPT"] == "-i /tmp/p.tmp/KEY"
    assert found.files == {"KEY": "one\ntwo \n"}


def test_masked_values_are_known_before_and_after_expansion_and_when_replaced() -> None:
    found = expand(
        [
            Variable("A", "tail"),
            Variable("S", "first-secret", is_masked=True),
            Variable("S", "head-$A", is_masked=True),
        ]
    )
    assert set(found.secrets) == {"first-secret", "head-tail", "head-$A"}
    assert found.masked_keys == {"S"}


def test_names_that_no_shell_can_have_are_left_out() -> None:
    assert dict(expand([Variable("A-B", "1"), Variable("", "2"), Variable("1A", "3")])) == {}


def test_references_can_not_fill_the_memory() -> None:
    many = [Variable("BIG", "x" * 1_000_000), Variable("Y", "$BIG" * 10_000)]
    assert len(expand(many)["Y"]) <= 1024 * 1024


def test_a_flag_is_read_as_go_reads_it() -> None:
    found = expand([Variable("A", "T"), Variable("B", "False"), Variable("C", "yes")])
    assert found.flag("A")
    assert not found.flag("B", default=True)
    assert found.flag("C", default=True)
