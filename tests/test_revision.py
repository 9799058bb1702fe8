from __future__ import annotations

import datetime as dt
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlops_assets.markdown import bars, block, code, number, table
from mlops_assets.revision import (
    LONGEST_BODY,
    ClosedGate,
    Measured,
    Moved,
    Performance,
    Revision,
    SliceChange,
    body,
    closing,
    request_of,
    resolves,
    title,
)
from resources.tracker import TrackerSettings, build_tracker

SINCE = dt.datetime(2026, 3, 1, 14, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
REVISION = Revision(
    model="penguins",
    version=3,
    commit="a" * 40,
    environment="production",
    cause="drift",
    since=SINCE,
    rows=1200,
    columns=[
        Moved("bill_depth_mm", "mean", 17.1, 17.4, 0.2, 0.15, (0.5, 0.5), (0.4, 0.6)),
        Moved("bill_length_mm", "mean", 43.92, 4.392, 9.4, 0.15, (0.1, 0.2, 0.7), (1.0, 0, 0)),
    ],
    slices=[
        SliceChange("island", "Biscoe", 700, "accuracy", Measured(0.99), Measured(0.98)),
        SliceChange("island", None, 20, "accuracy", Measured(0.97, 0.9, 1.0), Measured(0.41)),
    ],
    performance=[Performance("accuracy", Measured(0.98, 0.96, 1.0), Measured(0.71, 0.65, 0.77))],
    gates=[ClosedGate("quality", "accuracy 0.7 (lower), minimum 0.9")],
    sample=[{"bill_length_mm": 3.9, "island": "Biscoe"}, {"bill_length_mm": None}],
    page="http://127.0.0.1:3000/assets/penguins",
)
RENDERER = MarkdownIt("commonmark", {"html": True}).enable("table")


def test_what_it_says() -> None:
    text = body(REVISION)
    assert title(REVISION) == "Revise penguins version 3: its data has moved"
    assert "- since 2026-03-01 12:30 UTC, last seen in 1200 rows\n" in text
    assert f"commit `{'a' * 40}`" in text
    assert "| `accuracy` | 0.98 (0.96 to 1) | 0.71 (0.65 to 0.77) |" in text
    assert "| `bill_length_mm` | `mean` | 43.92 | 4.392 | 9.4 | 0.15 | ▂▃█ | █▁▁ |" in text
    assert text.index("`bill_length_mm`") < text.index("`bill_depth_mm`")  # the worst first
    assert "| `island` | `missing` | 20 | `accuracy` | 0.97 (0.9 to 1) | 0.41 |" in text
    assert text.index("`missing`") < text.index("| `island` | `Biscoe`")
    assert "accuracy 0.7 (lower), minimum 0.9" in text
    assert "mlops experiment penguins --branch revise/penguins-3\n" in text
    assert "<http://127.0.0.1:3000/assets/penguins>" in text


def test_the_same_findings_in_another_order_are_the_same_text() -> None:
    shuffled = replace(
        REVISION,
        columns=REVISION.columns[::-1],
        slices=REVISION.slices[::-1],
        since=SINCE.astimezone(dt.UTC),
        performance=[
            Performance("accuracy", Measured(0.98000001, 0.96, 1.0), Measured(0.71, 0.65, 0.77))
        ],
    )
    assert body(shuffled) == body(REVISION)
    assert body(replace(REVISION, rows=1201)) != body(REVISION)


def test_no_value_of_an_excluded_column() -> None:
    secret = "s3cretvalue"
    revision = replace(
        REVISION,
        allowed=frozenset({"bill_length_mm"}),
        columns=[Moved("income", "mean", 7171717.0, 8181818.0, 1.0, 0.1, (0.3, 0.7), (0.7, 0.3))],
        slices=[SliceChange("name", secret, 9, "accuracy", Measured(0.9), Measured(0.5))],
        sample=[{"name": secret, "bill_length_mm": 3.9}],
    )
    text = body(revision)
    assert secret not in text
    assert not re.search("7171717|8181818|7.17|8.18|▃|█", text)
    assert "| `income` | `mean` | – | – | 1 | 0.1 |  |  |" in text
    assert "| `name` | not shown | 9 |" in text
    assert "| `3.9` |" in text


@pytest.mark.parametrize("long", ["|\n<b>@all" * 1000, "\U0001f427" * 1000])
def test_only_a_part_of_much_is_shown(long: str) -> None:
    revision = replace(
        REVISION,
        columns=[Moved(f"{long}{n}", long, float(n), 1.0, 1.0, 0.5, [0.1] * 20) for n in range(99)],
        slices=[
            SliceChange(long, f"{n}{long}", 1, long, Measured(1), Measured(0)) for n in range(99)
        ],
        gates=[ClosedGate(f"{n}", long) for n in range(99)],
        sample=[{f"{long}{n}": long for n in range(50)}] * 99,
    )
    assert len(body(revision)) <= LONGEST_BODY
    assert "\n\n84 more" in body(revision)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "a; rm -rf /"},
        {"environment": "$(x)"},
        {"commit": "HEAD"},
        {"commit": "a" * 40 + "\n`"},
        {"since": dt.datetime(2026, 1, 1)},
    ],
)
def test_nothing_but_names_comes_into_a_command(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(REVISION, **changes)  # type: ignore[arg-type]


NASTY = [
    "|",
    "`",
    "``",
    "\n",
    "\r\n",
    "\\",
    "<script>",
    "-->",
    "<!--",
    "@octocat",
    "#12",
    "https://e.org",
]
NASTY += [
    "[a](b)",
    "![a](b)",
    "**",
    "~~~",
    "```",
    "</code>",
    "&lt;",
    "\u202e",
    "\u2028",
    "\0",
    " ",
    "\ud800",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(NASTY) | st.text(max_size=5), max_size=12).map("".join))
