"""The part of `agent.yaml` about the agent's API."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from smidr_ci.config.base import MisfitError, Model
from smidr_ci.config.host_files import HostFile
from smidr_ci.config.matching import Called, Matching

__all__ = ["Api"]

ListenAddress = Annotated[
    str,
    Matching(
        "HOST:PORT",
        r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{0,253}):[0-9]{1,5}",
        "an address such as 127.0.0.1:50051 or :50051",
    ),
]
CertificateName = Annotated[
    str, Matching("name", r"[^\x00-\x1f\x7f]{1,256}", "the name in a certificate")
]
ClientScope = Literal["read", "build", "admin"]


class Api(Model):
    """The agent's API over the network; over its unix sockets it always answers."""

    address: ListenAddress | None = None
    """Where gRPC listens: `127.0.0.1:50051`, `[::1]:50051`, or `:50051` for all addresses. Any
    but this host's own needs TLS. By default only the unix socket."""
    http_address: ListenAddress | None = None
    """The same for HTTP."""
    tls_certificate_file: HostFile | None = None
    """The server's certificate with its chain, PEM; used on all addresses."""
    tls_key_file: HostFile | None = None
    """Its private key, PEM, without passphrase."""
    client_ca_file: HostFile | None = None
    """Certificates of the authorities that sign clients' certificates, PEM: every client needs a
    certificate then."""
    client_certificates: Annotated[
        dict[CertificateName, ClientScope], Called("names and scopes")
    ] = Field(default_factory=dict)
    """What a client without token may do: common or alternative name of its certificate, and
    `read`, `build` or `admin`. Other certificates may `build`."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000), Strict(), Called("number")] = (
        1200
    )
    """Requests of one caller over the network; as many may come at once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            missing = "tls_key_file" if self.tls_key_file is None else "tls_certificate_file"
            raise MisfitError("TLS needs a certificate and its key", (), f"Set {missing} too.")
        if self.client_ca_file is not None and self.tls_certificate_file is None:
            raise MisfitError(
                "clients show certificates over TLS only",
                ("client_ca_file",),
                "Set tls_certificate_file and tls_key_file too.",
            )
        if self.client_certificates and self.client_ca_file is None:
            raise MisfitError(
                "no client's certificate is looked at without client_ca_file",
                ("client_certificates",),
                "Set client_ca_file, or remove this.",
            )
        return self
