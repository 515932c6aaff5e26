"""The options that name an agent, and the client that they lead to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from smidr_ci.api.client import AgentClient
from smidr_ci.errors import AgentUnreachableError, UsageError
from smidr_ci.home import Home

__all__ = ["Connection", "connection_options"]


@dataclass(frozen=True)
class Connection:
    """Where the agent is, and how to be let in."""

    address: str | None
    ca: Path | None
    certificate: Path | None
    key: Path | None
    token_file: Path | None

    @property
    def is_local(self) -> bool:
        """Whether the agent is this user's own on this host, and sees the same files."""
        return self.address is None or self.address.startswith(("unix:", "/"))

    @contextmanager
    def open(self) -> Iterator[AgentClient]:
        """A client of the agent; raises `AgentUnreachableError` when none is there."""
        client = self._client()
        try:
            yield client
        finally:
            client.close()

    def _client(self) -> AgentClient:
        from smidr_ci.api.local_client import LocalClient, find_agent  # noqa: PLC0415 - as needed

        home = Home.from_environment()
        if self.address is None:
            found = find_agent(home)
            if found is None:
                raise AgentUnreachableError(
                    f"no agent runs for {home.root}",
                    hint="Start one: smidr daemon. Or name another one's --address HOST:PORT.",
                )
            return found
        if self.is_local:
            path = self.address.removeprefix("unix:").removeprefix("//")
            return LocalClient(Path(path))
        return self._far_client(home)

    def _far_client(self, home: Home) -> AgentClient:
        from smidr_ci.api.addresses import resolve_endpoints  # noqa: PLC0415 - far agents only
        from smidr_ci.api.local_token import read_local_token  # noqa: PLC0415 - as above
        from smidr_ci.api.tls import client_token, load_client_tls  # noqa: PLC0415 - as above

        scheme, _, place = (self.address or "").rpartition("://")
        if scheme not in _SCHEMES:
            raise UsageError(
                f"{scheme}:// is no way to an agent", hint=f"Known: {', '.join(_SCHEMES[1:])}."
            )
        tls = None
        if self.ca is not None or self.certificate is not None or self.key is not None:
            tls = load_client_tls(self.ca, self.certificate, self.key)
        token = client_token(os.environ, self.token_file)
        for endpoint in resolve_endpoints(place):
            token = token or read_local_token(home, str(endpoint))
        if scheme.startswith("http"):
            from smidr_ci.api.local_client import LocalClient  # noqa: PLC0415 - as needed

            return LocalClient(f"{scheme}://{place}", token, tls.context if tls else None)
        from smidr_ci.api.grpc.client import GrpcClient  # noqa: PLC0415 - as needed

        return GrpcClient(self.address or "", token=token, tls=tls)


_SCHEMES = ("", "grpc", "grpcs", "http", "https")
_PATH = click.Path(path_type=Path, dir_okay=False, exists=True)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--address` and what goes with it; the command gets a `Connection`."""

    @click.option(
        "--address",
        metavar="HOST:PORT",
        envvar="SMIDR_ADDRESS",
        help="A far agent, by gRPC with TLS (in the clear on this host itself); or an address such"
        " as grpc://HOST:PORT (in the clear), https://HOST:PORT, unix:PATH. The default is this"
        " user's agent on this host.",
    )
    @click.option("--ca", type=_PATH, metavar="FILE", help="Authorities to trust for TLS, PEM.")
    @click.option("--cert", type=_PATH, metavar="FILE", help="Our certificate for TLS, PEM.")
    @click.option("--key", type=_PATH, metavar="FILE", help="Its private key, PEM.")
    @click.option(
        "--token-file",
        type=_PATH,
        metavar="FILE",
        help="File with a token; the default is the variable SMIDR_TOKEN.",
    )
    @functools.wraps(command)
    def wrapper(
        *args: Any,  # noqa: ANN401 - passed on as they are
        address: str | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        token_file: Path | None,
        **kwargs: Any,  # noqa: ANN401 - passed on as they are
    ) -> Any:  # noqa: ANN401 - the command's own
        return command(*args, connection=Connection(address, ca, cert, key, token_file), **kwargs)

    return wrapper