def test_no_value_breaks_out_of_its_cell(value: str) -> None:
    text = table(["a", "b"], [[code(value), "end"]])
    assert text.count("\n") == 2
    html = RENDERER.render(text)
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    assert len(cells) == 2
    assert cells[1] == "end"
    # One piece of code, and no other element in it: no link, no picture, no mention.
    inside = re.fullmatch(r"<code>([^<>]*)</code>|empty", cells[0])
    assert inside, cells[0]
    assert len(re.sub(r"&#?\w+;", "x", inside[1] or "")) <= 60


def test_a_block_holds_any_text() -> None:
    for text in ("a", "```\nb\n```", "`````"):
        html = RENDERER.render(f"{block(text)}\n\nafter")
        assert html.startswith("<pre><code>")
        assert html.endswith("</code></pre>\n<p>after</p>\n")


def test_it_goes_to_a_tracker_once(tmp_path: Path) -> None:
    tracker = build_tracker(TrackerSettings(), tmp_path)
    request = request_of(replace(REVISION, pictures={"bill_length_mm": b"png"}))
    made = tracker.open(request)
    assert (made.model, made.cause, made.version) == ("penguins", "drift", 3)
    assert not tracker.update(made, request_of(replace(REVISION, pictures={})))
    text = (tmp_path / "revisions" / "penguins-drift.md").read_text()
    assert body(REVISION) in text
    assert "](penguins-drift--bill_length_mm.png)" in text


def test_numbers_and_bars() -> None:
    assert [number(v) for v in (None, float("nan"), 0.123456, 12345678.0)] == [
        "–",
        "–",
        "0.1235",
        "1.235e+07",
    ]
    assert bars([]) == bars([0, 0]) == ""
    assert bars([float("nan"), -1, 0.5, 1]) == "▁▁▅█"


@pytest.mark.parametrize(
    ("serving", "gates_open", "alarms", "resolved"),
    [
        (4, True, [], True),
        (4, True, ["slice"], True),
        (4, True, ["drift"], False),
        (4, False, [], False),
        (3, True, [], False),
        (2, True, [], False),
        (None, True, [], False),
    ],
)
def test_when_it_is_resolved(
    serving: int | None, gates_open: bool, alarms: list[str], resolved: bool
) -> None:
    assert resolves(3, "drift", serving, gates_open, alarms) is resolved


def test_the_closing_comment() -> None:
    found = closing(
        "rent", 4, "b" * 40, [Performance("r2", Measured(0.3), Measured(0.9, 0.8, 0.95))]
    )
    assert found.startswith(f"Version **4** of **rent** resolves it, commit `{'b' * 40}`.")
    assert "| `r2` | 0.3 | 0.9 (0.8 to 0.95) |" in found
    assert "|" not in closing("rent", 4, "b" * 40, [])


def test_bars_of_random_shares_are_one_character_each() -> None:
    generator = random.Random(0)
    for size in range(1, 20):
        assert len(bars([generator.random() for _ in range(size)])) == size
