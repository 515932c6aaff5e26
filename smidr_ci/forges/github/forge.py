"""One registration with GitHub at work: checks go out, hints come in, steps are judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from smidr_ci.builds.model import BuildRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.forges.deliveries import Deliverer
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.artifact_uploads import AgentStore, ArtifactUploads
from smidr_ci.forges.github.check_delivery import CheckDeliverer
from smidr_ci.forges.github.checks import CheckRuns
from smidr_ci.forges.github.elsewhere import OperatorStore
from smidr_ci.forges.github.events import Hint
from smidr_ci.forges.github.facts import JobFacts
from smidr_ci.forges.github.handling import HintHandler
from smidr_ci.forges.github.handling import Parts as HandlerParts
from smidr_ci.forges.github.missed import HookPoller, MissedHooks
from smidr_ci.forges.github.oidc import IdentityTokens
from smidr_ci.forges.github.options import GitHubOptions, receiver_prefix
from smidr_ci.forges.github.rebuilding import Rebuilds
from smidr_ci.forges.github.registering import client_for
from smidr_ci.forges.github.rendering import RUN_AGAIN, approval_body, approved_body
from smidr_ci.forges.github.reporter import CheckReporter
from smidr_ci.forges.github.results import ResultsService, RuntimeToken
from smidr_ci.forges.github.runners.options import Mode, RunnerOptions
from smidr_ci.forges.github.runners.ports import LocalRunnersMaker
from smidr_ci.forges.github.runs import WorkflowRuns
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.targets import CheckNames, CheckTarget, Targets
from smidr_ci.forges.github.transport import Transport
from smidr_ci.forges.github.trust import Verdict, decide
from smidr_ci.forges.github.webhooks import put_hint
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration
from smidr_ci.forges.status import RegistrationStatus
from smidr_ci.forges.tls import TlsFiles

if TYPE_CHECKING:  # only hosts with runners on demand need it
    from smidr_ci.forges.github.runners.on_demand import OnDemand

__all__ = ["APPROVAL", "GitHubForge"]

log = logging.getLogger(__name__)

APPROVAL: Final = "smidr / approval"
"""The check with the button, for a job that gets no runner before it is pressed."""
_POLL_S: Final = 60.0
_MISSED_S: Final = 300.0


class GitHubForge:
    """What the agent and its step service need of one registration; thread-safe.

    With `make_runners` it has official runners of its own, if the registration says so.
    """

    def __init__(
        self,
        registration: Registration,
        parts: Parts,
        previous_of: Callable[[BuildRecord], BuildRecord | None] | None = None,
        make_runners: LocalRunnersMaker | None = None,
    ) -> None:
        """Raises `SmidrError` for a registration of no use."""
        self.registration = registration
        self.site = Site.of(registration.url)
        self.options = GitHubOptions.of(registration)
        self._parts = parts
        host = parts.host()
        self._clock = host.clock
        files = (registration.tls_ca_file, registration.tls_cert_file, registration.tls_key_file)
        self._tls = TlsFiles(*files)
        self.transport = Transport(self._tls, host.clock)
        self._on_call = None if parts.on_call is None else partial(parts.on_call, "github")
        self.client = client_for(
            registration, clock=host.clock, transport=self.transport, on_call=self._on_call
        )
        self.checks = CheckRuns(self.client)
        self.runs = WorkflowRuns(self.site, self.client)
        self.identity = IdentityTokens(
            self.site, self.transport, issuer=self.options.token_issuer, clock=host.clock
        )
        self.approvals = Approvals(host.home, registration.name)
        self._targets = Targets(host.home, registration.name)
        self._names = CheckNames(host.home, registration.name)
        self._prefix = receiver_prefix(registration.name)
        self._previous_of = previous_of
        self.reporter = CheckReporter(
            self._prefix,
            parts.builds,
            parts.outgoing,
            self._targets,
            self._names,
            clock=host.clock,
            shows_progress=self.client.credentials.is_app,
        )
        self._poller = self._make_poller()
        self.on_demand = self._make_on_demand(make_runners)

    def deliverers(self) -> Mapping[str, Deliverer]:
        """Who brings checks and sees to hints, by the beginning of the receivers' names."""
        host = self._parts.host()
        checks = CheckDeliverer(
            self.client,
            self._parts.builds.view,
            previous_of=self._previous_of,
            over=self._targets.remove,
        )
        rebuilds = Rebuilds(
            self._parts.builds,
            host.home,
            self.client,
            lambda customer: host.store.list(customer=customer, limit=200),
        )
        hints = HintHandler(
            HandlerParts(
                client=self.client,
                runs=self.checks,
                service=self._parts.builds,
                reporter=self.reporter,
                names=self._names,
                approvals=self.approvals,
                rebuilds=rebuilds,
                jobs_changed=self._jobs_changed,
                approved=self._approved,
            )
        )
        return {f"{self._prefix}check:": checks, f"{self._prefix}hook:": hints}

    # What the step service uses.

    def judge(self, facts: JobFacts, built_sha: str) -> Verdict:
        """Whether a job may build this commit, and how far it is trusted."""
        return decide(
            facts,
            self._parts.host().agent.github,
            built_sha=built_sha,
            approved_by=self.approvals.by(facts.repository, facts.head_sha),
        )

    def hold(self, target: CheckTarget, reason: str, afterwards: str = RUN_AGAIN) -> None:
        """Show a check with the button that approves the commit; raises `ForgeError`."""
        external_id = f"approval:{target.head_sha}"
        listed = self.checks.listed(target.repository, target.head_sha, target.name)
        if not any(run.get("external_id") == external_id for run in listed):
            body = approval_body(target, external_id, reason, self._clock.now(), afterwards)
            self.checks.create(target.repository, body)

    def uploads(
        self,
        runtime_token: str,
        results_url: str,
        build_id: str,
        cancel: CancelToken,
        say: Callable[[str], None],
    ) -> ArtifactUploads:
        """Uploads of one build to its job; raises `ForgeError` where there can be none."""
        token, host = RuntimeToken.of(runtime_token), self._parts.host()
        service = ResultsService(self.site, results_url, token, self.transport, pause=cancel.wait)
        return ArtifactUploads(
            service=service,
            transport=self.transport,
            store=OperatorStore(
                host.agent.artifacts.external_store,
                lambda: host.store.get(build_id),
                AgentStore(build_id, self.options.public_url),
                cancel,
                say,
            ),
            largest_bytes=host.agent.github.largest_artifact,
            cancel=cancel,
            say=say,
        )

    # What the agent uses of every forge.

    def start(self) -> None:
        """Go on with the checks of an earlier process, and look for webhooks that were missed."""
        self.reporter.start()
        if self._poller is not None:
            self._poller.start()
        if self.on_demand is not None:
            self.on_demand.start()

    def update(self, registration: Registration) -> None:
        """Take over another pause, limit or customer."""
        self.registration = registration
        if self.on_demand is not None:
            self.on_demand.wake()

    def drain(self) -> None:
        """Start no more runners, and let go of idle ones; checks go out to the end."""
        if self.on_demand is not None:
            self.on_demand.drain()

    def stop(self) -> None:
        """End; the next process goes on, also with the runners."""
        if self._poller is not None:
            self._poller.stop(0.0)
        if self.on_demand is not None:
            self.on_demand.stop()  # which still has calls to make
        self.client.sender.end()
        self.reporter.stop()
        self.transport.close()

    def running(self) -> list[Any]:
        """Builds whose checks are not over, and runners."""
        builds = [build_id for build_id, _ in self._targets.all()]
        return [*builds, *(self.on_demand.described() if self.on_demand is not None else ())]

    @property
    def expected_builds(self) -> int:
        """Runners that wait for a job, which may order a build; a step's order is one at once."""
        return self.on_demand.expected_builds if self.on_demand is not None else 0

    @property
    def is_busy(self) -> bool:
        """Whether a draining agent should wait: for jobs, whose steps may want to build."""
        return self.on_demand is not None and self.on_demand.is_busy

    def status(self) -> RegistrationStatus:
        """What it does now."""
        problem = self._poller.problem if self._poller is not None else ""
        told = self.on_demand.told() if self.on_demand is not None else None
        state = "paused" if self.registration.is_paused else "asking"
        return RegistrationStatus(
            name=self.registration.name,
            forge="github",
            url=self.registration.url,
            state=told.state if told is not None and state == "asking" else state,
            detail="; ".join(filter(None, (told.detail if told is not None else "", problem))),
            jobs=tuple(str(item) for item in self.running()),
            runners=told.figures if told is not None else {},
            runner_version=told.version if told is not None else "",
        )

    def _make_on_demand(self, make_runners: LocalRunnersMaker | None) -> OnDemand | None:
        options = RunnerOptions.of(self.registration)
        if make_runners is None or options.mode is Mode.ATTACH:
            return None
        from smidr_ci.forges.github.runners.assembly import (  # noqa: PLC0415 - not for all hosts
            Surroundings,
            make_on_demand,
        )

        around = Surroundings(
            registration=lambda: self.registration,
            site=self.site,
            client=self.client,
            runs=self.runs,
            approvals=self.approvals,
            parts=self._parts,
            tls=self._tls,
            on_call=self._on_call,
            hold=self._hold if self.client.credentials.is_app else None,
        )
        return make_on_demand(around, options, make_runners)

    def _hold(self, repository: str, sha: str, reason: str) -> None:
        target = CheckTarget(repository, sha, APPROVAL)
        self.hold(target, reason, "The job begins by itself then.")

    def _make_poller(self) -> HookPoller | None:
        if not self.client.credentials.is_app:
            return None
        name = self.registration.name
        state_file = self._parts.host().home.root / "github" / name / "hooks.json"
        missed = MissedHooks(self.client, self._clock, self._accept, state_file)
        if self.options.webhook_secret_file is not None:
            return HookPoller(f"{self._prefix}missed", missed.redeliver, _MISSED_S)
        return HookPoller(f"{self._prefix}poll", missed.fetch, _POLL_S)

    def _jobs_changed(self, repository: str) -> None:
        if self.on_demand is not None:
            self.on_demand.heard(repository)

    def _approved(self, repository: str, sha: str) -> None:
        if self.on_demand is None:
            return
        self.on_demand.heard(repository)
        login = self.approvals.by(repository, sha)
        for run in self.checks.listed(repository, sha, APPROVAL):
            if run.get("conclusion") == "action_required":
                body = approved_body(login, self._clock.now())
                self.checks.update(repository, int(run["id"]), body)

    def _accept(self, hint: Hint) -> None:
        if self.site.covers(hint.repository):
            put_hint(self._parts.outgoing, self._prefix, hint)
