"""The driver against a fake release, as a process of its own on this host."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.fakes.bitbake_release import DriverSite

INTERRUPTIBLE = """
def told(number, frame):
    open("told", "a").write("x")
signal.signal(signal.SIGINT, told)
open("ready", "w").close()
"""
STUBBORN = INTERRUPTIBLE + "while True: time.sleep(60)\n"


@pytest.fixture(params=["this python", "python3.8"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> DriverSite:
    if request.param == "this python":
        return DriverSite(tmp_path)
    python = os.environ.get("SMIDR_TEST_OLD_PYTHON") or shutil.which("python3.8")
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode != 0:
        pytest.skip("no python3.8 here; SMIDR_TEST_OLD_PYTHON may name an interpreter from 3.8 on")
    return DriverSite(tmp_path, python=python)


def is_gone(pid: int) -> bool:
    """Whether no process has the pid; a zombie counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_build_runs_bitbake_with_our_ui_and_reports_its_end(site: DriverSite) -> None:
    site.script("print('on the console')\nprint('and errors', file=sys.stderr)\n")
    assert site.run() == 0
    assert site.calls[0]["arguments"] == ["-u", "smidr_ui", "image"]
    assert site.console == "on the console\nand errors\n"
    assert site.result == {
        "exit_code": 0,
        "phase": "build",
        "interrupted": False,
        "timed_out": False,
        "oom_kills": 0,
        "error": "",
    }
    assert [event["event"] for event in site.events] == ["phase", "phase-end"]


@pytest.mark.parametrize("code", [1, 3, 77])
def test_the_exit_code_is_bitbakes(site: DriverSite, code: int) -> None:
    site.script(f"sys.exit({code})")
    assert site.run() == code
    assert site.result["exit_code"] == code
    assert site.result["error"] == ""


def test_fetch_comes_first_and_a_failed_fetch_is_the_end(site: DriverSite) -> None:
    site.run(phases=("fetch", "build"), targets=("a", "mc:x:b"))
    assert [call["arguments"][2:] for call in site.calls] == [
        ["--runall=fetch", "a", "mc:x:b"],
        ["a", "mc:x:b"],
    ]
    offline = [call["environment"].get("BB_NO_NETWORK") for call in site.calls]
    assert offline == [None, "1"]
    site.script("sys.exit(5)")
    (site.topdir / "called.jsonl").unlink()
    assert site.run(phases=("fetch", "build")) == 5
    assert len(site.calls) == 1
    assert site.result["phase"] == "fetch"


def test_only_what_the_plan_names_reaches_bitbake(site: DriverSite) -> None:
    site.environment = {
        "BBSERVER": "other:1",
        "TMPDIR": "/elsewhere",
        "LD_LIBRARY_PATH": "/evil",
        "PYTHONPATH": "/evil",
        "SECRET": "x",
    }
    site.run(environment={"http_proxy": "http://proxy", "FOO": "a b"}, passthrough=("FOO",))
    seen = site.calls[0]["environment"]
    for name in site.environment:
        assert name not in seen
    assert seen["FOO"] == "a b"
    assert seen["http_proxy"] == "http://proxy"
    assert seen["BB_ENV_PASSTHROUGH_ADDITIONS"] == "PYTHONHASHSEED BB_NO_NETWORK FOO"
    assert seen["BBPATH"] == str(site.topdir)
    assert seen["PATH"].split(os.pathsep)[0] == str(site.bitbake / "bin")
    assert seen["HOME"] == str(site.home)
    assert seen["LANG"].endswith("UTF-8")
    assert site.calls[0]["umask"] == 0o022


def test_old_releases_are_told_in_their_own_words(tmp_path: Path) -> None:
    site = DriverSite(tmp_path, version="1.46.0")
    site.run(environment={"FOO": "1"}, passthrough=("FOO",))
    seen = site.calls[0]["environment"]
    assert seen["BB_ENV_EXTRAWHITE"] == "PYTHONHASHSEED BB_NO_NETWORK FOO"
    assert "BB_ENV_PASSTHROUGH_ADDITIONS" not in seen


def test_git_is_told_to_trust_the_layer_trees_once(site: DriverSite) -> None:
    (site.home / ".gitconfig").write_text("[user]\n\tname = me\n")
    site.run()
    site.run()
    text = (site.home / ".gitconfig").read_text()
    assert text == "[user]\n\tname = me\n[safe]\n\tdirectory = *\n"


