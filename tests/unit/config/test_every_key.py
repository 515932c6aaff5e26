"""No key of `smidr.yaml` is without an example, and no example is without meaning."""

from __future__ import annotations

import pytest

from smidr_ci.config.base import Model
from smidr_ci.config.models import ProjectConfig
from tests.fakes.config_keys import EXAMPLES, Key, assert_effect, iter_keys, unproven

KEYS = tuple(iter_keys())


def test_every_key_has_an_example_and_every_example_a_key() -> None:
    assert {key.name for key in KEYS} == set(EXAMPLES)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_example_is_accepted_and_is_not_the_default(key: Key) -> None:
    if key.name == "config_version":
        pytest.skip("there is only one version of the format yet")
    assert_effect(key, ProjectConfig, lambda config: config)


def test_a_key_without_an_example_is_noticed() -> None:
    class Wider(ProjectConfig):
        novelty: int = 0

    with pytest.raises(KeyError, match="novelty"):
        list(iter_keys(Wider))


def test_a_key_without_a_consumer_is_noticed() -> None:
    class Small(Model):
        used: int = 0
        unused: int = 0

    keys = iter_keys(Small, {"used": 1, "unused": 1}, {})
    assert unproven(keys, {"used": "conf", "gone": "conf"}) == ["gone", "unused"]


def test_a_consumer_that_ignores_its_key_is_noticed() -> None:
    machine = next(key for key in KEYS if key.name == "base.machine")
    assert_effect(machine, ProjectConfig, lambda config: config.resolved_machine)
    with pytest.raises(AssertionError, match=r"base\.machine changes nothing"):
        assert_effect(machine, ProjectConfig, lambda config: config.base.distro)
