"""``mlops``: what people and make ask of the platform on a command line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from mlops_assets.files import read_json, to_json, write_atomic
from mlops_assets.spec import SpecError, load_model, model_folders
from resources.environment import Profile, load_profile, looser_limits


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Machine learning as code: models, environments and their endpoints."""


def _profile() -> Profile:
    try:
        profile = load_profile()
    except SpecError as error:
        raise click.ClickException(str(error)) from None
    try:
        (profile.home / "dagster").mkdir(parents=True, exist_ok=True)
        write_atomic(profile.home / "dagster" / "dagster.yaml", _instance_file(profile))
    except OSError as error:
        raise click.ClickException(
            f"state folder {profile.home}: cannot be written ({error.strerror}); "
            "set MLOPS_HOME to a folder that can"
        ) from None
    os.environ["MLOPS_HOME"] = str(profile.home)
    os.environ["DAGSTER_HOME"] = str(profile.home / "dagster")
    return profile


def _instance_file(profile: Profile) -> bytes:
    return (profile.root / "dagster.yaml").read_bytes()


@main.command()
def validate() -> None:
    """Check every model.yaml and every environment; print all problems, exit 1 if any."""
    problems: list[str] = []
    try:
        profile = load_profile()
    except SpecError as error:
        raise click.ClickException(str(error)) from None
    folders = model_folders(profile.models)
    for folder in folders:
        try:
            spec = load_model(folder)
        except SpecError as error:
            problems.append(str(error))
            continue
        for environment in profile.environments:
            place = profile.file_of(environment.name)
            problems += [f"{place}: {line}" for line in looser_limits(environment, spec)]
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise SystemExit(1)
    names = ", ".join(folder.name for folder in folders)
    click.echo(f"models: {names}; environments: {', '.join(e.name for e in profile.environments)}")


@main.command()
def demo() -> None:
    """Release every model with sample data and deploy it to staging and production."""
    profile = _profile()
    _seed(profile)
    from mlops_assets.demo import release_all  # Dagster: slow to import

    failed = release_all(profile)
    _print_endpoints(profile, as_json=False)
    if failed:
        raise click.ClickException("the run failed; the reasons stand above")


def _seed(profile: Profile) -> None:
    """Copy samples/data into the local storage; files already there stay as they are."""
    source, storage = profile.root / "samples" / "data", profile.home / "storage"
    for path in sorted(source.rglob("*.csv")):
        target = storage / path.relative_to(source)
        if not target.exists():
            write_atomic(target, path.read_bytes())
            click.echo(f"{target.relative_to(profile.home)} <- samples/data")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def endpoints(as_json: bool) -> None:
    """Print every endpoint: model, environment, version, URL, health, and how to ask it."""
    _print_endpoints(_profile(), as_json)


def _print_endpoints(profile: Profile, as_json: bool) -> None:
    from resources.serving import Serving

    found = Serving(profile).all()
    if as_json:
        click.echo(json.dumps([status.as_dict() for status in found], indent=2))
        return
    if not found:
        click.echo("no endpoint yet; `make demo` makes four")
        return
    rows = [("MODEL", "ENVIRONMENT", "VERSION", "HEALTHY", "URL")]
    rows += [
        (s.model, s.environment, str(s.version or "-"), "yes" if s.healthy else "NO", s.url)
        for s in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    click.echo("")
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    click.echo("")
    for status in found:
        line = _curl(profile, status)
        if line:
            click.echo(line)


def _curl(profile: Profile, status: Any) -> str | None:
    """A line that asks an endpoint its first sample, ready to paste."""
    body = _sample_body(profile, status.model, status.environment, None)
    if body is None:
        return None
    text = json.dumps(body, separators=(",", ":"))
    return (
        f'curl -s -H "Authorization: Bearer $(head -1 {status.key_file})" '
        f"-H 'Content-Type: application/json' -d '{text}' {status.url}/score"
    )
