"""The model card: what a version is for, how good it is, and where it comes from, in Markdown."""

from __future__ import annotations

from mlops_assets.evidence import Evidence, Manifest


def model_card(manifest: Manifest, evidence: Evidence, owner: str, readme: str) -> str:
    """The card of one version.

    Args:
        manifest: what the version was made from.
        evidence: what was measured.
        owner: the ``owner`` of model.yaml.
        readme: the model's own README, which says what it is for and where its limits are.
    """
    source, holdout = manifest.source, evidence.holdout
    metrics = _table(
        ("metric", "value", "95 % interval"),
        [
            (n, f"{m.value:.4g}", f"{m.lower:.4g} to {m.upper:.4g}")
            for n, m in evidence.metrics.items()
        ],
    )
    importance = _table(
        ("feature", "importance", "±"),
        [(i.column, f"{i.mean:.3g}", f"{i.std:.2g}") for i in evidence.importance],
    )
    parts = [
        readme.strip() or f"# {manifest.model}",
        "## Performance",
        f"On {holdout.rows} rows held out of {holdout.rows + holdout.training_rows}.",
        metrics,
        *_slices(evidence),
        "## What it looks at",
        "Loss of score when one feature's values are shuffled.",
        importance,
        "## Serving",
        _table(("what", "value"), _serving(manifest, evidence)),
        "## Origin",
        _table(
            ("what", "value"),
            [
                ("owner", owner),
                ("task", f"{manifest.task}, target `{manifest.target}`"),
                (
                    "commit",
                    f"`{source.commit}` on {source.branch}"
                    + (" with uncommitted files" if source.dirty else ""),
                ),
                ("author", source.author),
                ("message", source.message),
                ("data", f"snapshot `{manifest.snapshot.digest}`, {manifest.snapshot.rows} rows"),
                ("parameters", ", ".join(f"{k}={v}" for k, v in manifest.parameters.items())),
                ("identity", f"`{manifest.identity}`"),
                (
                    "platform",
                    f"{manifest.platform}, scikit-learn {manifest.packages.get('scikit-learn')}",
                ),
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _slices(evidence: Evidence) -> list[str]:
    if not evidence.slices:
        return []
    names = list(evidence.metrics)
    rows = [
        (s.column, str(s.value), str(s.rows), *(_number(s.metrics.get(n)) for n in names))
        for s in evidence.slices
    ]
    return ["### Slices", _table(("column", "value", "rows", *names), rows)]


def _serving(manifest: Manifest, evidence: Evidence) -> list[tuple[str, str]]:
    serving, parity = manifest.serving, evidence.parity
    rows = [
        ("served from", "ONNX" if serving.format == "onnx" else "the pickle"),
        ("why", serving.reason),
        ("values out of contract", serving.ranges),
    ]
    if parity is not None and parity.found is not None:
        rows += [
            (
                "compared",
                f"{parity.rows} rows held out, {parity.edge_rows} of the contract's edges",
            ),
            ("greatest difference", f"{parity.max_difference:.2g}, tolerance {parity.tolerance:g}"),
            (
                "rows that differ",
                f"{parity.differing_rows}, {parity.differing_labels} of them in their label",
            ),
            ("ONNX", f"opset {parity.opset}, numbers inside in {parity.precision} precision"),
        ]
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return "\n".join([line(header), line(("---",) * len(header)), *map(line, rows)])
