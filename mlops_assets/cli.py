"""``mlops``: what people and make ask of the platform on a command line."""

import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mlops_assets import cli_experiments
from mlops_assets.cli_arguments import require_model
from mlops_assets.endpoints import aligned, listing, sample_request, statuses
from mlops_assets.errors import UserError
from mlops_assets.spec import model_folders
from mlops_assets.state import ready, seed
from resources.environment import Profile, load_profile

if TYPE_CHECKING:
    from mlops_assets.scoring.keys import Role


class Commands(click.Group):
    """Commands whose errors are one sentence, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises about its input ends with exit code 1."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Machine learning as code: models, environments and their endpoints."""


@main.command()
def validate() -> None:
    """Check every model.yaml and every environment; print all problems, exit 1 if any."""
    profile = load_profile()
    from mlops_assets.doctor import wrong_documents, wrong_models

    problems = [f"{found.place}: {found.cause}" for found in wrong_models(profile)]
    problems += wrong_documents(profile)
    for problem in dict.fromkeys(problems):  # models have documents in common
        click.echo(problem, err=True)
    if problems:
        raise SystemExit(1)
    names = ", ".join(folder.name for folder in model_folders(profile.models))
    click.echo(f"models: {names}; environments: {', '.join(e.name for e in profile.environments)}")


@main.command()
def demo() -> None:
    """Release every model with the sample data; deploy it to staging and production."""
    profile = ready(load_profile())
    for folder, count in seed(profile).items():
        click.echo(f"{folder}: {count} files from samples/data")
    from mlops_assets.steering import release_all  # Dagster: slow to import

    succeeded = release_all(profile)
    _print_endpoints(profile)
    if not succeeded:
        raise click.ClickException("the run failed; the reasons stand above, and on the page")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def endpoints(as_json: bool) -> None:
    """Print every endpoint: model, environment, version, URL, health, and how to ask it."""
    profile = load_profile()
    if as_json:
        click.echo(json.dumps(statuses(profile), indent=2))
    else:
        _print_endpoints(profile)


@main.command()
@click.argument("model")
@click.argument("environment")
@click.option("--sample", help="Name of the request in samples/requests; the first by default.")
def invoke(model: str, environment: str, sample: str | None) -> None:
    """Send one sample to an endpoint and print the answer."""
    from resources.endpoints.base import Request
    from resources.serving import Serving

    profile = load_profile()
    profile.environment(environment)
    body = sample_request(profile, model, environment, sample)
    answer = Serving(profile).ask(model, environment, Request.of(body))
    click.echo(answer.body.decode())
    if answer.status != 200:
        raise click.ClickException(f"the endpoint answers {answer.status}")


@main.command()
@click.argument("environment", required=False)
def doctor(environment: str | None) -> None:
    """Look at machine, files and Azure; print what is wrong and its mend, exit 1 if any error."""
    from mlops_assets import doctor as examination

    profile = load_profile()
    found = examination.examine(profile, environment)
    if found:
        click.echo(examination.table(found))
    errors = sum(finding.severity == "error" for finding in found)
    where = f"profile {profile.name}" + (f", {environment}" if environment else "")
    click.echo(f"{where}: {errors or 'no'} error{'' if errors == 1 else 's'}")
    if errors:
        raise SystemExit(1)


@main.command()
@click.argument("environment")
@click.option("--apply", "applied", is_flag=True, help="Make it so: materialize infrastructure.")
@click.option(
    "--prune",
    multiple=True,
    metavar="NAME",
    help="With --apply: remove this compute too, which no document has.",
)
def plan(environment: str, applied: bool, prune: tuple[str, ...]) -> None:
    """Print what differs between Azure and an environment's documents; exit 2 if anything does."""
    from mlops_assets import plans

    profile = load_profile()
    if prune and not applied:
        raise click.UsageError("--prune is for --apply")
    if applied:
        from mlops_assets.steering import make_infrastructure

        if not make_infrastructure(ready(profile), environment, prune):
            raise click.ClickException("the run failed; the reasons stand above, and on the page")
        return
    found = plans.plan(profile, environment)
    for line in [*found.changes, *found.notes]:
        click.echo(line)
    if found.changes:
        raise SystemExit(2)
    click.echo(f"{environment}: Azure is as the documents say")


