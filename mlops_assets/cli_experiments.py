"""``mlops experiment``, ``comment``, ``compare``, ``preview``: a branch before it is merged."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlops_assets.cli_arguments import require_model
from mlops_assets.endpoints import aligned
from mlops_assets.state import ready, seed
from resources.environment import load_profile

if TYPE_CHECKING:
    from mlops_assets.versus import Report


def _into_a_folder(
    _context: click.Context, _parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file that could not be written; said before hours of training, not after them."""
    if path and not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}; make it, or name another file")
    return path


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option("--changed-since", metavar="COMMIT", help="Every model whose files differ from it.")
@click.option("--sample-data", is_flag=True, help="Put samples/data into an empty storage first.")
@click.option("--branch", help="Made and checked out where that loses nothing; yours by default.")
@click.option("--keep", is_flag=True, help="Keep it, for `mlops compare` and `mlops preview`.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    callback=_into_a_folder,
    help="Also into this file.",
)
def experiment(
    models: tuple[str, ...],
    changed_since: str | None,
    sample_data: bool,
    branch: str | None,
    keep: bool,
    as_json: bool,
    markdown: Path | None,
) -> None:
    """Train your branch on the newest data and compare it with production; registers nothing.

    Uncommitted changes of the work tree are tried too, and stay as they are.
    """
    profile = ready(load_profile())
    for model in models:
        require_model(profile, model)
    from mlops_assets import experiment as trial

    if changed_since:
        models = (*models, *trial.changed_models(profile, changed_since))
    elif not models:
        raise click.UsageError("name a model, or give --changed-since")
    if sample_data:
        seed(profile)
    reports = [trial.experiment(profile, model, branch, keep) for model in models]
    if keep:
        for report in reports:
            _show(report.model, report.metadata())
    _print_reports(reports, as_json, markdown)


@click.command()
@click.argument("number", type=int)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def comment(number: int, file: Path) -> None:
    """Post a Markdown file to a pull request of the tracker; its comment is changed, not repeated.

    NUMBER is that of the pull request, on MLOPS_TRACKER's GitHub or Azure DevOps.
    """
    from resources.tracker import build_tracker

    profile = load_profile()
    tracker = build_tracker(profile.tracker, profile.home)
    text = file.read_text("utf-8")
    click.echo(tracker.comment(number, text, "mlops-experiment"))


@click.command()
@click.argument("model")
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def compare(model: str, first: str, second: str, as_json: bool) -> None:
    """Compare two versions on the same rows; each is a number or the name of a branch."""
    profile = ready(load_profile())
    require_model(profile, model)
    from mlops_assets import experiment as trial

    _print_reports([trial.compare(profile, model, first, second)], as_json, None)


@click.command()
@click.argument("model")
@click.argument("branch", required=False)
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Until it ends by itself.")
@click.option("--end", is_flag=True, help="End it now.")
def preview(model: str, branch: str | None, hours: float | None, end: bool) -> None:
    """Serve a branch's newest experiment for a while; without BRANCH print what is served so.

    Make one with `mlops experiment MODEL --branch BRANCH --keep`.
    """
    profile = ready(load_profile())
    require_model(profile, model)
    from mlops_assets import preview as previews

    if branch is None:
        found = [shown for shown in previews.previews(profile) if shown.model == model]
        click.echo(aligned(previews.COLUMNS, [p.cells() for p in found]) if found else "none")
    elif end:
        ended = previews.end(profile, model, branch)
        click.echo(f"{model} of {branch}: {'ended' if ended else 'was not served'}")
    else:
        shown = previews.serve(
            profile, model, branch, hours, lambda line: click.echo(line, err=True)
        )
        _show(model, shown.metadata())
        click.echo(aligned(previews.COLUMNS, [shown.cells()]))


def _show(model: str, metadata: dict[str, Any]) -> None:
    """On Dagster's page."""
    import dagster as dg

    from mlops_assets.assets.experiment import report

    with dg.DagsterInstance.get() as instance:
        report(instance, model, metadata)


def _print_reports(reports: list["Report"], as_json: bool, markdown: Path | None) -> None:
    text = "\n".join(report.markdown() for report in reports) or "No model differs.\n"
    if markdown:
        markdown.write_text(text, encoding="utf-8")
    if as_json:
        click.echo(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        click.echo(text)


#: What ``mlops`` takes in.
COMMANDS = (experiment, comment, compare, preview)
