"""Keys made of strangers' names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.stores.keys import check_key, object_key

NAMES = st.text(st.characters(), max_size=400).filter(lambda text: text.strip("/"))


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_any_names_make_a_key_that_stays_inside(names: list[str]) -> None:
    key = object_key(*names)
    assert check_key(key) == key
    assert not {"", ".", ".."} & set(key.split("/"))
    assert len(key) <= 900
    assert key.isascii()


@given(NAMES, NAMES)
def test_different_names_never_share_a_key(one: str, other: str) -> None:
    def parts(name: str) -> list[str]:
        return [part for part in name.split("/") if part]

    assert (object_key(one) == object_key(other)) == (parts(one) == parts(other))


@pytest.mark.parametrize(
    "name",
    [
        "acme/acme-1234abcd/images/core-image-minimal-qemux86-64.rootfs.wic.gz",
        "universal/ab/sstate:zlib-native:x86_64-linux:1.3.1:r0:x86_64:12:abcd_populate.tar.zst.siginfo",
        ".hidden",
    ],
)
def test_usual_names_stay_as_they_are(name: str) -> None:
    assert object_key(name) == name


def test_a_strange_name_is_still_told_apart_by_people() -> None:
    assert object_key("my image.wic").startswith("my_image.wic-")
    assert object_key("../../etc/passwd").endswith("/etc/passwd")
