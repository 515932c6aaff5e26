"""A build in the running agent of this host: the command only asks, and shows it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from smidr_ci.api.client import AgentClient, StartRequest
from smidr_ci.builds.model import BuildRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.build_options import BuildOptions, ref_of
from smidr_ci.cli.follow import follow_build
from smidr_ci.cli.watch import Watcher

__all__ = ["build_on", "for_strangers", "variables_in"]

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
_MAX_CONFIG: Final = 1 << 20
_OWN_PREFIXES: Final = ("YOCTO_", "SMIDR_")


def build_on(
    agent: AgentClient, options: BuildOptions, watcher: Watcher, cancel: CancelToken
) -> BuildRecord:
    """Have the agent build, and show it until it is over.

    Raises `SmidrError`; when the agent goes away in the middle, the build goes on.
    """
    path = options.config_path.absolute()
    text = _read(path)
    found = variables_in(text, os.environ)
    record = agent.start(
        StartRequest(
            customer=options.customer,
            config_text=text,
            config_name=str(options.config_path),
            directory=path.parent,
            targets=options.targets,
            clean=options.clean,
            fresh=options.is_fresh,
            ref=ref_of(os.environ),
            clean_image=options.clean_image,
            fetch_only=options.fetch_only,
            locked=options.locked,
            keep_workspace=options.keep,
            is_untrusted=options.is_untrusted,
            variables=for_strangers(found) if options.is_untrusted else found,
        )
    )
    watcher.note(f"build {record.build_id} is the agent's")
    return follow_build(agent, record.build_id, watcher, cancel)


def variables_in(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment's part that the config may ask for; HOME stands for `~`.

    Which of them it gets is the agent's operator's choice.
    """
    names = {*_VARIABLE.findall(text), "HOME"}
    return {name: environ[name] for name in sorted(names) if name in environ}


def for_strangers(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that are meant for configs by their very names."""
    return {name: value for name, value in variables.items() if name.startswith(_OWN_PREFIXES)}


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes() if path.stat().st_size <= _MAX_CONFIG else b"\xff"
        return raw.decode()
    except (OSError, UnicodeDecodeError):
        # Loading it here says what is wrong with it, as it would without an agent.
        from smidr_ci.config.reading import read_config_text  # noqa: PLC0415 - only then

        return read_config_text(path, hint_if_missing="Write one with: smidr init NAME")
