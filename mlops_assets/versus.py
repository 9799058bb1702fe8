"""Two versions side by side: on the same rows held out of both, and in what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.evidence import Comparison, Record
from mlops_assets.files import digest_json, read_json
from mlops_assets.gates import Verdict
from mlops_assets.judgement import champion_request
from mlops_assets.markdown import code, number, table
from resources.artifacts import Artifacts
from resources.registry import Version
from resources.training import Training, TrainingError

#: Rows of a table that people still read.
MOST = 30


class ComparedSlice(Record):
    """The metrics of both for the rows where one column has one value."""

    column: str
    value: Any
    rows: int
    #: Metric -> candidate and champion.
    metrics: dict[str, dict[str, float | None]]


class Versus(Comparison):
    """A comparison with its slices."""

    slices: tuple[ComparedSlice, ...] = ()


@dataclass(frozen=True)
class Change:
    """Something that the two were made from, and that differs."""

    kind: str
    name: str
    #: In the first and the second; empty where one has none.
    first: str
    second: str


@dataclass(frozen=True)
class Report:
    """What people read, and programs."""

    model: str
    first: str
    second: str
    versus: Versus
    changes: Sequence[Change]
    #: What the gates would say of the first, were it released.
    verdicts: Sequence[Verdict] = ()
    #: Environment -> gates that would be closed there.
    closed: Mapping[str, Sequence[str]] | None = None
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "model": self.model,
            "first": self.first,
            "second": self.second,
            "comparison": self.versus.model_dump(mode="json"),
            "changes": [asdict(change) for change in self.changes],
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "closed": {name: list(gates) for name, gates in (self.closed or {}).items()},
            "notes": list(self.notes),
        }

    def metadata(self) -> dict[str, Any]:
        """For Dagster's page."""
        return {
            "branch": self.first,
            "compared_with": self.second,
            "would_be_refused_by": ", ".join(n for n, g in (self.closed or {}).items() if g) or "-",
            "comparison": dg.MetadataValue.md(self.markdown()),
        }

    def markdown(self) -> str:
        """For people."""
        parts = [f"## {self.model}: {self.first} against {self.second}"]
        parts += [code(note, 300) for note in self.notes]
        parts.append(self._measured())
        if self.versus.slices:
            parts.append(f"### Parts of the rows\n\n{self._slices()}")
        if self.verdicts:
            rows = [
                [v.gate, v.status.replace("_", " "), code(v.reason, 300)] for v in self.verdicts
            ]
            parts.append(f"### Gates\n\n{table(['gate', 'would be', 'reason'], rows)}")
        refused = {n: g for n, g in (self.closed or {}).items() if g}
        if refused:
            rows = [[name, ", ".join(gates)] for name, gates in refused.items()]
            parts.append(table(["environment", "would refuse it for"], rows))
        if self.changes:
            found = list(self.changes)
            rows = [[c.kind, code(c.name), code(c.first), code(c.second)] for c in found[:MOST]]
            left = f"\n\n{len(found) - MOST} more" if len(found) > MOST else ""
            header = ["what differs", "", self.first, self.second]
            parts.append(f"### What they were made from\n\n{table(header, rows)}{left}")
        return "\n\n".join(parts) + "\n"

    def _measured(self) -> str:
        found = self.versus
        if found.status == "incomparable":
            return f"They cannot be compared: {code(found.reason, 300)}"
        rows = [
            [
                name,
                number(m.candidate),
                number(m.champion),
                f"{m.difference.value:+.4g}",
                f"{m.difference.lower:+.4g} to {m.difference.upper:+.4g}",
            ]
            for name, m in sorted(found.metrics.items())
        ]
        header = ["metric", self.first, self.second, "difference", "95 % interval"]
        return f"{found.rows} rows that are in neither's training set.\n\n{table(header, rows)}"

    def _slices(self) -> str:
        names = sorted(self.versus.metrics)
        shown = [n for n in ("r2", "accuracy", "mae") if n in names][:2] or names[:2]
        rows = [
            [
                code(s.column),
                code(s.value),
                str(s.rows),
                *(
                    f"{number(s.metrics.get(n, {}).get('candidate'))} / "
                    f"{number(s.metrics.get(n, {}).get('champion'))}"
                    for n in shown
                ),
            ]
            for s in self.versus.slices[:MOST]
        ]
        header = ["column", "value", "rows", *(f"{n}: {self.first} / {self.second}" for n in shown)]
        return table(header, rows)


def compare_bundles(
    context: dg.AssetExecutionContext,
    training: Training,
    artifacts: Artifacts,
    root: Path,
    first: Version,
    second: Version,
    slices: Sequence[str],
) -> Versus:
    """Both on the first one's snapshot, in a process of its own.

    Raises:
        dagster.Failure: the snapshot is not there, or the first does not load.
    """
    digest = first.manifest.snapshot.digest
    snapshot = artifacts.path("snapshots", digest) / "data.parquet"
    if not snapshot.is_file():
        raise dg.Failure(
            f"the snapshot {digest[:10]} of {first.model} is not in the store any more; it is "
            "needed to compare",
            allow_retries=False,
        )
    with artifacts.workspace() as folder:
        output = folder / "output"
        output.mkdir()
        request = {
            "mode": "compare",
            "identity": digest_json([first.digest, second.digest, list(slices)]),
            "model": first.model,
            "repository": str(root),
            "snapshot": str(snapshot),
            "candidate": {"bundle": str(first.bundle), "digest": first.digest},
            "champion": champion_request(second),
            "slices": list(slices),
        }
        try:
            training.run(context, request, output)
        except TrainingError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return Versus.model_validate(read_json(output / "comparison.json"))


def changes(first: Version, second: Version) -> list[Change]:
    """What the two were made from, and that differs."""
    one, other = first.manifest, second.manifest
    plain = [
        ("commit", "", one.source.commit, other.source.commit),
        ("data", "snapshot", one.snapshot.digest[:12], other.snapshot.digest[:12]),
        ("data", "rows", str(one.snapshot.rows), str(other.snapshot.rows)),
        ("data", "contract", one.contract[:12], other.contract[:12]),
        ("serves from", "", one.serving.format, other.serving.format),
        ("python", "", one.python, other.python),
        ("platform", "", one.platform, other.platform),
    ]
    found = [Change(*each) for each in plain if each[2] != each[3]]
    for kind, a, b in (
        ("parameter", one.parameters, other.parameters),
        ("package", one.packages, other.packages),
    ):
        found += [
            Change(kind, name, _text(a, name), _text(b, name))
            for name in sorted(a.keys() | b.keys())
            if a.get(name) != b.get(name)
        ]
    return found


def _text(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else ""
