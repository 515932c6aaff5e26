"""A step of a workflow as GitHub's runner runs it, with plain Node.

Facts from actions/runner: Handlers/NodeScriptActionHandler (environment), ActionCommandManager
(workflow commands), FileCommandManager (files), ProcessInvoker (cancel), ExecutionContext (limits).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from smidr_ci.clock import SystemClock

__all__ = ["ACTION", "Command", "Commands", "RunningStep", "StepResult", "Workspace", "node"]

ACTION: Final = Path(__file__).resolve().parents[2]
_OLDEST_NODE: Final = 20
_PATIENCE_S: Final = 300.0
_SUMMARY_LIMIT: Final = 1 << 20
_COMMANDS: Final = frozenset(
    {
        "add-mask",
        "add-matcher",
        "add-path",
        "debug",
        "echo",
        "endgroup",
        "error",
        "group",
        "notice",
        "remove-matcher",
        "save-state",
        "set-env",
        "set-output",
        "stop-commands",
        "warning",
    }
)
_V2: Final = re.compile(r"^\s*::([^\s:]+?)(?: (.*?))?::(.*)$", re.DOTALL)
_V1: Final = re.compile(r"##\[([^\s\]]+)(?: (.*?))?\](.*)$", re.DOTALL)


def node() -> str:
    """The Node that runs actions; where there is none it skips, or fails (SMIDR_REQUIRE_NODE=1)."""
    found = shutil.which("node")
    version = ""
    if found:
        version = subprocess.run(
            [found, "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
    if found and version and int(version.lstrip("v").split(".")[0]) >= _OLDEST_NODE:
        return found
    text = (
        f"no Node {_OLDEST_NODE} or newer ({version or 'none'}): install nodejs to test the action"
    )
    if os.environ.get("SMIDR_REQUIRE_NODE") == "1":
        pytest.fail(f"{text} (SMIDR_REQUIRE_NODE=1)")
    pytest.skip(text)


@dataclass(frozen=True)
class Command:
    """A workflow command that the runner obeyed."""

    name: str
    properties: Mapping[str, str]
    data: str


@dataclass
class Commands:
    """Reads a step's standard output line by line, as the runner does."""

    obeyed: list[Command] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Lines that are text."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Text by the title of the group that it stands in; those outside by ``""``."""
    tokens: list[str] = field(default_factory=list)
    _token: str = ""
    _group: str = ""

    def take(self, line: str) -> None:
        """One line without its end."""
        found = _parsed(line)
        if found is not None and self._token:
            if found.name == self._token:
                self._token = ""
                return
        elif found is not None and found.name in _COMMANDS:
            self._obey(found)
            return
        self.shown.append(line)
        self.groups.setdefault(self._group, []).append(line)

    def all(self, name: str) -> list[Command]:
        """The commands of this name."""
        return [item for item in self.obeyed if item.name == name]

    @property
    def is_fenced(self) -> bool:
        """Whether commands are stopped now."""
        return bool(self._token)

    def _obey(self, command: Command) -> None:
        self.obeyed.append(command)
        if command.name == "stop-commands":
            assert len(command.data) >= 32, "a token that can be guessed"
            assert command.data not in self.tokens, "a token that was shown before"
            self._token = command.data
            self.tokens.append(command.data)
        elif command.name == "group":
            assert not self._group, "groups don't nest"
            self._group = command.data
            self.groups.setdefault(command.data, [])
        elif command.name == "endgroup":
            self._group = ""


def _parsed(line: str) -> Command | None:
    if match := _V2.match(line):
        pairs = [pair.partition("=") for pair in (match[2] or "").split(",") if pair]
        return Command(
            match[1].lower(),
            {key.strip(): _unescaped(value, is_property=True) for key, _, value in pairs},
            _unescaped(match[3], is_property=False),
        )
    if match := _V1.search(line):
        pairs = [pair.partition("=") for pair in (match[2] or "").split(";") if pair]
        return Command(match[1].lower(), {key: value for key, _, value in pairs}, match[3])
    return None


def _unescaped(text: str, *, is_property: bool) -> str:
    escapes = {"%0D": "\r", "%0A": "\n"}
    if is_property:
        escapes |= {"%3A": ":", "%2C": ","}
    for escape, character in escapes.items():
        text = text.replace(escape, character)
    return text.replace("%25", "%")


@dataclass(frozen=True)
class StepResult:
    """What the runner knows after a step."""

    code: int
    commands: Commands
    outputs: Mapping[str, str]
    state: Mapping[str, str]
    summary: str
    raw: str
    environment_files: str
    """What was written to GITHUB_ENV and GITHUB_PATH."""

    @property
    def text(self) -> str:
        """All text lines."""
        return "\n".join(self.commands.shown)

    @property
    def errors(self) -> list[Command]:
        """Annotations."""
        return self.commands.all("error")

    @property
    def warnings(self) -> list[Command]:
        """Annotations."""
        return self.commands.all("warning")


