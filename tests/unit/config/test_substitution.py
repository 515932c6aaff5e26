"""`${VAR}` in a config: listed names only, one pass, nothing else touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.config.substitution import Substitution, SubstitutionError

ENVIRON = {
    "YOCTO_A": "alpha",
    "YOCTO_EMPTY": "",
    "SMIDR_B": "${YOCTO_A}",
    "HOME": "/root",
    "SITE": "north",
    "SMIDR_API_TOKEN": "hush",
    "YOCTO_SIGNING_KEY": "hush",
}


def apply(text: str, *extra: str) -> str:
    return Substitution(ENVIRON, extra).apply(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${YOCTO_A}", "alpha"),
        ("a${YOCTO_A}b${YOCTO_A}", "aalphabalpha"),
        ("${YOCTO_A:-x}", "alpha"),
        ("${YOCTO_NONE:-x}", "x"),
        ("${YOCTO_NONE:-}", ""),
        ("${YOCTO_EMPTY:-x}", "x"),
        ("${YOCTO_EMPTY}", ""),
        ("${YOCTO_A:+y}", "y"),
        ("${YOCTO_NONE:+y}", ""),
        ("${YOCTO_EMPTY:+y}", ""),
        ("${YOCTO_NONE:-${YOCTO_NONE2:-deep}}", "deep"),
        ("${YOCTO_NONE:-${YOCTO_A}}", "alpha"),
        ("${YOCTO_A:+${YOCTO_A}-${YOCTO_NONE:-z}}", "alpha-z"),
        ("${YOCTO_NONE:-${TOPDIR}/x}", "${TOPDIR}/x"),
        ("${YOCTO_NONE:-${@{'a': 1}['a']}}", "${@{'a': 1}['a']}"),
        ("${YOCTO_A:-${YOCTO_NONE}}", "alpha"),
        ("${YOCTO_NONE:+${YOCTO_NONE}}", ""),
        ("${TOPDIR}/${YOCTO_A}", "${TOPDIR}/alpha"),
    ],
)
def test_listed_variables_are_replaced(text: str, result: str) -> None:
    assert apply(text) == result


@pytest.mark.parametrize(
    "text",
    [
        "${TOPDIR}", "${HOME}", "${MACHINE}", "${@d.getVar('X')}", "$YOCTO_A", "$$", "${", "${}",
        "${ YOCTO_A}", "}{", "$ {YOCTO_A}", "${yocto_a}", "${SITE}", "%{YOCTO_A}", "${@{}}",
    ],
)  # fmt: skip
def test_everything_else_passes_through_byte_for_byte(text: str) -> None:
    assert apply(text) == text


def test_the_operator_can_list_more_names() -> None:
    assert apply("${SITE}", "SITE") == "north"


def test_a_value_is_not_substituted_again() -> None:
    assert apply("${SMIDR_B}") == "${YOCTO_A}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${YOCTO_NONE}", "YOCTO_NONE is not set"),
        ("${YOCTO_NONE:-${YOCTO_NONE2}}", "YOCTO_NONE2 is not set"),
        ("${YOCTO_A:-x", "not closed"),
        ("${YOCTO_A", "not understood"),
        ("${YOCTO_A:?x}", "not understood"),
        ("${YOCTO_A-x}", "not understood"),
        ("${YOCTO_NONE:-" * 30 + "}" * 30, "nested deeper"),
    ],
)
def test_what_can_not_be_replaced_is_an_error(text: str, message: str) -> None:
    with pytest.raises(SubstitutionError, match=message):
        apply(text)


@pytest.mark.parametrize(
    "text",
    ["${SMIDR_API_TOKEN}", "${SMIDR_API_TOKEN:-x}", "${YOCTO_SIGNING_KEY}",
     "${YOCTO_NONE:+${SMIDR_API_TOKEN}}", "${SMIDR_DB_PASSWORD:+x}"],
)  # fmt: skip
def test_a_secret_is_never_put_into_a_config(text: str) -> None:
    with pytest.raises(SubstitutionError, match="looks like a secret") as caught:
        apply(text)
    assert "hush" not in str(caught.value)


def test_the_operator_can_not_list_a_secret_of_smidr_by_mistake() -> None:
    with pytest.raises(SubstitutionError, match="looks like a secret"):
        apply("${SMIDR_API_TOKEN}", "SMIDR_API_TOKEN")


def test_many_uses_of_a_long_value_come_to_an_end() -> None:
    substitution = Substitution({"YOCTO_LONG": "x" * 60_000})
    with pytest.raises(SubstitutionError, match="too long"):
        substitution.apply("${YOCTO_LONG}" * 50)
    with pytest.raises(SubstitutionError, match="1 MiB"):
        [substitution.apply("${YOCTO_LONG}") for _ in range(50)]


@given(st.text(alphabet="${}:-+@ YOCTO_AB", max_size=60))
def test_any_text_is_substituted_or_refused(text: str) -> None:
    try:
        result = Substitution({"YOCTO_A": "1"}).apply(text)
    except SubstitutionError:
        return
    if "${YOCTO" not in text:
        assert result == text