@main.command()
@click.argument("model")
@click.argument("environment")
@click.argument("version", type=int)
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@click.option("--expires", help="How long it can be used: 30m, 24h, 7d; for good by default.")
def approve(
    model: str, environment: str, version: int, by: str, reason: str, expires: str | None
) -> None:
    """Let a version serve in an environment that asks for approval."""
    _decide("approved", model, environment, version, by, reason, expires)


@main.command()
@click.argument("model")
@click.argument("environment")
@click.argument("version", type=int)
@click.option("--by", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
def reject(model: str, environment: str, version: int, by: str, reason: str) -> None:
    """Keep a version from serving in an environment that asks for approval."""
    _decide("rejected", model, environment, version, by, reason, None)


@main.command()
@click.argument("model")
@click.argument("environment")
@click.argument("version", type=int, required=False)
def rollback(model: str, environment: str, version: int | None) -> None:
    """Deploy an earlier version; by default the one that served before.

    It stays until the next release, or until `mlops resume`.
    """
    profile = ready(load_profile())
    require_model(profile, model)
    from mlops_assets.steering import roll_back

    if not roll_back(profile, model, environment, version):
        raise click.ClickException("the run failed; the reasons stand above, and on the page")
    _print_endpoints(profile)


@main.command()
@click.argument("model")
@click.argument("environment")
def resume(model: str, environment: str) -> None:
    """Let an environment follow the releases again after a rollback."""
    profile = ready(load_profile())
    require_model(profile, model)
    from mlops_assets import steering

    steering.resume(profile, model, environment)
    click.echo(f"{model} in {environment} follows the releases again, while the sensors run")


@main.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="PEM file of a private elliptic-curve key: P-256, P-384 or P-521.",
)
def sign(model: str, version: int, key: Path) -> None:
    """Sign a version, for environments whose JSON file asks for `signing`."""
    from mlops_assets.scoring import signature
    from mlops_assets.scoring.errors import IntegrityError
    from mlops_assets.wiring import build_resources

    profile = load_profile()
    require_model(profile, model)
    registry = build_resources(profile)["registry"]
    found = registry.version(model, version)
    wrong = found.mismatched()
    if wrong:
        raise click.ClickException(f"{model} {version}: not as registered: {', '.join(wrong)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, signature.SIGNATURE)
            signature.sign(found.bundle, found.digest, key, path)
            place = registry.keep_signature(model, version, path.read_bytes())
    except (signature.SigningError, IntegrityError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{model} {version} is signed: {place}")


@main.command()
@click.argument("model")
@click.argument("environment")
@click.option(
    "--now", metavar="TIME", help="When the window ends: ISO 8601, local without zone; now."
)
def monitor(model: str, environment: str, now: str | None) -> None:
    """Look at captured requests and labels; print the verdicts, exit 2 if one is an alarm."""
    profile = ready(load_profile())
    require_model(profile, model)
    from mlops_assets.steering import watch

    found = watch(profile, model, environment, _time(now, "--now").isoformat() if now else None)
    if found is None:
        raise click.ClickException("the run failed; the reasons stand above, and on the page")
    report, decision = found
    repeated = f", {report.repeated} of which repeat another" if report.repeated else ""
    rows = f"{report.rows} rows{repeated}"
    click.echo(f"{model} version {report.version} in {environment}, {rows}:")
    for verdict in report.verdicts:
        click.echo(f"  {verdict.name}: {verdict.status.replace('_', ' ')}: {verdict.reason}")
    click.echo(f"  {decision}")
    if any(verdict.status == "alarm" for verdict in report.verdicts):
        raise SystemExit(2)


@main.command("rotate-keys")
@click.argument("model")
@click.argument("environment")
@click.option(
    "--key",
    type=click.Choice(["primary", "secondary"]),
    default="primary",
    show_default=True,
    help="Which one is made anew.",
)
def rotate_keys(model: str, environment: str, key: "Role") -> None:
    """Make one of an endpoint's two keys anew; the other one stays valid, nothing restarts."""
    from resources.serving import Serving

    where = Serving(load_profile()).rotate_key(model, environment, key)
    other = "secondary" if key == "primary" else "primary"
    click.echo(f"{model}/{environment}: the new {key} key is {where}; the {other} one is as it was")


@main.command()
@click.argument("model")
@click.option("--at", metavar="TIME", help="Only what served then: ISO 8601, local without zone.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def history(model: str, at: str | None, as_json: bool) -> None:
    """Print what served where and when, from the commit to the endpoint."""
    from mlops_assets import history as past
    from mlops_assets.wiring import build_resources

    profile = load_profile()
    require_model(profile, model)
    registry = build_resources(profile)["registry"]
    found = past.history(registry, model, _time(at) if at else None)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in found], indent=2))
    elif found:
        click.echo(aligned(past.COLUMNS, [row.cells() for row in found]))
    else:
        click.echo(f"{model}: nothing has served" + (f" at {at}" if at else ""))


