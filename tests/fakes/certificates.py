"""Certificates for tests: an authority of one's own, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "write_key"]

Key = ec.EllipticCurvePrivateKey


def write_key(path: Path, key: Key, passphrase: bytes | None = None) -> Path:
    """Write a private key as PEM, mode 0600."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    raw = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    path.write_bytes(raw)
    path.chmod(0o600)
    return path


class Authority:
    """Signs certificates; its own lies in `<folder>/<name>.pem`."""

    def __init__(self, folder: Path, name: str = "ca", now: datetime | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._now = now or datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._builder(self._name, self._key, days=3650).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path = folder / f"{name}.pem"
        self._write(self.path, own.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        name: str,
        *,
        days: float = 90,
        starts_in_days: float = -1,
        alternative: tuple[str, ...] = (),
        key: Key | None = None,
        is_client: bool = False,
    ) -> tuple[Path, Path, Key]:
        """Paths of a certificate and its key for `name`, and for localhost unless for a client."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(one) for one in alternative]
        if not is_client:
            names += [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1")),
            ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, days=days, starts_in_days=starts_in_days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        path = self.folder / f"{name}.pem"
        self._write(path, builder.sign(self._key, hashes.SHA256()))
        return path, write_key(self.folder / f"{name}.key", key), key

    def _builder(
        self, subject: x509.Name, key: Key, *, days: float, starts_in_days: float = -1
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now + timedelta(days=starts_in_days))
            .not_valid_after(self._now + timedelta(days=days))
        )

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
