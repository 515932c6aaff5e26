"""How many builds a host runs at once, by default and by what its operator says."""

from __future__ import annotations

import pytest

from smidr_ci.builds.slots import Amount, Policy, Waiting, policy_of
from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import ConfigError

GIB = 1024**3
VARIABLE = "SMIDR_MAX_CONCURRENT_BUILDS"


def policy(
    cpus: int = 16, memory: int = 64, environ: dict[str, str] | None = None, **limits: object
) -> Policy:
    agent = AgentConfig.model_validate({"limits": limits})
    return policy_of(agent, environ or {}, cpus=cpus, memory_bytes=memory * GIB)


@pytest.mark.parametrize(
    ("cpus", "memory", "builds"),
    [(1, 1, 1), (2, 23, 1), (15, 64, 1), (16, 64, 2), (32, 64, 4), (64, 16, 1), (64, 256, 8)],
)
def test_by_default_a_build_has_eight_cpus_and_eight_gigabytes(
    cpus: int, memory: int, builds: int
) -> None:
    assert policy(cpus, memory).max_builds == builds


@pytest.mark.parametrize(
    ("cpus", "per_build", "builds"),
    [(8, 2, 4), (8, 3, 2), (2, 8, 1), (3, 0.1, 30), (4, 1.5, 2), (4096, 0.1, 1000)],
)
def test_with_cpus_per_build_as_many_run_as_the_cpus_hold(
    cpus: int, per_build: float, builds: int
) -> None:
    assert policy(cpus, cpus_per_build=per_build).max_builds == builds


def test_the_environment_wins_over_the_file_and_the_file_over_the_default() -> None:
    assert policy(max_concurrent_builds=5).max_builds == 5
    assert policy(environ={VARIABLE: " 7 "}, max_concurrent_builds=5).max_builds == 7
    assert policy(environ={VARIABLE: ""}, max_concurrent_builds=5).max_builds == 5


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1001", "9" * 5000, "٣", "0x10"])
def test_a_variable_that_is_no_number_of_builds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="which is no number of builds") as caught:
        policy(environ={VARIABLE: text})
    assert caught.value.where == VARIABLE
    assert len(caught.value.message) < 100


def test_the_memory_of_builds_leaves_a_tenth_of_the_host_by_default() -> None:
    assert policy(memory=100).memory_bytes == 90 * GIB
    assert policy(memory=100, memory_budget="120G").memory_bytes == 120 * GIB


def test_cpus_are_counted_unless_the_number_of_builds_was_chosen() -> None:
    assert policy(cpus=16).cpus == 16
    assert policy(cpus=16, cpus_per_build=4).cpus == 16
    assert policy(cpus=16, cpus_per_build=16, max_concurrent_builds=4).cpus is None
    assert policy(cpus=16, environ={VARIABLE: "4"}).cpus is None


def test_customers_have_the_common_limit_or_their_own() -> None:
    limits = policy(builds_per_customer=2, customers={"acme": 5})
    assert [limits.limit_of(name) for name in ("acme", "bravo")] == [5, 2]


def test_a_build_counts_its_limits_or_its_share_and_never_more_than_all() -> None:
    limits = Policy(4, 20 * GIB, cpus=8)
    assert limits.need_of(Waiting("a-1", "a", 1)) == Amount(5 * GIB, 2000)
    assert limits.need_of(Waiting("a-1", "a", 1, 7 * GIB, 0.5)) == Amount(7 * GIB, 500)
    assert limits.need_of(Waiting("a-1", "a", 1, 64 * GIB, 32)) == Amount(20 * GIB, 8000)


def test_only_a_build_with_more_memory_than_all_may_have_is_told_of_it() -> None:
    limits = Policy(4, 20 * GIB)
    assert limits.check_fits(Waiting("a-1", "a", 1)) is None
    assert limits.check_fits(Waiting("a-1", "a", 1, 20 * GIB)) is None
    said = limits.check_fits(Waiting("a-1", "a", 1, 64 * GIB))
    assert said is not None
    assert said.startswith("may use 64.0 GiB")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"max_concurrent_builds": 0}, "greater than or equal to 1"),
        ({"max_concurrent_builds": 1001}, "less than or equal to 1000"),
        ({"builds_per_customer": 0}, "greater than or equal to 1"),
        ({"customers": {"Acme": 1}}, "not a customer's name"),
        ({"customers": {"acme": 0}}, "greater than or equal to 1"),
        ({"max_memory_pressure": 101}, "less than or equal to 100"),
        ({"min_free_disk_percent": 100}, "less than or equal to 99"),
        ({"memory_budget": 0}, "out of range"),
    ],
)
def test_limits_that_make_no_sense_are_refused(text: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AgentConfig.model_validate({"limits": text})
