"""What an untrusted build gets of the host, and what it leaves there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.environment import build_environment
from smidr_ci.builds.order import Order, order_of
from smidr_ci.builds.stranger import logins_for, settings_for, without_logins
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig
from smidr_ci.errors import ConfigError
from smidr_ci.layers.credentials import ChildAccess
from smidr_ci.layers.urls import parse_url
from smidr_ci.trust import Trust
from tests.fakes.bench import Bench, Seen
from tests.fakes.runtime import FakeContainer

ROOMY = {"min_free_disk": 1, "min_free_disk_percent": 0}
PLAIN = ProjectConfig.model_validate({"name": "project", "build": {"image": "image"}})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def operator(**sections: object) -> AgentConfig:
    return AgentConfig.model_validate({"limits": ROOMY, **sections})


def mounts(seen: Seen) -> dict[str, bool]:
    assert seen.spec is not None
    return {str(mount.target): mount.writable for mount in seen.spec.mounts}


def source(seen: Seen, target: str) -> Path:
    assert seen.spec is not None
    (found,) = (mount.source for mount in seen.spec.mounts if str(mount.target) == target)
    return found


def test_it_writes_to_caches_of_its_own_and_reads_the_shared_ones(bench: Bench) -> None:
    trusted = bench.build(PLAIN)
    seen = bench.build(PLAIN, trust=Trust.UNTRUSTED)
    shared = {"/smidr/shared/downloads", "/smidr/shared/sstate"}
    assert mounts(seen) == mounts(trusted) | dict.fromkeys(shared, False)
    for name in ("downloads", "sstate"):
        assert source(seen, f"/smidr/shared/{name}") == source(trusted, f"/smidr/{name}")
        assert source(seen, f"/smidr/{name}") != source(trusted, f"/smidr/{name}")


def test_its_conf_differs_from_a_trusted_ones_by_the_mirror_only(bench: Bench) -> None:
    trusted = bench.build(PLAIN).files["local.conf"].splitlines()
    untrusted = bench.build(PLAIN, trust=Trust.UNTRUSTED).files["local.conf"].splitlines()
    more = [line for line in untrusted if line not in trusted]
    assert [line for line in trusted if line not in untrusted] == []
    mirror = "file://.* file:///smidr/shared/sstate/PATH "
    assert [line for line in more if not line.startswith("#")] == [
        f'SSTATE_MIRRORS:prepend = "{mirror}"'
    ]


def test_it_sees_nothing_shared_when_the_operator_says_so(bench: Bench) -> None:
    agent = operator(trust={"untrusted_may_read_caches": False})
    seen = bench.build(PLAIN, agent, Trust.UNTRUSTED)
    assert not [target for target in mounts(seen) if "shared" in target]
    assert "SSTATE_MIRRORS:prepend" not in seen.files["local.conf"]


def test_builds_of_one_pull_request_hand_their_caches_on(bench: Bench) -> None:
    found: list[bool] = []
    program = bench.program

    def leave(container: FakeContainer) -> int:
        if container.spec.role == "build":
            left = container.host_path("/smidr/sstate/left")
            found.append(left.exists())
            left.write_text("left")
        return program(container)

    bench.program = leave  # type: ignore[method-assign] # the fake's own seam
    for key in ("forge:a/b!1", "forge:a/b!1", "forge:a/b!2", "", ""):
        bench.build(PLAIN, trust=Trust.UNTRUSTED, private_cache_key=key)
    assert found == [False, True, False, False, False]


def test_its_parse_cache_is_for_nobody_and_its_workspace_apart(bench: Bench) -> None:
    program = bench.program

    def parse(container: FakeContainer) -> int:
        if container.spec.role == "build":
            cache = container.host_path("/smidr/build/tmp/cache/bb_cache.dat")
            cache.parent.mkdir(parents=True)
            cache.write_text("a pickle")
        return program(container)

    bench.program = parse  # type: ignore[method-assign] # the fake's own seam
    seen = bench.build(PLAIN, trust=Trust.UNTRUSTED)
    saved = bench.host().home.parse_cache
    assert not list(saved.rglob("bb_cache.dat"))
    assert source(seen, "/smidr/build").parent.parent.name == "untrusted-default-project"
    bench.build(PLAIN)
    assert list(saved.rglob("bb_cache.dat"))


def test_it_can_not_have_old_artifacts_of_others_removed(bench: Bench) -> None:
    old = bench.build(PLAIN).record
    bench.clock.advance(30 * 86_400)
    config = PLAIN.model_copy(update={"cache": PLAIN.cache.model_copy(update={"retention": 1})})
    bench.build(config, trust=Trust.UNTRUSTED)
    assert bench.host().artifacts_of(old).is_dir()
    bench.build(config)
    assert not bench.host().artifacts_of(old).exists()


def test_it_sees_no_variable_of_the_operators_and_no_login_of_a_proxy() -> None:
    agent = AgentConfig.model_validate({"environment": ["DEPLOY_KEY"]})
    config = ProjectConfig.model_validate({"name": "p", "environment": {"OWN": "own"}})
    environ = {
        "DEPLOY_KEY": "secret",
        "http_proxy": "http://user:secret@proxy:3128/",
        "no_proxy": "localhost,@odd",
    }
    assert build_environment(config, agent, environ, Trust.UNTRUSTED) == {
        "http_proxy": "http://proxy:3128/",
        "no_proxy": "localhost,@odd",
        "OWN": "own",
    }
    assert "secret" in build_environment(config, agent, environ)["DEPLOY_KEY"]


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://proxy:1", "http://proxy:1"),
        ("http://a:b@c@proxy:1/x", "http://proxy:1/x"),
        ("user:secret@proxy:1", None),
        ("http://[::1:secret@x", None),
    ],
)
def test_a_proxy_loses_its_login_or_is_left_out(proxy: str, shown: str | None) -> None:
    assert without_logins({"https_proxy": proxy}).get("https_proxy") == shown


def test_it_sees_no_mirror_of_the_operators_with_a_login(bench: Bench) -> None:
    pattern, shown = "https?://.*/.*", "https://open.example.com/"
    secret = "https://me:secret@closed.example.com/"
    agent = operator(
        cache={
            "premirrors": [f"{pattern} {secret}", f"{pattern} {shown}"],
            "sstate_mirrors": [f"file://.* {secret}PATH"],
        }
    )
    text = bench.build(PLAIN, agent, Trust.UNTRUSTED).files["local.conf"]
    assert shown in text
    assert "secret" not in text
    assert text.count("SSTATE_MIRRORS =") == 0
    assert "secret" in bench.build(PLAIN, agent).files["local.conf"]


def test_its_limits_are_the_lower_ones(bench: Bench) -> None:
    agent = operator(
        limits={**ROOMY, "cpus_per_build": 4, "memory_per_build": "4G"},
        trust={"untrusted_cpus": 8, "untrusted_memory": "2G", "untrusted_time_limit": 10},
        engine={"network": "builds"},
    )
    narrowed = settings_for(agent, Trust.UNTRUSTED)
    assert narrowed.limits.cpus_per_build == 4
    assert narrowed.limits.memory_per_build == 2 << 30
    assert narrowed.engine.network == "builds"
    assert settings_for(agent, Trust.TRUSTED) is agent
    limits = {"build_timeout": 60}
    config = ProjectConfig.model_validate(
        {"name": "project", "build": {"image": "image"}, "advanced": limits}
    )
    plan = bench.build(config, agent, Trust.UNTRUSTED).files["plan.json"]
    assert json.loads(plan)["time_limit_s"] == 600
    assert json.loads(bench.build(config, agent).files["plan.json"])["time_limit_s"] == 3600


def test_git_shows_a_strangers_layers_no_login_but_those_that_are_allowed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    (tmp_path / ".netrc").write_text("machine third.example.com login me password secret\n")
    entries = [
        {"host": host, "token_file": str(token)} for host in ("git.example.com", "open.example.com")
    ]
    agent = AgentConfig.model_validate(
        {
            "git": {"credentials": entries},
            "trust": {"untrusted_may_use_credentials": ["open.example.com"]},
        }
    )
    logins = logins_for(agent, {"HOME": str(tmp_path)})
    assert logins.access(parse_url("https://git.example.com/x")) == ChildAccess()
    assert logins.access(parse_url("https://third.example.com/x")) == ChildAccess()
    assert logins.access(parse_url("https://open.example.com/x")).secrets == ("secret",)
    ssh = logins.access(parse_url("ssh://git@git.example.com/x")).environment
    assert "PubkeyAuthentication=no" in ssh["GIT_SSH_COMMAND"]


def an_order(bench: Bench, text: str = "name: project\nbuild: {image: image}\n") -> Order:
    return Order(
        customer="acme",
        config_text=text,
        config_name="smidr.yaml",
        directory=bench.project,
        clean_image=True,
        keep_workspace=True,
        is_confined=False,
        trust=Trust.UNTRUSTED,
        private_cache_key="forge:a/b!1",
    )


def test_an_untrusted_order_is_confined_whatever_it_says(bench: Bench) -> None:
    text = "name: project\nbuild: {image: image}\ndirectories: {sstate: mine}\n"
    host = bench.host()
    with pytest.raises(ConfigError, match="this host's to choose"):
        request_for(host, an_order(bench, text))
    request = request_for(host, an_order(bench))
    assert (request.is_confined, request.clean_image, request.keep_workspace) == (
        True,
        False,
        False,
    )


def test_trust_survives_the_store(bench: Bench) -> None:
    order = an_order(bench)
    record = replace(
        bench.build(PLAIN, trust=Trust.UNTRUSTED).record,
        customer=order.customer,
        config_text=order.config_text,
        config_path=order.config_name,
        requested_by=order.requested_by,
        targets=order.targets,
        order=json.loads(json.dumps(order.to_json())),
    )
    assert record.trust is Trust.UNTRUSTED
    assert order_of(record) == order
    host = bench.host()
    assert host.store.get(record.build_id).trust is Trust.UNTRUSTED
    assert host.store.list()[0].trust is Trust.UNTRUSTED
    host.store.close()
