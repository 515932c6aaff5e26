"""`smidr artifacts`: what builds left."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from smidr_ci.artifacts.model import shown
from smidr_ci.artifacts.retention import clean as clean_artifacts
from smidr_ci.artifacts.shelf import ArtifactSet, copy_artifacts, find_set, list_artifacts
from smidr_ci.artifacts.shelf import show as show_manifest
from smidr_ci.builds.host import Host
from smidr_ci.cli.options import customer_option, json_option
from smidr_ci.cli.output import human_size, local_time, print_columns, print_json

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """List, copy and clean what builds left."""


@artifacts.command(name="list")
@customer_option
@json_option
def list_(customer: str | None, as_json: bool) -> None:
    """List the builds whose artifacts are kept, the newest first."""
    sets = list_artifacts(Host.open().artifacts_root, customer)
    if as_json:
        print_json({"artifacts": [_as_dict(item) for item in sets]})
        return
    rows = []
    for item in sets:
        manifest = item.manifest
        count = str(len(manifest.artifacts)) if manifest else "damaged"
        size = human_size(manifest.total_bytes) if manifest else "-"
        created = local_time(manifest.created) if manifest else "-"
        rows.append((item.build_id, created, count, size, str(item.path)))
    if rows:
        print_columns(rows, ("BUILD", "CREATED", "FILES", "SIZE", "PATH"))
    else:
        click.echo("No artifacts yet.")


def _as_dict(item: ArtifactSet) -> dict[str, Any]:
    """None for what a damaged manifest does not tell."""
    manifest = item.manifest
    return {
        "build_id": item.build_id,
        "customer": item.customer,
        "created": manifest.created.isoformat() if manifest else None,
        "files": len(manifest.artifacts) if manifest else None,
        "size_bytes": manifest.total_bytes if manifest else None,
        "path": str(item.path),
    }


@artifacts.command()
@click.argument("build_id", metavar="BUILD")
@customer_option
@json_option
def show(build_id: str, customer: str | None, as_json: bool) -> None:
    """Show the files of a build with sizes and SHA-256, and what was left out and why."""
    root = Host.open().artifacts_root
    manifest = show_manifest(root, build_id, customer)
    if as_json:
        print_json({**asdict(manifest), "created": manifest.created.isoformat()})
        return
    click.echo(str(find_set(root, build_id, customer)))
    print_columns(
        (human_size(item.size_bytes), item.sha256, shown(item.path)) for item in manifest.artifacts
    )
    for left_out in (*manifest.refused, *manifest.skipped):
        click.echo(f"left out: {left_out.path}: {left_out.reason}")
    for glob in manifest.unmatched:
        click.echo(f"nothing matches {glob}")


@artifacts.command()
@click.argument("build_id", metavar="BUILD")
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@customer_option
def copy(build_id: str, destination: Path, force: bool, customer: str | None) -> None:
    """Copy the files of a build to DESTINATION (default: here), checking their SHA-256."""
    root = Host.open().artifacts_root
    for path in copy_artifacts(root, build_id, destination, customer=customer, force=force):
        click.echo(str(path))


@artifacts.command()
@click.option(
    "-k",
    "--keep",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="The newest builds of each customer that always stay.",
)
@click.option(
    "-d",
    "--days",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Remove others when they are older than this.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed, and why.")
@customer_option
@json_option
def clean(keep: int, days: int, dry_run: bool, customer: str | None, as_json: bool) -> None:
    """Remove the artifacts of old builds."""
    host = Host.open()
    removed = clean_artifacts(
        host.artifacts_root,
        now=host.clock.now(),
        keep=keep,
        days=days,
        customer=customer,
        dry_run=dry_run,
        is_in_use=host.store.is_owned,
    )
    if as_json:
        print_json({"removed": [{**asdict(item), "path": str(item.path)} for item in removed]})
        return
    verb = "would remove" if dry_run else "removed"
    for item in removed:
        click.echo(f"{verb} {item.path} ({human_size(item.size_bytes)}): {item.reason}")
    total = human_size(sum(item.size_bytes for item in removed))
    click.echo(f"{verb} {len(removed)} builds' artifacts, {total}")