def test_the_init_script_is_sourced_and_its_environment_kept(site: DriverSite) -> None:
    script = site.root / "oe" / "oe-init-build-env"
    script.parent.mkdir()
    script.write_text(
        'echo chatter; echo noise >&2\nexport FROM_SCRIPT="$1|$2" PYTHONPATH=/lib: BBSERVER=x\n'
        'export MULTI="a\nb"\nexport BB_ENV_PASSTHROUGH_ADDITIONS="ONE TWO"\ncd "$1"\n'
    )
    assert site.run(init_script=str(script), passthrough=("TWO", "FOO")) == 0
    seen = site.calls[0]["environment"]
    assert seen["FROM_SCRIPT"] == f"{site.topdir}|{site.bitbake}"
    assert seen["PYTHONPATH"] == "/lib"
    assert seen["MULTI"] == "a\nb"
    handed_on = "ONE TWO PYTHONHASHSEED BB_NO_NETWORK FOO"
    assert seen["BB_ENV_PASSTHROUGH_ADDITIONS"] == handed_on
    assert "BBSERVER" not in seen
    assert site.console == ""


def test_a_failed_init_script_is_the_error_and_its_words_are_on_the_console(
    site: DriverSite,
) -> None:
    script = site.root / "oe-init-build-env"
    script.write_text("echo 'no such template' >&2\nreturn 3\n")
    assert site.run(init_script=str(script)) == 127
    assert "oe-init-build-env ended with exit code 3" in site.result["error"]
    assert "no such template" in site.console
    assert not (site.topdir / "called.jsonl").exists()


