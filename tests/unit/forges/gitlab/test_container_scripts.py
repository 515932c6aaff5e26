"""Lines of a job's script: a container of the build's image, whose "program" runs on this host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from smidr_ci.builds.host import Host
from smidr_ci.builds.order import Order
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.errors import CancelledError, ConfigError, EngineError, FailureKind, SmidrError
from smidr_ci.files import make_marked_dir
from smidr_ci.forges.gitlab.container_scripts import ContainerScripts
from smidr_ci.forges.gitlab.ports import ScriptEnd, ScriptRun
from smidr_ci.trust import Trust
from tests.fakes.bench import Bench
from tests.fakes.job_log import RecordedLog
from tests.fakes.runtime import FakeContainer, FakeRuntime, run_command

CONFIG = "name: p\nlayers: [{name: bitbake, path: bitbake}]\nbuild: {image: i}\n"


def run_lines(container: FakeContainer) -> int:
    """The spec's command on this host, with the container's paths in its files replaced too."""
    for file in container.host_path("/smidr/lines").iterdir():
        file.write_text(container.with_host_paths(file.read_text()))
    return run_command(container)


@dataclass
class Site:
    root: Path
    log: RecordedLog = field(default_factory=RecordedLog)
    cancel: CancelToken = field(default_factory=CancelToken)
    leave: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.bench = Bench(self.root / "bench")
        self.host: Host = self.bench.host()
        self.runtime = FakeRuntime(run_lines)
        vars(self.host).update(runtime=self.runtime)
        self.folder = make_marked_dir(self.root / "jobs" / "gitlab-lab-42")
        self.project = make_marked_dir(self.root / "project")

    @property
    def scripts(self) -> ContainerScripts:
        return ContainerScripts(lambda: self.host)

    def script(self, *lines: str, name: str = "before", **changes: object) -> ScriptRun:
        order = Order("acme", CONFIG, "smidr.yaml", self.bench.project, is_confined=True)
        run = ScriptRun(name, lines, self.project, order, "gitlab-lab-42", self.folder)
        return replace(run, **changes)  # type: ignore[arg-type]  # its own fields

    def run(self, *lines: str, name: str = "before", **changes: object) -> ScriptEnd | None:
        script = self.script(*lines, name=name, **changes)
        return self.scripts.run(script, self.cancel, self.leave, self.log)

    @property
    def output(self) -> str:
        return self.log.data.decode()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.scripts.forget("gitlab-lab-42")


def test_lines_are_shown_and_run_in_the_project(site: Site) -> None:
    assert site.run("echo one > made", "cat made") == ScriptEnd(0, has_finished=True)
    assert (site.project / "made").read_text() == "one\n"
    assert site.output == "\x1b[32;1m$ echo one > made\x1b[0;m\n\x1b[32;1m$ cat made\x1b[0;m\none\n"


def test_the_first_line_that_fails_ends_them_with_its_code(site: Site) -> None:
    assert site.run("(exit 7)", "echo never") == ScriptEnd(7, has_finished=False)
    assert "\nnever" not in site.output


def test_a_pipe_that_fails_is_a_failure(site: Site) -> None:
    end = site.run("false | cat")
    assert end is not None
    assert end.code == 1


def test_an_early_exit_is_told(site: Site) -> None:
    assert site.run("exit 0", "echo never") == ScriptEnd(0, has_finished=False)


def test_81_later_lines_go_on_where_earlier_ones_stopped(site: Site) -> None:
    site.run("mkdir sub; cd sub", "export MOOD='a b'")
    site.run('echo "$MOOD in ${PWD##*/}"', name="after")
    assert "a b in sub\n" in site.output


def test_80_after_script_sees_only_what_was_written_to_gitlab_env(site: Site) -> None:
    site.run(
        "export MOOD=good", "echo 'KEPT=a b' >> \"$GITLAB_ENV\"", "echo '1bad=x' >> $GITLAB_ENV"
    )
    site.run('echo "$KEPT, ${MOOD:-none}"', name="after_script")
    assert "a b, none\n" in site.output


def test_80_what_was_written_to_gitlab_env_is_known_outside(site: Site) -> None:
    site.run("printf 'A=1\\nB=two words\\n=x\\n1C=x\\nno sign\\nA=3' >> \"$GITLAB_ENV\"")
    assert site.scripts.exports(site.folder) == {"A": "3", "B": "two words"}
    assert site.scripts.exports(site.root / "another") == {}


def test_80_a_link_in_the_place_of_gitlab_env_is_not_read(site: Site) -> None:
    (site.root / "secret").write_text("KEY=operators own")
    site.run(f'ln -sf {site.root / "secret"} "$GITLAB_ENV"')
    assert site.scripts.exports(site.folder) == {}


def test_values_reach_the_lines_byte_for_byte(site: Site) -> None:
    value = 'it\'s "$HOME" `x` \\ \n second\tline'
    site.run('printf %s "$VALUE" > value', environment={"VALUE": value})
    assert (site.project / "value").read_text() == value


def test_file_variables_are_files(site: Site) -> None:
    content = b"\x00first\nsecond\n"
    path = "/smidr/src.tmp/KEY"
    site.run('cp "$KEY" copy', environment={"KEY": path}, files={"KEY": content})
    assert (site.project / "copy").read_bytes() == content


def test_secrets_stand_in_no_command_and_no_environment_of_the_container(site: Site) -> None:
    site.run("true", environment={"PASSWORD": "hunter22"})
    (spec,) = site.runtime.started
    assert "hunter22" not in repr(spec)
    assert (site.folder / "lines").stat().st_mode & 0o077 == 0


def test_the_container_is_the_builds_but_for_caches_and_layers(site: Site) -> None:
    limits = site.host.agent.limits.model_copy(update={"memory_per_build": 1 << 30})
    agent = site.host.agent.model_copy(update={"limits": limits})
    kept = {name: vars(site.host)[name] for name in ("runtime", "images")}
    site.host = replace(site.host, agent=agent)
    vars(site.host).update(kept)
    site.run("true")
    (spec,) = site.runtime.started
    assert spec.user == site.host.user
    assert spec.memory_bytes == 1 << 30
    assert sorted(str(mount.target) for mount in spec.mounts) == [
        "/smidr/lines",
        "/smidr/out",
        "/smidr/src",
        "/smidr/src.tmp",
    ]
    writable = {str(mount.target) for mount in spec.mounts if mount.writable}
    assert "/smidr/lines" not in writable


def test_an_untrusted_job_has_the_limits_of_strangers(site: Site) -> None:
    trust = site.host.agent.trust.model_copy(update={"untrusted_network": "strangers"})
    agent = site.host.agent.model_copy(update={"trust": trust})
    kept = {name: vars(site.host)[name] for name in ("runtime", "images")}
    site.host = replace(site.host, agent=agent)
    vars(site.host).update(kept)
    script = site.script("true")
    stranger = replace(script, order=replace(script.order, trust=Trust.UNTRUSTED))
    site.scripts.run(stranger, site.cancel, site.leave, site.log)
    assert site.runtime.started[0].network == "strangers"


def test_a_cancel_lets_the_lines_clean_up(site: Site) -> None:
    threading.Timer(0.5, site.cancel.cancel, ("enough",)).start()
    with pytest.raises(CancelledError, match="enough"):
        site.run("trap 'echo cleaned' EXIT", "sleep 60")
    assert "cleaned\n" in site.output


def test_a_hard_cancel_kills_lines_that_do_not_listen(site: Site) -> None:
    threading.Timer(0.5, site.cancel.cancel, ("enough", CancelLevel.KILL)).start()
    with pytest.raises(CancelledError):
        site.run("trap '' TERM", "while :; do sleep 0.1; done")


def test_lines_that_take_too_long_end(site: Site) -> None:
    threading.Timer(0.5, site.bench.clock.advance, (11.0,)).start()
    with pytest.raises(CancelledError, match="longer than 10s") as caught:
        site.run("sleep 60", timeout_s=10.0)
    assert caught.value.kind is FailureKind.TIMEOUT


def test_a_job_that_was_cancelled_starts_no_container(site: Site) -> None:
    site.cancel.cancel("enough")
    with pytest.raises(CancelledError):
        site.run("true")
    assert site.runtime.started == []


def test_lines_run_on_without_us_and_none_runs_twice(site: Site) -> None:
    site.leave.set()
    lines = ("echo began >> began", "sleep 0.5", "echo done")
    assert site.run(*lines) is None
    site.leave.clear()
    shown = site.log.marks["lines_before"] if site.log.marks else 0
    assert site.run(*lines, shown_bytes=shown) == ScriptEnd(0, has_finished=True)
    assert (site.project / "began").read_text() == "began\n"
    assert len(site.runtime.started) == 1
    assert site.output.count("$ echo done") == 1
    assert site.output.endswith("\ndone\n")


def test_lines_that_ended_while_nobody_looked_are_told(site: Site) -> None:
    site.leave.set()
    assert site.run("echo all", "exit 3") is None
    (container,) = site.runtime.engine.containers.values()
    assert container.ended.wait(20)
    site.leave.clear()
    end = site.run("echo all", "exit 3", shown_bytes=site.log.marks.get("lines_before", 0))
    assert end is not None
    assert end.code == 3
    assert site.output.count("\nall\n") == 1


def test_what_earlier_lines_planted_leads_nowhere(site: Site) -> None:
    victim = site.root / "victim"
    victim.write_text("mine")
    site.run(
        f"ln -sf {victim} /smidr/src.tmp/KEY",
        f"ln -sf {victim} /smidr/out/after.log",
    )
    site.run("echo hello", name="after", files={"KEY": b"content"})
    assert victim.read_text() == "mine"
    assert (site.folder / "lines" / "files" / "KEY").read_bytes() == b"content"


def test_a_command_that_ran_out_of_memory_is_named_so(site: Site) -> None:
    def starve(container: FakeContainer) -> int:
        container.oom_killed = True
        return 137

    site.runtime.program = starve
    with pytest.raises(SmidrError, match="memory") as caught:
        site.run("true")
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY


def test_a_config_that_is_wrong_runs_no_line(site: Site) -> None:
    script = site.script("true")
    broken = replace(script, order=replace(script.order, config_text="name: [\n"))
    with pytest.raises(ConfigError):
        site.scripts.run(broken, site.cancel, site.leave, site.log)
    assert site.runtime.started == []


def test_an_engine_that_refuses_is_the_hosts_fault(site: Site) -> None:
    site.runtime.engine.refusal = "no more room"
    with pytest.raises(EngineError, match="no more room"):
        site.run("true")


def test_forget_and_sweep_remove_containers_of_lines_only(site: Site) -> None:
    site.run("true")
    assert site.runtime.engine.containers
    site.scripts.sweep(site.root / "jobs")
    assert site.runtime.engine.containers
    site.scripts.sweep(site.root / "elsewhere")
    assert not site.runtime.engine.containers
    site.run("true")
    site.scripts.forget("another")
    assert site.runtime.engine.containers
    site.scripts.forget("gitlab-lab-42")
    assert not site.runtime.engine.containers


def test_an_engine_that_is_away_does_not_disturb_the_end_of_a_job(site: Site) -> None:
    site.runtime.engine.is_reachable = False
    site.scripts.forget("gitlab-lab-42")
    site.runtime.engine.is_reachable = True
