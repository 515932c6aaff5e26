"""Fetchers, checksums, and access to the network."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

_RETRY: Final = "The server or the way to it failed: repeat the build, or add a mirror."

RULES: Final = (
    Rule(
        "checksum-mismatch",
        Category.CHECKSUM,
        r"(?:Checksum mismatch!|ChecksumError\()(?P<what>.{0,1200})",
        ("Checksum mismatch!", "ChecksumError("),
        Weight.DETAIL + 2,
        next_line=r"^File: '.{1,500}' has \S{1,12} checksum",
        next_within=2,
        hint="The file differs from what the recipe expects. If upstream changed it on purpose, "
        "update the checksum after a look at the difference; if a mirror or proxy broke it, "
        "delete the copy in DL_DIR.",
    ),
    Rule(
        "checksum-missing",
        Category.CHECKSUM,
        r"(?:No checksum specified for (?P<what>[^,]{1,400})|Missing SRC_URI checksum|"
        r"NoChecksumError\((?P<detail>.{0,600}))",
        ("No checksum specified", "Missing SRC_URI checksum", "NoChecksumError"),
        Weight.DETAIL + 2,
        hint='Add SRC_URI[sha256sum] = "..." for this file to the recipe.',
    ),
    Rule(
        "checksum-mismatch-old",
        Category.CHECKSUM,
        r"(?:MD5|SHA256|md5|sha256)(?:sum)? (?:mismatch|checksum).{0,200}(?:expected|does not match)|"
        r"Checksum failure (?:fetching|encountered)",
        ("mismatch", "hecksum failure"),
        Weight.LIKELY,
        where=Where.MESSAGE,
        hint="The downloaded file differs from what the recipe expects.",
    ),
    Rule(
        "network-disabled",
        Category.NETWORK_DENIED,
        r"(?:Network access disabled through BB_NO_NETWORK|NetworkAccess\(|"
        r"access to the URL \S{1,300} is (?:not allowed|denied)|UntrustedUrl\(|"
        r"URL: '\S{1,400}' is not trusted and cannot be used)",
        ("BB_NO_NETWORK", "NetworkAccess(", "access to the URL", "UntrustedUrl", "is not trusted"),
        Weight.DETAIL + 3,
        hint="The configuration forbids the download (BB_NO_NETWORK, BB_ALLOWED_NETWORKS): put the "
        "file into DL_DIR or a mirror, or allow the host.",
    ),
    Rule(
        "network-in-task",
        Category.NETWORK_DENIED,
        r"(?:Temporary failure in name resolution|Could not resolve host|Network is unreachable|"
        r"Failed to (?:resolve|connect to)|EAI_AGAIN|getaddrinfo|dial tcp|"
        r"NewConnectionError|Name or service not known|unable to resolve host|"
        r"spurious network error|Max retries exceeded with url)",
        (
            "name resolution",
            "resolve",
            "unreachable",
            "connect to",
            "EAI_AGAIN",
            "getaddrinfo",
            "dial tcp",
            "NewConnectionError",
            "service not known",
            "network error",
            "Max retries",
        ),
        Weight.DETAIL,
        needs_task=True,
        tasks=("do_configure", "do_compile", "do_install", "do_patch", "do_package", "do_populate"),
        hint="A task other than do_fetch wants the network, which BitBake does not allow since "
        "kirkstone: list what it downloads in SRC_URI (npm, crate and gomod fetchers help).",
    ),
    Rule(
        "network-of-language-tools",
        Category.NETWORK_DENIED,
        r"(?:^go: .{1,600}(?:dial tcp|no such host|connection refused)|proxy\.golang\.org.{0,200}dial tcp|"
        r"npm (?:ERR!|error) .{0,400}(?:EAI_AGAIN|ENOTFOUND|ETIMEDOUT|ECONNREFUSED|ENETUNREACH)|"
        r"Failed to establish a new connection|"
        r"(?:Could not|Couldn't) resolve host.{0,40}crates\.io|failed to (?:download|fetch).{0,80}crates\.io)",
        (
            "dial tcp",
            "no such host",
            "refused",
            "npm ERR!",
            "npm error",
            "a new connection",
            "crates.io",
        ),
        Weight.CAUSE + 4,
        hint="A build tool wants the network, which tasks other than do_fetch don't have since "
        "kirkstone: list what it downloads in SRC_URI (npm, crate and gomod fetchers help).",
    ),
    Rule(
        "npm-install-failed",
        Category.NETWORK_DENIED,
        r"All attempts to NPM install have failed",
        ("NPM install",),
        Weight.DETAIL,
        cause_visible=False,
        hint="npm could not install; most often it wants the network in a task. Its own messages "
        "are in the task's log.",
    ),
    Rule(
        "fetch-git-gone",
        Category.FETCH,
        r"^(?:fatal: (?:'.{1,400}' does not appear to be a git repository|"
        r"repository '.{1,400}' (?:does not exist|not found)|(?:remote error: )?Repository not found|"
        r"(?:[Cc]ouldn't find remote ref|Remote branch) .{1,300})|Repository not found\.$)",
        ("does not appear", "epository", "remote ref", "Remote branch"),
        Weight.CAUSE + 4,
        hint="There is no such repository or branch (or this host may not see it): correct the URL "
        "or branch in SRC_URI.",
    ),
    Rule(
        "fetch-git-fatal",
        Category.FETCH,
        r"^(?:fatal|error|remote: (?:error|fatal)): (?!not a git repository|ambiguous argument)(?P<what>.{3,400})",
        ("fatal: ", "error: "),
        Weight.CAUSE + 4,
        needs_task=True,
        tasks=("do_fetch", "do_unpack"),
        retryable=True,
        hint="git says why: check the URL, branch and protocol in SRC_URI, and that this host may "
        "read the repository.",
    ),
    Rule(
        "fetch-git-fatal-anywhere",
        Category.FETCH,
        r"^(?:fatal: |.{0,200}: fatal: )(?P<what>unable to (?:access|connect|look up)|repository '|"
        r"Could not read from remote|could not read (?:Username|Password)|Authentication failed|"
        r"remote error|Remote branch|couldn't find remote ref|The remote end hung up|"
        r"unable to find remote helper|protocol error|early EOF).{0,300}",
        ("fatal: ",),
        Weight.CAUSE + 4,
        retryable=True,
        hint="git could not reach or read the repository: check URL, protocol and access.",
    ),
    Rule(
        "fetch-ssh",
        Category.FETCH,
        r"(?:Permission denied \(publickey|Host key verification failed|no matching host key type)",
        ("publickey", "Host key verification", "host key type"),
        Weight.CAUSE + 5,
        hint="The build has no valid SSH key or known_hosts entry for this server.",
    ),
    Rule(
        "fetch-revision",
        Category.FETCH,
        r"(?:Unable to find revision (?P<rev>\S{1,80}) in branch (?P<branch>\S{1,120})|"
        r"Unable to resolve '(?P<ref>[^']{1,200})' in upstream git repository|"
        r"fatal: (?:reference is not a tree|bad object|ambiguous argument)|"
        r"revision \S{1,80} (?:is )?not (?:found|available))",
        ("Unable to find revision", "Unable to resolve '", "fatal: ", "revision "),
        Weight.DETAIL,
        hint="SRCREV is not on the branch that SRC_URI names (or the branch was renamed): correct "
        "branch= or SRCREV.",
    ),
    Rule(
        "fetch-http-gone",
        Category.FETCH,
        r"ERROR (?P<status>4(?!08|2[59])\d\d): (?P<what>.{1,80})",
        ("ERROR 4",),
        Weight.CAUSE + 3,
        where=Where.OUTPUT,
        hint="The server answers {status}: the file has moved or is gone; correct SRC_URI or add a "
        "mirror.",
    ),
    Rule(
        "fetch-http-status",
        Category.FETCH,
        r"ERROR (?P<status>[45]\d\d): (?P<what>.{1,80})",
        ("ERROR 4", "ERROR 5"),
        Weight.CAUSE + 3,
        where=Where.OUTPUT,
        retryable=True,
        hint="The server answers {status}, which may pass: try again later or add a mirror.",
    ),
    Rule(
        "fetch-wget",
        Category.FETCH,
        r"(?:unable to resolve host address|Unable to establish SSL connection|"
        r"certificate .{0,120}(?:not trusted|expired|issued by)|cannot verify .{1,200} certificate|"
        r"server certificate verification failed|SSL certificate problem|Connection (?:refused|timed out|reset)|"
        r"wget: .{1,200})",
        ("resolve host", "SSL", "ertificate", "Connection ", "wget: "),
        Weight.CAUSE + 2,
        tasks=("do_fetch",),
        retryable=True,
        hint=_RETRY,
    ),
    Rule(
        "fetch-malformed-url",
        Category.FETCH,
        r"(?:MalformedUrl\('(?P<url>[^']{0,400})|The URL: '(?P<url2>[^']{0,400})' is invalid|"
        r"ParameterError\(|MissingParameterError|NoMethodError\(|"
        r"Could not find a fetcher which supports the URL|URL .{0,300} is missing the required parameter)",
        (
            "MalformedUrl",
            "The URL: '",
            "ParameterError",
            "NoMethodError",
            "fetcher which",
            "required parameter",
        ),
        Weight.CAUSE + 3,
        hint="An entry of SRC_URI or of the mirrors is not a valid URL: check for an unset "
        "variable, a missing slash or parameter.",
    ),
    Rule(
        "fetch-srcrev-format",
        Category.FETCH,
        r"The SRCREV_FORMAT variable must be set when multiple SCMs are used",
        ("SRCREV_FORMAT",),
        Weight.CAUSE,
        hint="Set SRCREV_FORMAT: the recipe has more than one version-controlled source.",
    ),
    Rule(
        "fetch-no-srcrev",
        Category.FETCH,
        r"(?:Please set a valid SRCREV for url|Recipe uses a floating tag/branch|"
        r"SRCREV was used yet no valid SCM was found|AUTOREV/SRCPV set too late)",
        ("valid SRCREV", "floating tag", "SRCREV was used", "AUTOREV"),
        Weight.DETAIL,
        hint="Set SRCREV to a commit id in the recipe.",
    ),
    Rule(
        "fetch-file-not-found",
        Category.FETCH,
        r"(?:Unable to find file file://(?P<missing>\S{1,300}) anywhere|"
        r"file could not be found|The paths that were searched were)",
        ("Unable to find file", "file could not be found"),
        Weight.CAUSE + 2,
        hint="A file:// entry of SRC_URI is not in the directories that were searched.",
    ),
    Rule(
        "fetch-unpack",
        Category.FETCH,
        r"(?:Unpack failure for URL|Unpack command .{0,400} failed|UnpackError\()(?P<what>.{0,600})",
        ("Unpack failure", "Unpack command", "UnpackError"),
        Weight.CAUSE,
        hint="The archive can't be unpacked: it may be damaged or not of the type its name says. "
        "Delete it from DL_DIR and fetch again.",
    ),
    Rule(
        "fetch-unpack-tar",
        Category.FETCH,
        r"(?:(?:tar|gzip|xz|bzip2|unzip|zstd|7z|lzip|cpio): .{1,300}|not in gzip format.*|"
        r".*End-of-central-directory signature not found.*)",
        (
            "tar: ",
            "gzip: ",
            "xz: ",
            "bzip2: ",
            "zip: ",
            "zstd: ",
            "cpio: ",
            "gzip format",
            "End-of-central",
        ),
        Weight.CAUSE + 1,
        needs_task=True,
        tasks=("do_unpack",),
        hint="The archive can't be unpacked: it may be damaged; delete it from DL_DIR and fetch again.",
    ),
    Rule(
        "fetch-no-output",
        Category.FETCH,
        r"failed with (?:exit code|signal) \S{1,4}, (?:no output|see logfile for output)",
        ("no output", "see logfile for output"),
        Weight.LIKELY + 1,
        retryable=True,
        cause_visible=False,
        hint="The fetch command said nothing here: run it by hand, or look into the task's log.",
    ),
    Rule(
        "fetch-failed-output",
        Category.FETCH,
        r"Fetch(?:er failure: Fetch)? command .{0,5000} failed with (?:exit code|signal) \S{1,4}, output:?\s*$",
        ("failed with exit code", "failed with signal"),
        Weight.LIKELY,
        next_line=r"(?i)^(?:fatal|error|remote|npm ERR|ssh|curl|wget|.{0,200}ERROR \d{3})",
        next_within=12,
        retryable=True,
        hint="The fetch command says why in the lines below.",
    ),
    Rule(
        "fetch-error-repr",
        Category.FETCH,
        r"Bitbake Fetcher Error: (?P<what>\w{3,40}\(.{0,5500})",
        ("Bitbake Fetcher Error",),
        Weight.CAUSE,
        retryable=True,
        hint="The source can't be fetched: open the URL by hand from this host, then correct "
        "SRC_URI or add a mirror.",
    ),
    Rule(
        "fetch-unable-any-source",
        Category.FETCH,
        r"(?:Fetcher failure for URL: '?(?P<url>[^']{1,600}?)'?\. )?Unable to fetch URL .{0,600}from any source",
        ("from any source",),
        Weight.LIKELY + 5,
        retryable=True,
        hint="None of the sources has the file: open the URL by hand from this host, then correct "
        "SRC_URI or add a mirror.",
    ),
    Rule(
        "fetch-failure",
        Category.FETCH,
        r"(?:Fetcher failure(?: for URL)?|Failed to fetch URL|Fetch command failed)(?P<what>.{0,5500})",
        ("Fetcher failure", "Fetch command failed"),
        Weight.LIKELY,
        retryable=True,
        hint="The source can't be fetched: open the URL by hand from this host.",
    ),
)