def test_a_stop_while_the_init_script_runs_is_no_error(site: DriverSite) -> None:
    script = site.root / "oe-init-build-env"
    script.write_text('touch "$1/sourced"\nsleep 600\n')
    with site.started(init_script=str(script), interrupt_grace_s=0.2, kill_grace_s=0.2) as process:
        site.wait_for("sourced")
        site.stop(process)
        assert process.wait(60) == 1
    assert site.result["interrupted"] is True
    assert site.result["error"] == ""
    assert not (site.topdir / "called.jsonl").exists()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"bitbake": "/nowhere"}, "no bin/bitbake in /nowhere"),
        ({"targets": ("-x",)}, "no target"),
        ({"targets": ()}, "no target"),
        ({"topdir": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_keeps_bitbake_from_starting_is_told(
    site: DriverSite, plan: dict[str, object], message: str
) -> None:
    assert site.run(**plan) == 127
    assert message in site.result["error"]
    assert site.result["exit_code"] == 127


def test_a_build_directory_in_use_is_refused(site: DriverSite) -> None:
    with (site.topdir / "bitbake.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert site.run() == 127
    assert "another BitBake" in site.result["error"]


def test_leftovers_of_a_killed_server_are_removed_before_and_after(site: DriverSite) -> None:
    names = ["bitbake.lock", "bitbake.sock", "hashserve.sock"]
    for name in names:
        (site.topdir / name).touch()
    site.script(
        f"left = [n for n in {names} if os.path.exists(n)]\nprint('found', left)\n"
        "open('bitbake.lock', 'w').close()\n"
    )
    site.run()
    assert site.console == "found []\n"
    assert not [name for name in names if (site.topdir / name).exists()]


def test_sigterm_interrupts_once_and_leaves_bitbake_its_time(site: DriverSite) -> None:
    site.script(INTERRUPTIBLE + "while not os.path.exists('told'): time.sleep(0.01)\nsys.exit(1)\n")
    with site.started() as process:
        site.wait_for("ready")
        site.stop(process)
        assert process.wait(60) == 1
    assert site.result["interrupted"] is True
    assert site.result["timed_out"] is False
    assert (site.topdir / "told").read_text() == "x"
    stops = [event["step"] for event in site.events if event["event"] == "stop"]
    assert stops == ["interrupt"]


def test_after_the_graces_bitbake_is_interrupted_again_and_killed(site: DriverSite) -> None:
    site.script(STUBBORN)
    with site.started(interrupt_grace_s=0.2, kill_grace_s=0.2) as process:
        site.wait_for("ready")
        site.stop(process)
        assert process.wait(60) == 128 + signal.SIGKILL
    assert (site.topdir / "told").read_text() == "xx"
    stops = [event["step"] for event in site.events if event["event"] == "stop"]
    assert stops == ["interrupt", "interrupt-again", "kill"]


def test_asking_again_does_not_wait_for_the_graces(site: DriverSite) -> None:
    site.script(STUBBORN)
    with site.started() as process:
        site.wait_for("ready")
        site.stop(process)
        site.wait_for("told")
        site.stop(process)
        site.stop(process, signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGKILL


def test_the_time_limit_stops_bitbake_cleanly(site: DriverSite) -> None:
    site.script(INTERRUPTIBLE + "while not os.path.exists('told'): time.sleep(0.01)\nsys.exit(1)\n")
    assert site.run(time_limit_s=1.0) == 1
    assert site.result["timed_out"] is True
    assert site.result["interrupted"] is True


def test_a_stop_between_phases_starts_no_other(site: DriverSite) -> None:
    site.script(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nos.kill(os.getppid(), signal.SIGTERM)\n"
    )
    site.run(phases=("fetch", "build"))
    assert len(site.calls) == 1
    assert site.result["interrupted"] is True
    assert site.result["exit_code"] == 1


def test_a_server_that_outlives_its_client_is_waited_for(site: DriverSite) -> None:
    server = "import time; time.sleep(0.3); open('saved', 'w').close()"
    site.script(f'subprocess.Popen([sys.executable, "-c", {server!r}], start_new_session=True)\n')
    assert site.run() == 0
    assert (site.topdir / "saved").exists()


def test_a_stop_while_the_server_ends_is_heard(site: DriverSite) -> None:
    server = "import time; open('serving', 'w').close(); time.sleep(600)"
    site.script(
        f'subprocess.Popen([sys.executable, "-c", {server!r}], start_new_session=True)\n'
        "open('client-gone', 'w').close()\n"
    )
    with site.started(phases=("fetch", "build")) as process:
        site.wait_for("client-gone")
        site.wait_for("serving")
        site.stop(process)
        assert process.wait(30) == 1
    assert len(site.calls) == 1
    assert site.result["interrupted"] is True


def test_orphans_of_a_killed_bitbake_are_killed_too(site: DriverSite) -> None:
    orphan = "import os, time; open('orphan', 'w').write(str(os.getpid())); time.sleep(600)"
    site.script(
        f'subprocess.Popen([sys.executable, "-c", {orphan!r}], start_new_session=True)\n'
        "while not os.path.exists('orphan'): time.sleep(0.01)\n" + STUBBORN
    )
    with site.started(interrupt_grace_s=0.1, kill_grace_s=0.1) as process:
        site.wait_for("ready")
        site.stop(process)
        process.wait(60)
    assert is_gone(int((site.topdir / "orphan").read_text()))


@pytest.mark.parametrize("name", ["console.log", "events.jsonl"])
def test_a_planted_link_in_the_control_directory_is_not_followed(
    site: DriverSite, name: str
) -> None:
    victim = site.root / "victim"
    victim.write_text("precious")
    (site.control / name).symlink_to(victim)
    site.run()
    assert victim.read_text() == "precious"


def test_a_planted_result_is_replaced(site: DriverSite) -> None:
    victim = site.root / "victim"
    victim.write_text("precious")
    (site.control / "result.json").symlink_to(victim)
    assert site.run() == 0
    assert victim.read_text() == "precious"
    assert stat.S_ISREG((site.control / "result.json").lstat().st_mode)


def test_a_plan_that_is_no_plan_is_an_error(site: DriverSite) -> None:
    with site.started() as process:
        process.kill()
        process.wait()
    (site.control / "plan.json").write_text("[]")
    driver = str(site.control / "driver" / "driver.py")
    done = subprocess.run(
        [sys.executable, "-E", "-s", driver], capture_output=True, text=True, check=False
    )
    assert done.returncode == 127
    assert "plan.json" in site.result["error"]


@pytest.mark.parametrize(("version", "is_kept"), [("2.8.1", True), ("2.12.0", False)])
def test_releases_that_would_miss_their_parse_cache_start_without_code_cache(
    tmp_path: Path, version: str, is_kept: bool
) -> None:
    site = DriverSite(tmp_path, version=version)
    (site.topdir / "cache").mkdir()
    (site.topdir / "cache" / "bb_codeparser.dat").touch()
    site.script("print(os.path.exists('cache/bb_codeparser.dat'))")
    site.run()
    assert site.console == f"{is_kept}\n"


def test_bitbake_reaches_a_socket_by_a_port_and_the_relay_ends_with_it(
    site: DriverSite,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="smidr-relay-"))  # a socket's path has to be short
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    site.script(
        "import socket, time\n"
        "for _ in range(600):\n"
        "    try:\n"
        f"        connection = socket.create_connection(('127.0.0.1', {port}))\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.05)\n"
        "connection.sendall(b'hello')\n"
        "print(connection.recv(10).decode())\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        listener.settimeout(60)
        with site.started(relay=(str(folder / "socket"), port)) as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(10) == b"hello"
                connection.sendall(b"world")
            assert process.wait(60) == 0
    shutil.rmtree(folder)
    assert site.console == "world\n"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_relay_that_can_not_listen_costs_the_build_nothing(site: DriverSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert site.run(relay=("/nowhere/socket", int(taken.getsockname()[1]))) == 0
    assert site.result["error"] == ""
    assert "no way to the shared cache" in site.console
