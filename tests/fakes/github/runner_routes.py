"""The fake's REST calls about runners; `rest` includes them."""

from __future__ import annotations

from datetime import timedelta

from tests.fakes.github.openapi import example, template
from tests.fakes.github.routes import Answer, Asked, route
from tests.fakes.github.state import GitHubState, stamp

__all__: list[str] = []

_OWN = r"(?P<place>/repos/(?P<repository>[^/]+/[^/]+)|/orgs/(?P<organization>[^/]+))"
_LEVEL = "runners:write"


@route("POST", f"{_OWN}/actions/runners/generate-jitconfig", _LEVEL)
def _generate(state: GitHubState, asked: Asked, place: str, **_: str) -> Answer:
    if asked.body["runner_group_id"] not in state.runners.groups:
        return Answer(422, {"message": "Validation Failed", "errors": ["no such runner group"]})
    made = state.runners.register(place, asked.body)
    if made is None:
        return Answer(409, {"message": f"Already exists - {asked.body['name']}"})
    runner, config = made
    return Answer(201, {"runner": runner, "encoded_jit_config": config})


@route("GET", f"{_OWN}/actions/runners", _LEVEL)
def _list(state: GitHubState, asked: Asked, place: str, **_: str) -> Answer:
    found = [
        item
        for number, item in state.runners.known.items()
        if state.runners.places[number] == place
        and item["name"] == asked.query.get("name", item["name"])
    ]
    page, size = int(asked.query.get("page", "1")), int(asked.query.get("per_page", "30"))
    shown = found[(page - 1) * size : page * size]
    more = f'<{asked.path}?per_page={size}&page={page + 1}>; rel="next"'
    headers = {"Link": more} if page * size < len(found) else {}
    return Answer(200, {"total_count": len(found), "runners": shown}, headers)


@route("DELETE", rf"{_OWN}/actions/runners/(?P<number>\d+)", _LEVEL)
def _delete(state: GitHubState, _asked: Asked, number: str, **_: str) -> Answer:
    runner = state.runners.known.get(int(number))
    if runner is None:
        return Answer(404, {"message": "Not Found"})
    if runner["busy"]:
        return Answer(422, {"message": "Runner is currently running a job and cannot be deleted."})
    del state.runners.known[int(number)]
    return Answer(204)


@route("GET", f"{_OWN}/actions/runners/downloads", _LEVEL)
def _downloads(_state: GitHubState, _asked: Asked, **_: str) -> Answer:
    return Answer(200, example("runner-application-items") or [])


@route("POST", f"{_OWN}/actions/runners/registration-token", _LEVEL)
def _registration(state: GitHubState, _asked: Asked, **_: str) -> Answer:
    expires = stamp(state.now + timedelta(hours=1))
    return Answer(201, {"token": state.runners.new_token(), "expires_at": expires})


@route("GET", r"/orgs/(?P<organization>[^/]+)/actions/runner-groups", _LEVEL)
def _groups(state: GitHubState, _asked: Asked, organization: str) -> Answer:
    del organization
    example = (template("runner-groups-org").get("runner_groups") or [{}])[0]
    shown = [
        {**example, "id": number, "name": name} for number, name in state.runners.groups.items()
    ]
    return Answer(200, {"total_count": len(shown), "runner_groups": shown})


@route("GET", r"/repos/(?P<repository>[^/]+/[^/]+)/contents/(?P<path>.+)", "contents:read")
def _contents(state: GitHubState, asked: Asked, repository: str, path: str) -> Answer:
    ref = asked.query.get("ref", state.default_branch)
    found = state.runners.content(repository, ref, path)
    return Answer(200, found) if found else Answer(404, {"message": "Not Found"})


@route("GET", "/installation/repositories", "metadata:read")
def _installed(state: GitHubState, _asked: Asked) -> Answer:
    shown = [{"full_name": name, "archived": False} for name in state.runners.repositories]
    return Answer(200, {"total_count": len(shown), "repositories": shown})


@route("GET", r"/orgs/(?P<organization>[^/]+)/repos", "metadata:read")
def _of_organization(state: GitHubState, _asked: Asked, organization: str) -> Answer:
    found = [name for name in state.runners.repositories if name.startswith(f"{organization}/")]
    return Answer(200, [{"full_name": name, "archived": False} for name in found])
