"""The build host and BitBake itself: memory, disk, time, server, sanity, cancelling."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

_LESS: Final = (
    "The kernel killed a process for lack of memory: lower BB_NUMBER_THREADS or PARALLEL_MAKE, or "
    "give the build more memory. The source is not to blame."
)

RULES: Final = (
    Rule(
        "oom-compiler",
        Category.OUT_OF_MEMORY,
        r"(?:fatal )?error: Killed signal terminated program (?P<program>\S{1,80})",
        ("Killed signal",),
        Weight.ROOT + 5,
        hint=_LESS,
        retryable=True,
    ),
    Rule(
        "oom-killed",
        Category.OUT_OF_MEMORY,
        r"(?:^|[\s:])(?:\d{1,8}\s{1,4})?Killed(?:\s{2,}.{0,400})?$|signal: 9, SIGKILL|SIGKILL: kill|"
        r"c(?:c1|c1plus|lang).{0,40}: (?:Killed|out of memory)",
        ("Killed", "SIGKILL", "out of memory"),
        Weight.ROOT,
        hint=_LESS,
        retryable=True,
        where=Where.OUTPUT,
    ),
    Rule(
        "oom-allocation",
        Category.OUT_OF_MEMORY,
        r"(?:virtual memory exhausted|Cannot allocate memory|cannot allocate memory|out of memory allocating|"
        r"(?:instance of '|what\(\):\s{1,4})std::bad_alloc|LLVM ERROR: out of memory|memory exhausted|Out of memory: Kill|Out of memory: killed|"
        r"(?:^|: )MemoryError|oom-kill|JavaScript heap out of memory|java\.lang\.OutOfMemoryError|fatal error: runtime: out of memory|unable to allocate memory)",
        ("emory", "bad_alloc", "oom-kill"),
        Weight.ROOT - 1,
        hint=_LESS,
        retryable=True,
    ),
    Rule(
        "disk-full",
        Category.DISK_SPACE,
        r"(?:No space left on device|Disk quota exceeded|ENOSPC|No new tasks can be executed since the disk space monitor|"
        r"Immediately (?:abort|halt) since the disk space monitor|The free (?:space|inode) (?:of|on) .{1,200} is running low|"
        r"free (?:space|inodes?).{0,200}(?:running low|less than))",
        ("No space left", "quota exceeded", "ENOSPC", "disk space monitor", "running low"),
        Weight.ROOT + 2,
        hint="A file system of the build host is full: free space (sstate, downloads, old TMPDIRs), "
        "use rm_work, or move TMPDIR.",
        retryable=False,
        warning=True,
    ),
    Rule(
        "inotify-watches",
        Category.SANITY,
        r"(?:exceeds fs\.inotify|inotify watch limit|max_user_watches|max_user_instances)",
        ("inotify", "max_user"),
        Weight.ROOT + 3,
        hint="The host's limit of inotify watches is too low: raise fs.inotify.max_user_watches "
        "(sysctl).",
        stands_alone=True,
    ),
    Rule(
        "sanity-list",
        Category.SANITY,
        r"config sanity checker detected a potential misconfiguration",
        ("potential misconfiguration",),
        Weight.DETAIL,
        next_line=r"^\s{0,8}(?!Either fix|Following is the list|see sanity\.conf|at your own)\S.{3,400}",
        next_within=8,
        hint="OE-Core's sanity check refuses this host or configuration: do what the line asks.",
        stands_alone=True,
    ),
    Rule(
        "sanity-hosttools",
        Category.SANITY,
        r"required tools \(as specified by HOSTTOOLS\) appear to be unavailable in PATH",
        ("specified by HOSTTOOLS",),
        Weight.ROOT,
        next_line=r"^\s{1,8}\S{1,60}(?:\s|$)",
        next_within=3,
        hint="Install these programs on the build host (or in the builder image).",
        stands_alone=True,
    ),
    Rule(
        "sanity-tmpdir",
        Category.SANITY,
        r"(?:Error, TMPDIR has changed location|TMPDIR is setuid|The TMPDIR: .{1,200} can't be)",
        ("TMPDIR",),
        Weight.DETAIL,
        hint="TMPDIR was moved: delete it and build again, or move it back.",
        stands_alone=True,
    ),
    Rule(
        "sanity-locale",
        Category.SANITY,
        r"(?:Please use a locale setting which supports UTF-8|Your system needs to support the \S{1,40} locale|"
        r"Please install (?:a )?Python|requires Python [\d.]{1,8}|Do not use Bitbake as root|"
        r"is not user configurable|User namespaces are not usable by BitBake)",
        ("UTF-8", "locale", "Python", "as root", "User namespaces"),
        Weight.DETAIL,
        hint="The host does not meet what this release of BitBake needs: the line says what.",
        stands_alone=True,
    ),
    Rule(
        "sanity-old-configuration",
        Category.SANITY,
        r"Your version of (?P<name>[\w.]{1,40}\.conf) (?:was generated from|has the wrong version|is too old)",
        ("Your version of",),
        Weight.ROOT,
        hint="{name} in the build directory comes from another release: merge the changes of the "
        "sample and set its version number (or remove the number's line).",
        stands_alone=True,
    ),
    Rule(
        "network-uninative",
        Category.SANITY,
        r"(?:Fetcher failure for URL: '.{1,200}'\. )?(?:URL \S{1,200} doesn't work|Please ensure your host's network is configured correctly|"
        r"Please ensure your network is configured)",
        ("network is configured", "doesn't work"),
        Weight.DETAIL,
        hint="The host has no way to the sites of CONNECTIVITY_CHECK_URIS: set up the network or "
        "proxy, or BB_NO_NETWORK.",
        stands_alone=True,
        retryable=True,
    ),
    Rule(
        "server-lock",
        Category.SERVER,
        r"Unable to acquire lock '?(?P<file>[^',]{1,400})'?, (?P<what>.{1,200})",
        ("Unable to acquire lock",),
        Weight.ROOT,
        hint="BitBake can't write its lock in the build directory: check owner and mode, and that "
        "no other BitBake runs there.",
        stands_alone=True,
    ),
    Rule(
        "server-hash",
        Category.SERVER,
        r"(?:(?:Hash|hash|PR|hashserv|prserv).{0,80}(?:server|Server|service).{0,200}(?:fail|error|unable|refused|timeout|not (?:start|reach)|disconnect)|"
        r"Error (?:contacting|connecting to) .{0,60}(?:server|service)|"
        r"error while attempting to bind on address|Can NOT get PRAUTO|"
        r"ConnectionClosedError: .{1,200}|Unable to connect to hash)",
        ("erver", "service", "bind on address", "PRAUTO", "ConnectionClosed", "hash"),
        Weight.CAUSE + 1,
        hint="The hash equivalence or PR server can't be reached or started: check BB_HASHSERVE, "
        "PRSERV_HOST and that localhost resolves.",
        stands_alone=True,
        retryable=True,
    ),
    Rule(
        "server-start",
        Category.SERVER,
        r"(?:Unable to (?:start|connect to) bitbake server|bitbake-server might have died|No reply from (?:the )?server|"
        r"Timeout while waiting for a reply from the bitbake server|Server(?: is)? not responding|server (?:has )?(?:died|crashed)|"
        r"Could not connect to server|BitBake server .{0,60}(?:died|crash|failed|timeout)|Lost connection to|"
        r"Worker process .{0,80}exited|fakeroot worker|Server returned error|Connection to (?:the )?server)",
        ("erver", "worker", "Worker", "Lost connection"),
        Weight.SIGN + 6,
        hint="BitBake's server did not start or died: the end of bitbake-cookerdaemon.log in the "
        "build directory says why.",
        stands_alone=True,
        retryable=True,
        cause_visible=False,
    ),
    Rule(
        "uncaught",
        Category.PYTHON_EXCEPTION,
        r"(?:An uncaught exception occurred in|Uncaught exception|Running (?:idle|command) function|"
        r"Command execution failed: Traceback|Execution of event handler '(?P<what>[^']{1,120})' failed|"
        r"Error executing a python function)",
        ("ncaught exception", "function", "Traceback", "event handler"),
        Weight.SIGN + 2,
        hint="BitBake's own code failed; the last line of the traceback says why.",
        cause_visible=False,
        stands_alone=True,
        next_line=r"^(?:Exception: )?(?:\w+\.){0,5}[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Failure)\b: ?.{0,500}",
        next_within=60,
    ),
    Rule(
        "cancelled",
        Category.CANCELLED,
        r"(?:Keyboard Interrupt, (?:closing down|stopping)|Execution was interrupted, returning|"
        r"The (?:job|operation|build|runner) (?:was|has been) cancell?ed|The operation was canceled|"
        r"Received SIGTERM|Build was aborted|Aborted by |Sending interrupt signal to process|Job's been canceled)",
        ("Interrupt", "interrupted", "cancel", "SIGTERM", "borted", "interrupt signal"),
        Weight.SIGN,
        hint="Somebody or something stopped the build.",
        stands_alone=True,
    ),
    Rule(
        "timeout",
        Category.TIMEOUT,
        r"(?:The job (?:running on runner .{1,80} )?(?:has )?exceeded the maximum (?:execution )?time|execution took longer than|"
        r"Job execution timed out|The action .{1,120} has timed out|Cancelling (?:nested steps )?due to timeout|"
        r"Timeout has been exceeded|Build timed out|TimeoutExpired|timed out after \d{1,8})",
        (
            "exceeded the maximum",
            "took longer than",
            "timed out",
            "timeout",
            "Timeout",
            "TimeoutExpired",
        ),
        Weight.DETAIL,
        hint="The time limit ended the build: raise it, or make the shared caches reachable.",
        retryable=True,
        where=Where.ANY,
    ),
)
