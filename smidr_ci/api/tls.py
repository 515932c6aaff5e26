"""Certificates and keys, of the agent and of its clients, checked before anybody relies on them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from smidr_ci.config.api import Api
from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConfigError, UsageError

__all__ = [
    "ClientTls",
    "ServerTls",
    "client_token",
    "load_client_tls",
    "load_server_tls",
    "names_of_auth_context",
    "names_of_certificate",
]

_MAX_BYTES: Final = 1 << 20
_WARN_BEFORE: Final = timedelta(days=14)


@dataclass(frozen=True)
class ServerTls:
    """What a server needs; `key`, `chain` and `client_ca` are PEM, as gRPC takes them."""

    key: bytes
    chain: bytes
    client_ca: bytes | None
    expires: datetime
    context: ssl.SSLContext
    """The same for an HTTP server: TLS 1.2 or newer."""
    where: str = ""

    def problem(self, now: datetime) -> str:
        """What the operator must do about the certificate; empty when it is good for long."""
        if self.expires - now > _WARN_BEFORE:
            return ""
        verb = "has expired" if self.expires <= now else "expires"
        return f"the certificate {self.where} {verb} on {self.expires:%Y-%m-%d}: renew it"

    def __repr__(self) -> str:
        return f"ServerTls({self.where!r})"  # a traceback must not show the key


@dataclass(frozen=True)
class ClientTls:
    """What a client needs; PEM. `ca` None means the authorities that this host trusts."""

    ca: bytes | None
    key: bytes | None
    chain: bytes | None
    context: ssl.SSLContext

    def __repr__(self) -> str:
        return "ClientTls(...)"


def load_server_tls(settings: Api, now: datetime) -> ServerTls | None:
    """The server's certificate and key; None when none are set.

    Raises `ConfigError` that names the file: unreadable, no PEM, expired, not a pair.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is None or key is None:
        return None
    chain = _read(certificate)
    expires = _expiry(certificate, chain, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    key_text = read_secret(key).encode() + b"\n"
    _load_pair(context, certificate, key)
    client_ca = None
    if settings.client_ca_file is not None:
        client_ca = _load_authorities(context, settings.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return ServerTls(key_text, chain, client_ca, expires, context, str(certificate))


def load_client_tls(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ClientTls:
    """What `--ca`, `--cert` and `--key` name; raises `ConfigError` or `UsageError`."""
    if (certificate is None) != (key is None):
        raise UsageError("a certificate and its key go together", hint="Give --cert and --key.")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authorities = None
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        authorities = _load_authorities(context, ca)
    if certificate is None or key is None:
        return ClientTls(authorities, None, None, context)
    chain = _read(certificate)
    key_text = read_secret(key).encode() + b"\n"
    _load_pair(context, certificate, key)
    return ClientTls(authorities, key_text, chain, context)


def client_token(environ: Mapping[str, str], token_file: Path | None = None) -> str | None:
    """The token that a client was given: in a file, else in SMIDR_TOKEN; None without.

    Never from the command line, which other users can see. Raises `ConfigError`.
    """
    if token_file is not None:
        token, where = read_secret(token_file).strip(), str(token_file)
    else:
        token, where = environ.get("SMIDR_TOKEN", "").strip(), "SMIDR_TOKEN"
    if token and not (token.isascii() and token.isprintable() and len(token) <= 256):
        raise ConfigError("holds no token", where=where, hint="`smidr token create` makes one.")
    return token or None


def names_of_certificate(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Common name, then alternative names, of what `SSLSocket.getpeercert()` gives."""
    if not certificate:
        return ()
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    common = [value for name, value in subject if name == "commonName"]
    others = [value for _, value in certificate.get("subjectAltName", ())]
    return tuple(dict.fromkeys(str(name) for name in (*common, *others)))


def names_of_auth_context(context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The same from gRPC's `ServicerContext.auth_context()`; empty without a certificate."""
    keys = ("x509_common_name", "x509_subject_alternative_name")
    found = (name.decode(errors="replace") for key in keys for name in context.get(key, ()))
    return tuple(dict.fromkeys(found))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=str(path)) from error
    if len(raw) > _MAX_BYTES or b"-----BEGIN CERTIFICATE-----" not in raw:
        raise ConfigError(
            "holds no certificate in PEM form", where=str(path), hint="It begins with -----BEGIN."
        )
    return raw


def _expiry(path: Path, chain: bytes, now: datetime) -> datetime:
    # Python's ssl can't read a certificate of one's own.
    from cryptography import x509  # noqa: PLC0415 - 5 MB that only TLS needs

    try:
        certificate = x509.load_pem_x509_certificate(chain)
        starts, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError as error:
        raise ConfigError(f"is no valid certificate: {error}", where=str(path)) from error
    if expires <= now:
        raise ConfigError(
            f"the certificate has expired on {expires:%Y-%m-%d}",
            where=str(path),
            hint="Renew it, then start the agent again.",
        )
    if starts > now:
        raise ConfigError(
            f"the certificate is not valid before {starts:%Y-%m-%d %H:%M} UTC",
            where=str(path),
            hint="Check the clock of this host.",
        )
    return expires


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def no_passphrase() -> str:
        raise ConfigError(
            "the key has a passphrase, and nobody is there to type it",
            where=str(key),
            hint="Write the key without one into a file with mode 0600: openssl pkey.",
        )

    try:
        context.load_cert_chain(certificate, key, password=no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"the key does not belong to the certificate {certificate}", where=str(key)
            ) from error
        raise ConfigError(
            f"holds no key that can be used with {certificate} ({error.reason or 'no PEM'})",
            where=str(key),
        ) from error
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=str(key)) from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> bytes:
    raw = _read(path)
    try:
        context.load_verify_locations(cadata=raw.decode("ascii", errors="ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError("holds no certificate that can be used", where=str(path)) from error
    return raw
