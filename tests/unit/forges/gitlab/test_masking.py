"""Secrets do not show, wherever a stream is cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.forges.gitlab.masking import Masker, phrases_of


def masked(pieces: list[bytes], secrets: list[str], prefixes: tuple[str, ...] = ()) -> bytes:
    masker = Masker(secrets, prefixes)
    return b"".join(map(masker.feed, pieces)) + masker.end()


def test_55_of_two_masked_values_the_longer_one_is_masked_whole() -> None:
    assert masked([b"a secret-and-more b secret c"], ["secret", "secret-and-more"]) == (
        b"a [MASKED] b [MASKED] c"
    )


def test_56_parameters_of_urls_are_masked() -> None:
    line = b"GET https://h/p?private_token=abc&x=1 and &X-Amz-Signature=0aF%2F done"
    assert masked([line], []) == (
        b"GET https://h/p?private_token=[MASKED]&x=1 and &X-Amz-Signature=[MASKED] done"
    )


def test_tokens_with_known_prefixes_are_masked_and_keep_their_prefix() -> None:
    line = b"glpat-abc.DEF_1= glcbt-64_x acme-tok123, glpat- end"
    assert masked([line], [], ("acme-",)) == (
        b"glpat-[MASKED] glcbt-[MASKED] acme-[MASKED], glpat- end"
    )


def test_a_possible_beginning_of_a_secret_waits_and_is_shown_in_the_end() -> None:
    masker = Masker(["password"])
    assert masker.feed(b"the passw") == b"the "
    assert masker.feed(b"age is") == b"passwage is"
    assert masker.feed(b" pass") == b" "
    assert masker.end() == b"pass"


def test_lines_of_a_long_secret_are_masked_one_by_one() -> None:
    key = "-----BEGIN KEY-----\nabcdefgh12345678\nshort\n"
    assert masked([b"  abcdefgh12345678\r\n short"], [key]) == b"  [MASKED]\r\n short"


def test_white_space_around_a_secret_and_empty_ones_do_not_count() -> None:
    assert phrases_of([" token \n", "", "  ", "token"]) == (b"token",)


SECRETS = ["abab", "ababb", "bba", "ab\nab", "glpat-ab"]
TEXT = st.lists(
    st.sampled_from([b"a", b"b", b"ab", b"\n", b"?private_token=", b"glpat-", b"&", b" ", b"bb"]),
    max_size=40,
).map(b"".join)


@given(TEXT, st.lists(st.integers(0, 200), max_size=12))
def test_it_does_not_matter_where_writes_are_cut(text: bytes, cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[begin:end] for begin, end in itertools.pairwise(borders)]
    assert masked(pieces, SECRETS) == masked([text], SECRETS)


@given(TEXT, st.integers(0, 100))
def test_a_masker_goes_on_from_what_was_stored(text: bytes, cut: int) -> None:
    first, second = Masker(SECRETS), Masker(SECRETS)
    shown = first.feed(text[:cut])
    second.load(json.loads(json.dumps(first.dump())))
    assert shown + second.feed(text[cut:]) + second.end() == masked([text], SECRETS)


@given(TEXT, st.lists(st.integers(0, 200), max_size=12))
def test_no_secret_is_ever_shown(text: bytes, cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[begin:end] for begin, end in itertools.pairwise(borders)]
    assert b"abab" not in masked(pieces, SECRETS)


@pytest.mark.timeout(60)
def test_long_secrets_and_many_writes_take_little_time() -> None:
    secret = ("x" * 63 + "y") * 1000
    masker = Masker([secret, *(f"secret-number-{index}" for index in range(50))])
    shown = b"".join(masker.feed(b"NOTE: Running task x" * 50) for _ in range(200))
    assert len(shown + masker.end()) == 20 * 50 * 200
