"""Stores as agent.yaml describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.config.agent import load_agent
from smidr_ci.errors import ConfigError


def load(tmp_path: Path, *lines: str) -> object:
    path = tmp_path / "agent.yaml"
    text = "".join(f"    {line}\n" for line in lines)
    path.write_text(f"artifacts:\n  external_store:\n{text}")
    return load_agent(path).artifacts.external_store


@pytest.mark.parametrize(
    "url",
    [
        "file:///srv/images", "https://files.example.com:8443/ci", "http://127.0.0.1/x",
        "s3://bucket", "s3://bucket/some/prefix",
    ],
)  # fmt: skip
def test_the_kinds_of_stores_are_known_by_their_urls(tmp_path: Path, url: str) -> None:
    assert getattr(load(tmp_path, f"url: {url}"), "url", "") == url


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["url: file://srv/images"], "not file:///directory"),
        (["url: ftp://host/x"], "not file:///directory"),
        (["url: file:///srv/../etc"], r"has \.\. in its path"),
        (["url: https://host/a/%2e%2e/b"], r"has \.\. in its path"),
        (["url: s3:///prefix"], "has no bucket"),
        (["url: https://host/x", "region: eu"], "region is for s3:// only"),
        (["url: file:///srv", "ca_file: x"], "ca_file is of no use with file://"),
        (["url: s3://b", "link_days: 8"], "link_days"),
        (["url: s3://b", "public_url: file:///x"], r"not an http\(s\) URL"),
        (["public_url: https://x"], "url"),
        (["url: s3://b", "bucket: x"], "bucket"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, *lines)


@pytest.mark.parametrize("key", ["url", "public_url", "endpoint"])
@pytest.mark.parametrize("value", ["https://user:hidden@host/x", "https://host/x?token=hidden"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(
    tmp_path: Path, key: str, value: str
) -> None:
    others = [] if key == "url" else ["url: s3://bucket"]
    with pytest.raises(ConfigError, match="credentials_file") as caught:
        load(tmp_path, *others, f"{key}: {value}")
    assert "hidden" not in str(caught.value)


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("user:password\n")
    (tmp_path / "login").chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        load(tmp_path, "url: https://host/x", "credentials_file: login")
    (tmp_path / "login").chmod(0o600)
    found = load(tmp_path, "url: https://host/x", "credentials_file: login")
    assert getattr(found, "credentials_file", None) == tmp_path / "login"
