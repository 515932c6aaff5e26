"""The page docs/cli.md, from the click commands, the failure kinds and the table here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from smidr_ci.cli.main import smidr
from smidr_ci.errors import FailureKind

__all__ = ["cli_page"]

_INTRO: Final = Path(__file__).with_name("cli_intro.md")

_ENVIRONMENT: Final = (
    ("`SMIDR_HOME`", "where state and caches are kept; default `~/.smidr`"),
    (
        "`SMIDR_MAX_CONCURRENT_BUILDS`",
        "builds that the agent runs at once; wins over `limits` in `agent.yaml`",
    ),
    (
        "`DOCKER_HOST`",
        "address of the container engine, as docker takes it; `engine.url` in `agent.yaml` wins",
    ),
    (
        "`http_proxy`, `https_proxy`, `ftp_proxy`, `all_proxy`, `no_proxy`, also in capitals",
        "proxies: for git, for making builder images, and inside builds",
    ),
    (
        "`YOCTO_*`, `SMIDR_*`",
        "may stand in `smidr.yaml` as `${...}`; `substitution` in `agent.yaml` allows more names",
    ),
    ("names in `environment` of `agent.yaml`", "are handed on to BitBake and the recipes"),
    (
        "`SUDO_UID`, `SUDO_GID`",
        "who builds run as when root runs smidr through sudo, unless `engine.builder_user` says it",
    ),
    ("`SSH_AUTH_SOCK`", "the ssh agent that git may ask for layers over ssh"),
    ("`HOME`", "what `~/` means; where git's netrc and ssh files are looked for"),
)

_EXIT_CODES: Final = {
    0: "done",
    1: "the build failed",
    2: "bad usage or configuration",
    3: "layers",
    4: "container engine, builder image, disk, caches or host",
    5: "forge (not used yet)",
    6: "a fault of smidr's own",
    130: "cancelled",
}


def cli_page() -> str:
    """The whole page as Markdown."""
    parts = [
        _INTRO.read_text(encoding="utf-8").rstrip(),
        *_commands(smidr, click.Context(smidr, info_name="smidr")),
        "## Exit codes",
        _exit_codes(),
        "`smidr shell` ends with the exit code of the command that ran in it.",
        "## Environment variables",
        _table(("Variable", "Meaning"), _ENVIRONMENT),
        "Nothing else of the environment reaches BitBake.",
    ]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
        else:
            yield from _command(command, inner)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    for paragraph in (command.help or "").split("\n\n"):
        yield " ".join(paragraph.split())
    options = [_option(param, context) for param in command.params if _is_shown(param)]
    if options:
        yield _table(("Option", "Meaning"), options)


def _is_shown(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not param.hidden


def _option(param: click.Parameter, context: click.Context) -> tuple[str, str]:
    written, meaning = param.get_help_record(context) or ("", "")
    if not getattr(param, "help", ""):
        raise ValueError(f"{context.command_path}: {param.name} has no help")
    return f"`{written}`", meaning


def _exit_codes() -> str:
    kinds: dict[int, list[str]] = defaultdict(list)
    for kind in FailureKind:
        kinds[kind.exit_code].append(f"`{kind}`")
    if not kinds.keys() <= _EXIT_CODES.keys():
        raise ValueError(f"exit codes without a meaning: {kinds.keys() - _EXIT_CODES.keys()}")
    rows = [(f"{code}", text, ", ".join(kinds[code])) for code, text in _EXIT_CODES.items()]
    return _table(("Code", "Meaning", "Failure kinds"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    escaped = ([cell.replace("|", "\\|").strip() for cell in line] for line in (head, *rows))
    first, *others = (f"| {' | '.join(cells)} |" for cells in escaped)
    return "\n".join((first, "|---" * len(head) + "|", *others))
