"""Reads the job that GitLab hands out; see `payload` for what comes of it."""

from __future__ import annotations

from typing import Final

from smidr_ci.forges.gitlab.lenient import Fields, PayloadError
from smidr_ci.forges.gitlab.payload import (
    DEFAULT_TIMEOUT_S,
    Artifact,
    Cache,
    Dependency,
    Features,
    GitInfo,
    Hook,
    Identity,
    Image,
    Job,
    JobInfo,
    RegistryLogin,
    Step,
    Variable,
)

__all__ = ["identity_of", "parse_job"]

_KNOWN_EXECUTORS: Final = {
    "docker": frozenset({"platform", "user"}),
    "kubernetes": frozenset({"user"}),
}


def identity_of(payload: object) -> Identity:
    """Id and token alone, so that a job which can't be read can still be failed."""
    fields = Fields(payload, "job")
    number, token = fields.number("id"), fields.text("token")
    if number <= 0:
        raise PayloadError("job.id", "number above zero")
    if not token or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise PayloadError("job.token", "token")
    return Identity(number, token)


def parse_job(payload: object) -> Job:
    """Read a job; raises `PayloadError` with the place of what makes no sense."""
    identity = identity_of(payload)
    fields = Fields(payload, "job")
    timeout = fields.object("runner_info").number("timeout")
    image = fields.object("image")
    return Job(
        id=identity.id,
        token=identity.token,
        allow_git_fetch=fields.flag("allow_git_fetch", default=True),
        info=_job_info(fields.object("job_info")),
        git_info=_git_info(fields.object("git_info")),
        timeout_s=timeout if timeout > 0 else DEFAULT_TIMEOUT_S,
        variables=tuple(_variable(item) for item in fields.objects("variables")),
        steps=tuple(_step(item) for item in fields.objects("steps")),
        hooks=tuple(
            Hook(item.text("name"), item.texts("script")) for item in fields.objects("hooks")
        ),
        image=_image(image) if image else None,
        services=tuple(_image(item) for item in fields.objects("services")),
        artifacts=tuple(_artifact(item) for item in fields.objects("artifacts")),
        cache=tuple(_cache(item) for item in fields.objects("cache")),
        credentials=tuple(_login(item) for item in fields.objects("credentials")),
        dependencies=tuple(_dependency(item) for item in fields.objects("dependencies")),
        features=_features(fields.object("features")),
        unsupported=tuple(_unsupported(fields)),
    )


def _job_info(fields: Fields) -> JobInfo:
    return JobInfo(
        name=fields.text("name"),
        stage=fields.text("stage"),
        pipeline_id=fields.number("pipeline_id"),
        project_id=fields.number("project_id"),
        project_name=fields.text("project_name"),
        project_path=fields.text("project_full_path"),
        user_id=fields.number("user_id"),
    )


def _git_info(fields: Fields) -> GitInfo:
    return GitInfo(
        repo_url=fields.text("repo_url"),
        ref=fields.text("ref"),
        sha=fields.text("sha"),
        before_sha=fields.text("before_sha"),
        ref_type=fields.text("ref_type", "branch"),
        refspecs=fields.texts("refspecs"),
        depth=max(0, fields.number("depth")),
        object_format=fields.text("repo_object_format") or "sha1",
        is_protected=fields.flag("protected") if "protected" in fields else None,
    )


def _variable(fields: Fields) -> Variable:
    return Variable(
        key=fields.text("key"),
        value=fields.text("value"),
        is_public=fields.flag("public"),
        is_masked=fields.flag("masked"),
        is_file=fields.flag("file"),
        is_raw=fields.flag("raw"),
    )


def _step(fields: Fields) -> Step:
    return Step(
        name=fields.text("name"),
        script=fields.texts("script"),
        when=fields.text("when") or "on_success",
        allow_failure=fields.flag("allow_failure"),
    )


def _image(fields: Fields) -> Image:
    return Image(fields.text("name"), fields.texts("entrypoint"), fields.texts("pull_policy"))


def _artifact(fields: Fields) -> Artifact:
    return Artifact(
        name=fields.text("name"),
        paths=fields.texts("paths"),
        exclude=fields.texts("exclude"),
        untracked=fields.flag("untracked"),
        when=fields.text("when") or "on_success",
        expire_in=fields.text("expire_in"),
        type=fields.text("artifact_type") or "archive",
        format=fields.text("artifact_format") or "zip",
    )


def _cache(fields: Fields) -> Cache:
    return Cache(
        key=fields.text("key"),
        paths=fields.texts("paths"),
        untracked=fields.flag("untracked"),
        policy=fields.text("policy") or "pull-push",
        when=fields.text("when") or "on_success",
        fallback_keys=fields.texts("fallback_keys"),
    )


def _login(fields: Fields) -> RegistryLogin:
    return RegistryLogin(
        fields.text("type"), fields.text("url"), fields.text("username"), fields.text("password")
    )


def _dependency(fields: Fields) -> Dependency:
    file = fields.object("artifacts_file")
    return Dependency(
        id=fields.number("id"),
        name=fields.text("name"),
        token=fields.text("token"),
        filename=file.text("filename"),
        size=file.number("size"),
    )


def _features(fields: Fields) -> Features:
    return Features(
        trace_sections=fields.flag("trace_sections"),
        token_mask_prefixes=fields.texts("token_mask_prefixes"),
        failure_reasons=fields.texts("failure_reasons"),
    )


def _unsupported(job: Fields) -> list[str]:
    # What the official runner refuses too, instead of running something else than was asked for.
    found: list[str] = []
    if job.raw("run"):
        has_script = any(item.texts("script") for item in job.objects("steps"))
        found.append(
            "'run' and 'script' exclude each other"
            if has_script
            else "native steps ('run') are not supported; use 'script'"
        )
    images = [job.object("image"), *job.objects("services")]
    for options in (image.object("executor_opts") for image in images):
        for executor in options.keys():  # noqa: SIM118 - Fields is no mapping
            known = _KNOWN_EXECUTORS.get(executor)
            if known is None:
                found.append(f"unsupported option {options.where}.{executor}")
                continue
            extra = set(options.object(executor).keys()) - known
            found += [f"unsupported option {options.where}.{executor}.{key}" for key in extra]
    return found