class RunningStep:
    """A step's process; its output is read all the time."""

    def __init__(self, process: subprocess.Popen[bytes], files: Path) -> None:
        self.process = process
        self._files = files
        self._lines: list[str] = []
        self._has_ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="step-output")
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Wait until the step has printed a line with this."""
        self.wait_until(lambda lines: any(text in line for line in lines), repr(text))

    def wait_until(self, is_true: Callable[[list[str]], bool], what: str) -> None:
        """Wait for something about all lines so far."""
        with self._news:
            self._news.wait_for(lambda: is_true(self._lines) or self._has_ended, _PATIENCE_S)
            shown = "\n".join(self._lines)
            assert is_true(self._lines), f"waited in vain for {what} in\n{shown}"

    def cancel(self) -> None:
        """SIGINT, 7.5 s later SIGTERM, 2.5 s later the end, as `ProcessInvoker` does."""
        for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            return
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def result(self) -> StepResult:
        """What is there after its end, which is waited for."""
        self.process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        commands = Commands()
        for line in self._lines:
            commands.take(line)
        assert not commands.is_fenced or self.process.returncode < 0, "commands are stopped still"
        summary = self._file("summary")
        assert len(summary.encode()) <= _SUMMARY_LIMIT, "the runner refuses this summary"
        return StepResult(
            code=self.process.returncode,
            commands=commands,
            outputs=_pairs(self._file("output")),
            state=_pairs(self._file("state")),
            summary=summary,
            raw="\n".join(self._lines),
            environment_files=self._file("env") + self._file("path"),
        )

    def _file(self, name: str) -> str:
        return (self._files / name).read_text()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").removesuffix("\n")
            with self._news:
                self._lines += re.split(r"\r\n|\r|\n", line)  # as .NET's ReadLine
                self._news.notify_all()
        with self._news:
            self._has_ended = True
            self._news.notify_all()
        self.process.stdout.close()


def _pairs(text: str) -> dict[str, str]:
    """`NAME=VALUE` or `NAME<<DELIMITER`, whichever mark comes first decides."""
    found: dict[str, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equals < 0 or heredoc < equals):
            name, _, delimiter = line.partition("<<")
            assert delimiter, "an empty delimiter"
            value = []
            for content in lines:
                if content == delimiter:
                    break
                value.append(content)
            else:
                raise AssertionError(f"the delimiter of {name} never comes")
            found[name] = "\n".join(value)
        else:
            assert equals > 0, f"the runner refuses the line {line!r}"
            found[line[:equals]] = line[equals + 1 :]
    return found


@dataclass
class Workspace:
    """A job's directories on the runner, and its steps' environment."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    action: Path = ACTION

    def __post_init__(self) -> None:
        for name in ("work", "temp", "tools", "home", "files"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def checkout(self) -> Path:
        """GITHUB_WORKSPACE."""
        return self.root / "work"

    def start(self, inputs: Mapping[str, str], **more: str) -> RunningStep:
        """Begin the action's main with these inputs, and the defaults of action.yml."""
        metadata: dict[str, Any] = yaml.safe_load((self.action / "action.yml").read_text())
        known = metadata["inputs"]
        assert set(inputs) <= set(known), "the runner warns of inputs that are not there"
        values = {name: str(item.get("default", "")) for name, item in known.items()}
        given = {
            f"INPUT_{name.replace(' ', '_').upper()}": value
            for name, value in {**values, **inputs}.items()
        }
        return self._start(metadata["runs"]["main"], {**given, **more})

    def run(self, inputs: Mapping[str, str], **more: str) -> StepResult:
        """The same to its end."""
        return self.start(inputs, **more).result()

    def post(self, main: StepResult, **more: str) -> StepResult:
        """The action's post, which runs in any case, with the state that main has left."""
        metadata = yaml.safe_load((self.action / "action.yml").read_text())
        state = {f"STATE_{name}": value for name, value in main.state.items()}
        return self._start(metadata["runs"]["post"], {**state, **more}).result()

    def _start(self, script: str, more: Mapping[str, str]) -> RunningStep:
        clock = SystemClock()
        files = self.root / "files" / f"{clock.monotonic():.6f}"
        files.mkdir()
        names = ("output", "state", "summary", "env", "path")
        for name in names:
            (files / name).touch()
        process = subprocess.Popen(
            [node(), str(self.action / script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.checkout,
            env={**self._environ(files), **self.environment, **more},
        )
        return RunningStep(process, files)

    def _environ(self, files: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            **kept,
            "HOME": str(self.root / "home"),
            "SMIDR_HOST_HOME": str(self.root / "no-host-agent"),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.checkout),
            "GITHUB_REPOSITORY": "Acme/BSP",
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567",
            "GITHUB_RUN_ID": "555",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_JOB": "image",
            "RUNNER_TEMP": str(self.root / "temp"),
            "RUNNER_TOOL_CACHE": str(self.root / "tools"),
            "RUNNER_TRACKING_ID": "github_0001",
            "ACTIONS_RUNTIME_TOKEN": "runtime-token-that-nobody-may-see",
            "ACTIONS_RESULTS_URL": "https://results.invalid/",
            "GITHUB_OUTPUT": str(files / "output"),
            "GITHUB_STATE": str(files / "state"),
            "GITHUB_STEP_SUMMARY": str(files / "summary"),
            "GITHUB_ENV": str(files / "env"),
            "GITHUB_PATH": str(files / "path"),
        }


_KEPT: Final = ("PATH", "LANG", "DOCKER_HOST", "TMPDIR", "http_proxy", "https_proxy", "no_proxy")
