"""Git URLs: what is let through, and what a stranger must not smuggle to git."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.config.giturl import check_git_url

GOOD = [
    "https://git.yoctoproject.org/poky",
    "https://github.com/openembedded/bitbake.git",
    "https://builder@dev.azure.com/org/project/_git/layer",
    "http://git.example.com:8080/a/b.git",
    "https://[2001:db8::1]/layer.git",
    "ssh://git@git.example.com:2222/~team/layer.git",
    "git://git.openembedded.org/bitbake",
    "git@github.com:team/meta-team.git",
    "deploy_bot@gerrit:29418/layer",
    "file:///srv/git/layer.git",
    "file://localhost/srv/git/layer.git",
    "https://example.com/schöne/layer.git",
]

BAD = {
    "ext::sh": "transport helper",
    "fd::17": "transport helper",
    "::https://example.com/x": "transport helper",
    "ext::sh -c touch% /tmp/x": "control character",
    "--upload-pack=touch": "starts with -",
    "-x@host:path": "starts with -",
    "ssh://-oProxyCommand=id/x": "no valid host",
    "ssh://git@-oProxyCommand=id/x": "no valid host",
    "ssh://-l@host/x": "no valid host",
    "git@-oProxyCommand=id:x": "not a git URL",
    "git@host:-x": "not a git URL",
    "https://user:secret@example.com/x": "password or token",
    "https://glpat-abcdefgh@example.com/x": "password or token",
    "https://ghp_0123456789@github.com/x": "password or token",
    "https://0123456789abcdef0123456789abcdef@example.com/x": "password or token",
    "https://a@b:c@example.com/x": "password or token",
    "https://example.com/x.git?private_token=abc": "query or fragment",
    "https://example.com/x.git#abc": "query or fragment",
    "git://example.com/x;protocol=https": ";options",
    "https://example.com/x%0ahost=evil": "control character",
    "https://example.com/x%00": "control character",
    "https://exa mple.com/x": "control character",
    "https://example.com/\u202ex": "control character",
    "file://relative/path": "relative file URL",
    "file:///srv/../etc/repo": "with \\.\\.",
    "ftp://example.com/x": "scheme ftp",
    "HTTPS://example.com/x": "scheme HTTPS",
    "https:///x": "no valid host",
    "https://example.com": "no valid host",
    "https://%2doProxyCommand/x": "no valid host",
    "/srv/git/layer.git": "not a git URL",
    "../layer": "not a git URL",
    "": "at most",
    "https://example.com/" + "x" * 3000: "at most",
}


@pytest.mark.parametrize("url", GOOD)
def test_usual_urls_are_taken_as_they_are(url: str) -> None:
    assert check_git_url(url) == url


@pytest.mark.parametrize("url", BAD)
def test_dangerous_or_useless_urls_are_refused_with_the_reason(url: str) -> None:
    with pytest.raises(ValueError, match=BAD[url]):
        check_git_url(url)


@pytest.mark.parametrize("secret", ["secret", "glpat-abcdefgh", "0123456789abcdef" * 2])
def test_the_message_about_a_secret_does_not_repeat_it(secret: str) -> None:
    with pytest.raises(ValueError, match="password or token") as caught:
        check_git_url(f"https://{secret}:{secret}@example.com/x")
    assert secret not in str(caught.value)


@given(st.text(max_size=200))
def test_whatever_is_let_through_can_be_no_option_and_no_helper(text: str) -> None:
    for url in (text, f"https://{text}", f"ssh://{text}/x", f"git@{text}", f"file://{text}"):
        try:
            check_git_url(url)
        except ValueError:
            continue
        assert not url.startswith("-")
        assert "://-" not in url
        assert "@-" not in url.split("/")[0]
        assert url.isprintable()
        assert " " not in url
        assert not url.split("//")[0].endswith("::")
