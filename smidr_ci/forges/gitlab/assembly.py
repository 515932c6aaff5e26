"""A registration's runner, put together from what the agent has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from smidr_ci.builds.history import previous_build
from smidr_ci.builds.model import BuildRecord
from smidr_ci.caches.job_archives import JobArchives
from smidr_ci.forges.deliveries import Deliverer
from smidr_ci.forges.gitlab.checkout import Checkout, give_to
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.container_scripts import ContainerScripts
from smidr_ci.forges.gitlab.dependencies import Downloads
from smidr_ci.forges.gitlab.job_caches import JobCaches
from smidr_ci.forges.gitlab.job_uploads import JobUploads
from smidr_ci.forges.gitlab.runner import GitLabRunner, tls_files
from smidr_ci.forges.gitlab.telling import ApiDeliverer, Teller, receiver_prefix
from smidr_ci.forges.gitlab.transport import OnCall, Transport
from smidr_ci.forges.gitlab.trust import trust_of
from smidr_ci.forges.gitlab.workshop import Workshop
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration

__all__ = ["make_deliverers", "make_runner"]


def make_runner(registration: Registration, parts: Parts) -> GitLabRunner:
    """A runner that was not started yet; raises `SmidrError` for a registration of no use."""
    return GitLabRunner(
        registration,
        _workshop(registration, parts),
        parts.capacity,
        on_call=_on_call(parts),
    )


def make_deliverers(registration: Registration, parts: Parts) -> Mapping[str, Deliverer]:
    """Who brings notes and statuses, by the beginning of the receivers' names."""
    if registration.api_token_file is None:
        return {}
    host = parts.host()
    transport = Transport(
        registration.url,
        tls=tls_files(registration, host.home),
        clock=host.clock,
        on_call=_on_call(parts),
    )
    prefix = receiver_prefix(registration.name)
    return {prefix: ApiDeliverer(transport, registration.api_token_file)}


def _on_call(parts: Parts) -> OnCall | None:
    return None if parts.on_call is None else partial(parts.on_call, "gitlab")


def _workshop(registration: Registration, parts: Parts) -> Workshop:
    host = parts.host()
    store, home = host.store, host.home
    tls = tls_files(registration, home)
    scratch = home.root / "scratch"

    def previous_of(record: BuildRecord) -> BuildRecord | None:
        found = previous_build(store, record)
        return store.get(found.build_id) if found is not None else None

    def console_of(build_id: str) -> Path:
        return host.control_of(build_id) / "console.log"

    owner = (host.user.uid, host.user.gid) if os.geteuid() == 0 else None

    def give(directory: Path) -> None:
        if owner is not None:
            give_to(directory, owner)

    def archives() -> JobArchives:
        return JobArchives(
            home.job_caches,
            max_bytes=parts.host().agent.cache.job_caches_max_size,
            clock=host.clock,
        )

    def uploads(client: RunnerClient) -> JobUploads:
        return JobUploads(
            client,
            scratch,
            store.get,
            previous_of,
            console_of,
            agent=lambda: parts.host().agent,
            trust_of=lambda job: trust_of(job, parts.host().agent.gitlab),
        )

    return Workshop(
        home=home,
        builds=parts.builds,
        console_of=console_of,
        artifacts_of=lambda record: parts.host().artifacts_of(record),
        checkout=lambda _client: Checkout(tls=tls, owner=owner),
        uploads=uploads,
        dependencies=lambda client: Downloads(client, scratch),
        caches=JobCaches(archives),
        give=give,
        builds_of=lambda customer: store.list(customer=customer),
        trust_of=lambda job: trust_of(job, parts.host().agent.gitlab),
        tell=Teller(parts.outgoing, previous_of),
        scripts=ContainerScripts(parts.host),
        clock=host.clock,
    )
