"""Recipes that fail, wait or misbehave, for the hello project: each one a target of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr, wait_until

__all__ = ["add_fault_recipes", "console_of", "control_of", "wait_for_console"]

_RECIPES: Mapping[str, str] = MappingProxyType(
    {
        "patient": """
            bbplain "patient waits"
            while [ ! -e /smidr/src/go ]; do sleep 0.1; done
        """,
        "stubborn": """
            trap '' INT TERM HUP
            bbplain "stubborn ignores signals"
            while :; do sleep 1; done
        """,
        "hungry": "head -c 2000m /dev/zero | tail > /dev/null",
        "fat": "head -c 2000m /dev/zero > fat",
        "broken": """
            echo 'int main(void) { return no_such_name; }' > broken.c
            ${CC} broken.c
        """,
        "leaky": """
            mkdir -p "${DEPLOY_DIR_IMAGE}"
            echo fine > "${DEPLOY_DIR_IMAGE}/fine.txt"
            ln -s /etc/passwd "${DEPLOY_DIR_IMAGE}/absolute.txt"
            ln -s ../../../../conf/local.conf "${DEPLOY_DIR_IMAGE}/relative.txt"
        """,
        "hostile": r"""
            bbplain 'red \033[31mplain bell \007 title \033]0;owned\007'
        """,
    }
)


def add_fault_recipes(project: HelloProject) -> None:
    """Add all of them; `patient` waits for a file `go` in the project's work directory."""
    folder = project.layer / "recipes" / "faults"
    folder.mkdir()
    for name, body in _RECIPES.items():
        (folder / f"{name}_1.0.bb").write_text(f"do_compile() {{\n{body}\n}}\n")
    project.prepare()


def control_of(smidr: Smidr, customer: str) -> Path | None:
    """The control directory of the customer's only build, once there is one."""
    return next(smidr.home.glob(f"builds/{customer}-*/control"), None)


def console_of(smidr: Smidr, customer: str) -> str:
    """What BitBake has said so far in the customer's only build."""
    control = control_of(smidr, customer)
    path = control / "console.log" if control else None
    return path.read_text(errors="replace") if path and path.exists() else ""


def wait_for_console(smidr: Smidr, customer: str, text: str) -> None:
    """Wait until BitBake says it."""
    wait_until(lambda: text in console_of(smidr, customer), f"{text!r} in the console")
