"""Which variables a build may be given."""

from __future__ import annotations

import pytest

from smidr_ci.config.base import MisfitsError
from smidr_ci.config.environment import check_environment_names, why_refused


@pytest.mark.parametrize(
    "name",
    [
        "TMPDIR", "BBSERVER", "BBPATH", "BUILDDIR", "PATH", "HOME", "PYTHONPATH", "PYTHONHOME",
        "LD_PRELOAD", "LD_LIBRARY_PATH", "BB_ENV_PASSTHROUGH", "BB_ENV_EXTRAWHITE", "BASH_ENV",
        "GIT_SSH_COMMAND", "SSH_AUTH_SOCK", "OECORE_NATIVE_SYSROOT", "SMIDR_HOME", "LC_ALL",
        "MACHINE", "DL_DIR", "1A", "A-B", "A=B", "", "Ä", "A\n", "A" * 200,
    ],
)  # fmt: skip
def test_variables_that_would_disturb_a_build_are_refused_with_a_reason(name: str) -> None:
    reason = why_refused(name)
    assert reason
    with pytest.raises(MisfitsError) as caught:
        check_environment_names({name: "x"})
    assert [fault.at for fault in caught.value.faults] == [(name,)]
    assert reason in caught.value.faults[0].message


@pytest.mark.parametrize("name", ["http_proxy", "CI", "GITHUB_SHA", "_X", "RELEASE_1", "LDFLAGS"])
def test_other_variables_are_allowed(name: str) -> None:
    assert check_environment_names({name: "x"}) == {name: "x"}


def test_a_variable_that_is_a_key_names_the_key() -> None:
    assert why_refused("MACHINE") == "use the key base.machine"


def test_there_is_an_end_to_the_number_of_variables() -> None:
    with pytest.raises(ValueError, match="256"):
        check_environment_names({f"V{number}": "" for number in range(300)})