@main.command()
@click.argument("model")
@click.argument("version", type=int, required=False)
@click.option("--to", "target", required=True, help="Folder to copy to; made if it is not there.")
def package(model: str, version: int | None, target: str) -> None:
    """Copy a version's package out: wheel, ONNX with its schema, archive.

    By default that of the version packaged last.
    """
    profile = load_profile()
    require_model(profile, model)
    from mlops_assets.packaging.store import hand_out
    from mlops_assets.wiring import build_resources

    resources = build_resources(profile)
    files, trial = hand_out(
        resources["artifacts"], resources["registry"], model, version, Path(target)
    )
    for file in files:
        click.echo(file)
    if trial.outcome == "not_tried":
        click.echo(f"not tried in an environment of its own: {trial.reason}", err=True)


@main.command()
@click.option("--port", type=int, help="The page's port; 3000 by default, else a free one.")
def dev(port: int | None) -> None:
    """Dagster's page on the same state; Ctrl-C ends it."""
    from mlops_assets import page

    raise SystemExit(page.serve(ready(load_profile()), port))


@main.command()
def stop() -> None:
    """End every endpoint and the page; their state stays."""
    from mlops_assets import page
    from resources.serving import Serving

    profile = load_profile()
    ended = [*page.stop(profile), *Serving(profile).stop()]
    click.echo(f"ended: {', '.join(ended)}" if ended else "nothing was running")


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the documents go, such as environments/azure.",
)
def convert(files: tuple[Path, ...], folder: Path) -> None:
    """Turn deployment files of Azure ML's SDK v1 into documents of v2.

    FILES are YAML or JSON: one for ACI, one for AKS, one of inference, or some of them. A table
    says of every value whether it was kept, changed by a default, lost or misspelt.
    """
    from mlops_assets import convert as conversion

    made = conversion.convert(files, folder)
    written = conversion.write(made, folder)
    click.echo(made.report)
    click.echo("\n".join(f"wrote {path}" for path in written))


def _print_endpoints(profile: Profile) -> None:
    for line in listing(profile):
        click.echo(line)


def _decide(
    decision: Literal["approved", "rejected"],
    model: str,
    environment: str,
    version: int,
    by: str,
    reason: str,
    expires: str | None,
) -> None:
    profile = ready(load_profile())
    require_model(profile, model)
    from mlops_assets.steering import decide_on

    said = decide_on(
        profile, model, environment, version, decision, by=by, reason=reason, expires=expires
    )
    click.echo(said)


def _time(text: str, option: str = "--at") -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is no time; give one such as 2026-03-31T18:00", param_hint=option
        ) from None


for command in cli_experiments.COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
