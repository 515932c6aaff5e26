"""The fake's REST API: one function per call, with the permissions that GitHub asks for."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from tests.fakes.github import runner_routes
from tests.fakes.github.openapi import template
from tests.fakes.github.routes import REPOSITORY, Answer, Asked, answer, route
from tests.fakes.github.state import APP_ID, GitHubState, stamp

__all__ = ["Answer", "Asked", "answer", "runner_routes"]


@route("GET", "/app", "app")
def _app(_state: GitHubState, _asked: Asked) -> Answer:
    return Answer(200, {**template("integration"), "id": APP_ID, "slug": "smidr"})


@route("GET", "/app/installations", "app")
def _installations(state: GitHubState, _asked: Asked) -> Answer:
    return Answer(200, [_installation_of(state, owner) for owner in state.installations])


@route("GET", f"{REPOSITORY}/installation", "app")
def _installation(state: GitHubState, _asked: Asked, repository: str) -> Answer:
    owner = repository.partition("/")[0]
    if owner not in state.installations:
        return Answer(404, {"message": "Not Found"})
    return Answer(200, _installation_of(state, owner))


@route("GET", "/orgs/(?P<organization>[^/]+)/installation", "app")
def _org_installation(state: GitHubState, _asked: Asked, organization: str) -> Answer:
    if organization not in state.installations:
        return Answer(404, {"message": "Not Found"})
    return Answer(200, _installation_of(state, organization))


def _installation_of(state: GitHubState, owner: str) -> dict[str, Any]:
    made = {**template("installation"), "id": state.installations[owner], "app_id": APP_ID}
    made["account"] = {**made.get("account", {}), "login": owner}
    made |= {"permissions": state.app_permissions, "suspended_at": None, "suspended_by": None}
    return made


@route("POST", r"/app/installations/(?P<number>\d+)/access_tokens", "app")
def _access_token(state: GitHubState, asked: Asked, number: str) -> Answer:
    if int(number) not in state.installations.values():
        return Answer(404, {"message": "Not Found"})
    body = asked.body or {}
    old = {name.partition("/")[2] for name in state.renamed}
    if old & set(body.get("repositories", ())):
        return Answer(422, {"message": "There is at least one repository that does not exist"})
    state.token_requests.append(body)
    token = state.new_token(body.get("repositories", []), body.get("permissions", {}))
    expires = stamp(state.tokens[token].expires)
    permissions = body.get("permissions", {})
    return Answer(201, {"token": token, "expires_at": expires, "permissions": permissions})


@route("POST", f"{REPOSITORY}/check-runs", "checks:write")
def _create_check(state: GitHubState, asked: Asked, repository: str) -> Answer:
    run = state.add_check(repository, asked.body)
    return Answer(201, _shown(run))


@route("GET", rf"{REPOSITORY}/check-runs/(?P<number>\d+)", "checks:read")
def _get_check(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    run = state.checks.get(int(number))
    if run is None or run["repository"] != repository:
        return Answer(404, {"message": "Not Found"})
    return Answer(200, _shown(run))


@route("PATCH", rf"{REPOSITORY}/check-runs/(?P<number>\d+)", "checks:write")
def _patch_check(state: GitHubState, asked: Asked, repository: str, number: str) -> Answer:
    run = state.checks.get(int(number))
    if run is None or run["repository"] != repository:
        return Answer(404, {"message": "Not Found"})
    state.change_check(run, asked.body)
    return Answer(200, _shown(run))


@route("GET", f"{REPOSITORY}/commits/(?P<ref>[^/]+)/check-runs", "checks:read")
def _list_checks(state: GitHubState, asked: Asked, repository: str, ref: str) -> Answer:
    query = asked.query
    found = [
        run
        for run in state.checks.values()
        if run["repository"] == repository
        and run["head_sha"] == ref
        and run["name"] == query.get("check_name", run["name"])
        and str(run["app"]["id"]) == query.get("app_id", str(run["app"]["id"]))
    ]
    found.sort(key=lambda run: -int(run["id"]))
    if query.get("filter", "latest") == "latest":
        found = list({(run["app"]["id"], run["name"]): run for run in reversed(found)}.values())
    page, size = int(query.get("page", "1")), int(query.get("per_page", "30"))
    shown = [_shown(run) for run in found[(page - 1) * size : page * size]]
    return Answer(200, {"total_count": len(found), "check_runs": shown})


@route("GET", rf"{REPOSITORY}/check-suites/(?P<number>\d+)/check-runs", "checks:read")
def _suite_checks(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    found = [
        _shown(run)
        for run in state.checks.values()
        if run["repository"] == repository and run["check_suite"]["id"] == int(number)
    ]
    return Answer(200, {"total_count": len(found), "check_runs": found})


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in {"repository", "actions"}}


@route("POST", f"{REPOSITORY}/statuses/(?P<sha>[0-9a-f]{{40}})", "statuses:write")
def _post_status(state: GitHubState, asked: Asked, repository: str, sha: str) -> Answer:
    context = asked.body.get("context", "default")
    same = [
        item
        for item in state.statuses
        if item["sha"] == sha and item["context"].lower() == context.lower()
    ]
    if len(same) >= state.most_statuses:
        said = "This SHA and context has reached the maximum number of statuses."
        return Answer(422, {"message": "Validation Failed", "errors": [{"message": said}]})
    moment = stamp(state.now)
    number = next(state.numbers)
    made = {
        **template("status"),
        "id": number,
        "description": None,
        "target_url": None,
        **asked.body,
        "context": context,
        "created_at": moment,
        "updated_at": moment,
    }
    state.statuses.append({**made, "sha": sha, "repository": repository})
    return Answer(201, made)


@route("GET", f"{REPOSITORY}/commits/(?P<ref>[^/]+)/status", "statuses:read")
def _combined(state: GitHubState, _asked: Asked, repository: str, ref: str) -> Answer:
    latest = {item["context"].lower(): item for item in state.statuses if item["sha"] == ref}
    made = template("combined-commit-status")
    example = (made.get("statuses") or [{}])[0]
    names = ("id", "state", "description", "target_url", "context", "created_at", "updated_at")
    shown = [{**example, **{name: item[name] for name in names}} for item in latest.values()]
    full = {**made.get("repository", {}), "full_name": repository}
    made |= {"sha": ref, "statuses": shown, "total_count": len(shown), "repository": full}
    return Answer(200, {"state": "pending", **made})


@route("GET", rf"{REPOSITORY}/actions/runs/(?P<number>\d+)", "actions:read")
def _get_run(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    run = state.runs.get(int(number))
    if run is None or run["repository"]["full_name"] != repository:
        return Answer(404, {"message": "Not Found"})
    return Answer(200, run)


@route("GET", f"{REPOSITORY}/actions/runs", "actions:read")
def _list_runs(state: GitHubState, asked: Asked, repository: str) -> Answer:
    found = [
        run
        for run in state.runs.values()
        if run["repository"]["full_name"] == repository
        and run["status"] == asked.query.get("status", run["status"])
    ]
    return Answer(200, {"total_count": len(found), "workflow_runs": found})


@route("GET", rf"{REPOSITORY}/actions/runs/(?P<number>\d+)/jobs", "actions:read")
def _list_jobs(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    run = state.runs.get(int(number))
    if run is None or run["repository"]["full_name"] != repository:
        return Answer(404, {"message": "Not Found"})
    found = state.jobs.get(int(number), [])
    return Answer(200, {"total_count": len(found), "jobs": found})


@route("GET", rf"{REPOSITORY}/actions/jobs/(?P<number>\d+)", "actions:read")
def _get_job(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    del repository
    for jobs in state.jobs.values():
        for job in jobs:
            if job["id"] == int(number):
                return Answer(200, job)
    return Answer(404, {"message": "Not Found"})


@route("POST", rf"{REPOSITORY}/actions/(?:jobs|runs)/(?P<number>\d+)/rerun", "actions:write")
def _rerun_job(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    del repository
    state.reruns.append(int(number))
    return Answer(201, {})


@route("GET", rf"{REPOSITORY}/pulls/(?P<number>\d+)", "pull_requests:read")
def _get_pull(state: GitHubState, _asked: Asked, repository: str, number: str) -> Answer:
    del repository
    pull = state.pulls.get(int(number))
    return Answer(200, pull) if pull else Answer(404, {"message": "Not Found"})


@route("GET", f"{REPOSITORY}/branches/(?P<branch>.+)", "contents:read")
def _get_branch(state: GitHubState, _asked: Asked, repository: str, branch: str) -> Answer:
    del repository
    if branch not in state.branches:
        return Answer(404, {"message": "Branch not found"})
    return Answer(200, {"name": branch, "protected": state.branches[branch]})


@route("GET", REPOSITORY, "metadata:read")
def _get_repository(state: GitHubState, _asked: Asked, repository: str) -> Answer:
    made = {**template("full-repository"), "full_name": repository, "fork": False}
    made |= {"has_discussions": False, "name": repository.partition("/")[2]}
    return Answer(200, {**made, "default_branch": state.default_branch})


@route("GET", f"{REPOSITORY}/collaborators/(?P<login>[^/]+)/permission", "metadata:read")
def _permission(state: GitHubState, _asked: Asked, repository: str, login: str) -> Answer:
    del repository
    role = state.roles.get(login, "none")
    return Answer(200, {"permission": role, "role_name": role, "user": {"login": login}})


@route("GET", "/app/hook/deliveries", "app")
def _deliveries(state: GitHubState, asked: Asked) -> Answer:
    wanted = asked.query.get("status", "")
    found = [
        {key: value for key, value in item.items() if key != "payload"}
        for item in state.deliveries
        if not wanted or (item["status_code"] < 400) == (wanted == "success")
    ]
    return Answer(200, found)


@route("GET", r"/app/hook/deliveries/(?P<number>\d+)", "app")
def _delivery(state: GitHubState, _asked: Asked, number: str) -> Answer:
    for item in state.deliveries:
        if item["id"] == int(number):
            shown = {key: value for key, value in item.items() if key != "payload"}
            request = {"headers": {"X-GitHub-Event": item["event"]}, "payload": item["payload"]}
            response = {"headers": {}, "payload": ""}
            return Answer(200, {**shown, "request": request, "response": response})
    return Answer(404, {"message": "Not Found"})


@route("POST", r"/app/hook/deliveries/(?P<number>\d+)/attempts", "app")
def _attempt(state: GitHubState, _asked: Asked, number: str) -> Answer:
    state.attempts.append(int(number))
    for item in list(state.deliveries):
        if item["id"] == int(number):
            again = {"id": next(state.numbers), "redelivery": True, "status": "OK"}
            made = {**item, **again, "status_code": 202}
            made["delivered_at"] = stamp(state.now.astimezone(UTC))
            state.deliveries.insert(0, made)
    return Answer(202, {})
