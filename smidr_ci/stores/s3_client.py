"""boto3 set up for us, and its errors in our words."""

from __future__ import annotations

import configparser
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from smidr_ci.config.host_files import read_secret
from smidr_ci.config.stores import StoreSettings
from smidr_ci.errors import ConfigError, FailureKind
from smidr_ci.stores.model import StoreError

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

__all__ = ["is_missing", "make_client", "refused", "require_boto3", "transfer_config", "words"]

_MOST_PARTS: Final = 9_000
"""S3 takes 10,000."""
_AT_ONCE: Final = 2
_ATTEMPTS: Final = 5
_CONNECT_S: Final = 20
_ANSWER_S: Final = 120
_REFUSED: Final = "AccessDenied"
_HINTS: Final = {
    "NoSuchBucket": "Make the bucket, or mend 'url' of the store.",
    "InvalidAccessKeyId": "The key in its credentials_file is not known there.",
    "SignatureDoesNotMatch": "The secret in its credentials_file does not fit its key.",
    _REFUSED: "The login needs s3:GetObject, s3:PutObject, s3:DeleteObject,"
    " s3:AbortMultipartUpload, and s3:ListBucket for the bucket.",
    "PermanentRedirect": "Set 'region' of the store to that of the bucket.",
    "AuthorizationHeaderMalformed": "Set 'region' of the store to that of the bucket.",
    "RequestTimeTooSkewed": "Set this host's clock.",
    "XMinioStorageFull": "The store is full; old objects can go.",
}
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL: Final = frozenset({"XMinioStorageFull", "QuotaExceeded", "507"})


def require_boto3(settings: StoreSettings) -> None:
    """Raises `ConfigError` that says what to install."""
    try:
        import boto3  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise ConfigError(
            "S3 needs the library boto3, which is not installed",
            where=settings.url,
            hint="Install it where smidr is: pip install 'smidr-ci[s3]'",
        ) from error


def make_client(settings: StoreSettings) -> S3Client:
    """A client, which is thread-safe; raises `ConfigError` without a usable login."""
    import boto3  # noqa: PLC0415 - optional
    from botocore.config import Config  # noqa: PLC0415 - same
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - same

    config = Config(
        signature_version="s3v4",
        connect_timeout=_CONNECT_S,
        read_timeout=_ANSWER_S,
        retries={"mode": "standard", "max_attempts": _ATTEMPTS},
        # Signed bodies prove every byte, with any server; the newer checksums are not known to all.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "payload_signing_enabled": True,
            "addressing_style": "path" if settings.endpoint else "auto",
        },
    )
    try:
        session = boto3.session.Session(**_login(settings))
        return session.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region or session.region_name or "us-east-1",
            verify=str(settings.ca_file) if settings.ca_file is not None else None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"can't use the S3 store: {error}", where=settings.url) from error


def _login(settings: StoreSettings) -> dict[str, Any]:
    """Empty for AWS's own ways: environment, files, instance."""
    if settings.credentials_file is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    where = str(settings.credentials_file)
    hint = "Write [default], aws_access_key_id = ..., aws_secret_access_key = ..."
    try:
        parser.read_string(read_secret(settings.credentials_file))
        section = parser["default"]
        found = {
            "aws_access_key_id": section["aws_access_key_id"],
            "aws_secret_access_key": section["aws_secret_access_key"],
            "aws_session_token": section.get("aws_session_token"),
        }
    except (configparser.Error, KeyError):
        # Without the cause: it quotes the line.
        raise ConfigError(
            "is not in the format of ~/.aws/credentials", where=where, hint=hint
        ) from None
    return found


def transfer_config(size_bytes: int, part_bytes: int) -> TransferConfig:
    """Parts so big that they are few enough, and few in memory."""
    from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - optional

    config = TransferConfig(
        multipart_threshold=part_bytes,
        multipart_chunksize=max(part_bytes, -(-size_bytes // _MOST_PARTS)),
        max_concurrency=_AT_ONCE,
        preferred_transfer_client="classic",
    )
    config.max_in_memory_upload_chunks = _AT_ONCE
    return config


@contextlib.contextmanager
def words(where: str, what: str) -> Iterator[None]:
    """boto3's errors become `StoreError`."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415 - optional
    from botocore.exceptions import (  # noqa: PLC0415 - same
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
    )

    try:
        yield
    except NoCredentialsError as error:
        raise StoreError(
            f"can't {what}: no login for S3 was found",
            where=where,
            hint="Set credentials_file of the store, or AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY in the agent's environment.",
        ) from error
    except ClientError as error:
        raise _refusal(where, what, error) from error
    except Boto3Error as error:  # the library's wrapping of a ClientError in words only
        raise StoreError(
            f"can't {what}: {error}", where=where, hint=_hint_in(str(error))
        ) from error
    except BotoCoreError as error:
        is_passing = isinstance(error, HTTPClientError)
        raise StoreError(f"can't {what}: {error}", where=where, is_passing=is_passing) from error


def is_missing(error: Exception) -> bool:
    """Whether S3 says that there is no such object."""
    return _code(error) in _MISSING


def refused(error: StoreError) -> bool:
    """Whether S3 said that this login may not do it; it says so of missing objects too."""
    return error.__cause__ is not None and _code(error.__cause__) in {_REFUSED, "403"}


def _refusal(where: str, what: str, error: Exception) -> StoreError:
    code = _code(error)
    status = int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    message = _answer(error).get("Error", {}).get("Message", "")
    return StoreError(
        f"can't {what}: the store answers {code} {message}".rstrip(),
        where=where,
        hint=_HINTS.get(_REFUSED if code == "403" else code, ""),
        kind=FailureKind.DISK if code in _FULL else None,
        is_passing=status >= 500 or code in {"SlowDown", "RequestTimeout"},
    )


def _hint_in(text: str) -> str:
    return next((hint for code, hint in _HINTS.items() if f"({code})" in text), "")


def _code(error: BaseException) -> str:
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: BaseException) -> dict[str, Any]:
    found = getattr(error, "response", None)
    return found if isinstance(found, dict) else {}
