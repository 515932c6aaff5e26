from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.builds.ids import check_build_id, check_customer, customer_of, new_build_id
from smidr_ci.errors import UsageError


@given(st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,46}[a-z0-9])?", fullmatch=True))
def test_a_customer_is_found_again_in_its_build_id(customer: str) -> None:
    build_id = new_build_id(customer)
    assert customer_of(build_id) == customer
    assert len(build_id) <= 64


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "Acme", "-a", "a-", "a\n", "a b", "ä", "a" * 49, "a\x00"]
)
def test_a_name_that_is_unfit_for_paths_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_customer(name)
    with pytest.raises(UsageError):
        check_build_id(f"{name}-12345678\n")
