"""The endpoints that there are, as people and programs read them on a command line."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from mlops_assets.samples import load_samples
from mlops_assets.strict import SpecError
from resources.environment import Profile


def statuses(profile: Profile) -> list[dict[str, Any]]:
    """Every endpoint, as JSON has it."""
    from resources.serving import Serving

    serving = Serving(profile)
    found = [serving.status(model, environment) for model, environment in serving.known()]
    return [
        {
            "model": status.model,
            "environment": status.environment,
            "version": status.version,
            "url": status.url,
            "healthy": status.healthy,
            "key_file": str(status.key_file) if status.key_file else None,
            "key_command": status.key_command,
        }
        for status in found
    ]


def listing(profile: Profile) -> Iterator[str]:
    """Every endpoint in a table, then a line to ask each that is healthy; raises SpecError."""
    found = statuses(profile)
    if not found:
        yield "no endpoint yet: `make demo` deploys the sample models"
        return
    rows = [
        (
            status["model"],
            status["environment"],
            str(status["version"] or "-"),
            "yes" if status["healthy"] else "NO",
            status["url"] or "-",
        )
        for status in found
    ]
    yield f"\n{aligned(('MODEL', 'ENVIRONMENT', 'VERSION', 'HEALTHY', 'URL'), rows)}\n"
    for status in found:
        if status["healthy"]:
            yield _curl(profile, status)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns stand below each other."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def sample_request(profile: Profile, model: str, environment: str, name: str | None) -> Any:
    """A sample's body by its name, the first one by default; raises SpecError."""
    path = profile.samples_of(model, environment)
    samples = {sample.name: sample.request for sample in load_samples(path)}
    if name is not None and name not in samples:
        raise SpecError(path, [f"no sample '{name}'; there are: {', '.join(samples)}"])
    return samples[name or next(iter(samples))]


def _curl(profile: Profile, status: dict[str, Any]) -> str:
    """A line that asks an endpoint its first sample, ready to paste; the key stays in its file."""
    body = sample_request(profile, status["model"], status["environment"], None)
    text = shlex.quote(json.dumps(body, separators=(",", ":")))
    key = f'"Authorization: Bearer $({status["key_command"]})"'
    return f"curl -sS -H {key} -H 'Content-Type: application/json' -d {text} {status['url']}"
