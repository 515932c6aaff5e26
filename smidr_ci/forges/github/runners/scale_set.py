"""The scale set at GitHub: found or made, kept as we want it, and its runners.

Facts: github.com/actions/scaleset, client.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.runners.actions_service import ActionsService, ServiceError
from smidr_ci.forges.github.runners.options import RunnerOptions
from smidr_ci.forges.github.runners.remote import RemoteRunner, RemoteRunners

__all__ = ["ScaleSet", "ScaleSetRegistrar", "ScaleSets"]

_SETS: Final = "_apis/runtime/runnerscalesets"
_GROUPS: Final = "_apis/runtime/runnergroups/"
_AGENTS: Final = "_apis/distributedtask/pools/0/agents"
_DEFAULT_GROUP: Final = "Default"
_MOST_CONFIG: Final = 256 * 1024


@dataclass(frozen=True)
class ScaleSet:
    """One as GitHub knows it."""

    number: int
    name: str
    group: int
    labels: tuple[str, ...] = ()
    updates_runners: bool = False
    """Whether GitHub would have runners update themselves, instead of us."""


class ScaleSets:
    """Thread-safe; all methods raise `ForgeError`."""

    def __init__(self, service: ActionsService, options: RunnerOptions) -> None:
        self._service = service
        self._options = options

    def ensure(self) -> ScaleSet:
        """Find it by name, make it if there is none, and set right what differs."""
        group, group_name = self._group()
        found = self._find(group) or self._create(group, group_name)
        if found.updates_runners or _small(found.labels) != _small(self._labels()):
            found = self._change(found, group, group_name)
        self._service.scale_set_id = found.number
        return found

    def find(self) -> ScaleSet | None:
        """By its name; None if there is none."""
        return self._find(self._group()[0])

    def is_there(self, number: int) -> bool:
        """Whether this very one still exists."""
        try:
            self._service.call("GET", f"{_SETS}/{number:d}", action="look up the scale set")
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        return True

    def delete(self, number: int) -> None:
        """Delete it; one that is gone is fine."""
        try:
            self._service.call("DELETE", f"{_SETS}/{number:d}", action="delete the scale set")
        except ServiceError as error:
            if error.status != 404:
                raise

    def _group(self) -> tuple[int, str]:
        name = self._options.group or _DEFAULT_GROUP
        reply = self._service.call(
            "GET", _GROUPS, params={"groupName": name}, action="look up the runner group"
        )
        for item in _values(reply.json()):
            number = item.get("id")
            if str(item.get("name", "")).lower() == name.lower() and isinstance(number, int):
                return number, str(item["name"])
        raise ForgeError(
            f"there is no runner group {name!r}",
            where=self._service.site.web,
            hint="Make it in the organisation's settings, under Actions, Runner groups.",
        )

    def _find(self, group: int) -> ScaleSet | None:
        name = self._options.scale_set
        params: dict[str, str | int] = {"runnerGroupId": group, "name": name}
        reply = self._service.call("GET", _SETS, params=params, action="look up the scale set")
        made = (_scale_set_of(raw) for raw in _values(reply.json()))
        return next((item for item in made if item and item.name.lower() == name.lower()), None)

    def _create(self, group: int, group_name: str) -> ScaleSet:
        body = self._body(group, group_name)
        action = f"make the scale set {self._options.scale_set}"
        try:
            reply = self._service.call("POST", _SETS, body=body, action=action, attempts=1)
            made = _scale_set_of(reply.object())
        except (ServiceError, ForgeUnreachableError) as error:
            # The answer may be lost, or another agent was faster.
            if error.status in {401, 403}:
                raise
            made = self._find(group)
            if made is None:
                raise
        if made is None:
            raise ForgeError("the answer has no scale set", where=self._service.site.web)
        return made

    def _change(self, old: ScaleSet, group: int, group_name: str) -> ScaleSet:
        reply = self._service.call(
            "PATCH",
            f"{_SETS}/{old.number:d}",
            body=self._body(group, group_name),
            action=f"change the scale set {old.name}",
        )
        return _scale_set_of(reply.object()) or old

    def _labels(self) -> list[str]:
        return list(dict.fromkeys([self._options.scale_set, *self._options.labels]))

    def _body(self, group: int, group_name: str) -> dict[str, Any]:
        return {
            "name": self._options.scale_set,
            "runnerGroupId": group,
            "runnerGroupName": group_name,
            "labels": [{"type": "System", "name": label} for label in self._labels()],
            "RunnerSetting": {"disableUpdate": True},  # sic
        }


class ScaleSetRegistrar:
    """Runners of a scale set; see `registrar.Registrar`."""

    def __init__(
        self, service: ActionsService, remote: RemoteRunners, current: ScaleSet | None = None
    ) -> None:
        """`remote` lists them: the service itself knows them by their whole names only."""
        self._service = service
        self._remote = remote
        self.current = current
        """Which scale set they are of; set once it is known."""

    def generate(self, name: str) -> str:
        """See `Registrar`."""
        current = self.current
        if current is None:
            raise ForgeError("there is no scale set yet", where=self._service.site.web)
        reply = self._service.call(
            "POST",
            f"{_SETS}/{current.number:d}/generatejitconfig",
            body={"name": name, "workFolder": "_work"},
            action=f"make the runner {name}",
            attempts=1,  # a lost one is found by its name, and another name is tried
        )
        config = reply.object().get("encodedJITConfig")
        if not isinstance(config, str) or not config or len(config) > _MOST_CONFIG:
            raise ForgeError("the answer has no usable config of a runner", where=reply.url)
        return config

    def remove(self, name: str) -> bool:
        """See `Registrar`."""
        reply = self._service.call(
            "GET", _AGENTS, params={"agentName": name}, action="look up the runner"
        )
        numbers = [
            item["id"]
            for item in _values(reply.json())
            if item.get("name") == name and isinstance(item.get("id"), int)
        ]
        return all(self._remove(number) for number in numbers)

    def remove_listed(self, runner: RemoteRunner) -> bool:
        """See `Registrar`."""
        return self._remove(runner.runner_id)

    def listed(self) -> Iterable[RemoteRunner]:
        """See `Registrar`."""
        return self._remote.listed()

    def _remove(self, number: int) -> bool:
        try:
            self._service.call("DELETE", f"{_AGENTS}/{number:d}", action="delete the runner")
        except ServiceError as error:
            if error.is_a("JobStillRunningException") or error.status == 422:
                return False
            if error.status != 404 and not error.is_a("AgentNotFoundException"):
                raise
        return True


def _values(found: object) -> list[Mapping[str, Any]]:
    listed = found.get("value") if isinstance(found, dict) else None
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _scale_set_of(raw: Mapping[str, Any]) -> ScaleSet | None:
    number, name = raw.get("id"), raw.get("name")
    if not isinstance(number, int) or number <= 0 or not isinstance(name, str):
        return None
    labels = raw.get("labels")
    setting = raw.get("RunnerSetting") or raw.get("runnerSetting")
    return ScaleSet(
        number,
        name,
        group=raw["runnerGroupId"] if isinstance(raw.get("runnerGroupId"), int) else 0,
        labels=tuple(
            str(item.get("name"))
            for item in (labels if isinstance(labels, list) else ())
            if isinstance(item, dict)
        ),
        updates_runners=isinstance(setting, dict) and setting.get("disableUpdate") is False,
    )


def _small(labels: Iterable[str]) -> set[str]:
    return {label.lower() for label in labels}
