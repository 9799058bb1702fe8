from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.strict import SpecError
from resources.tracker import Request, TrackerError, TrackerSettings, build_tracker

PNG = b"\x89PNG one"
REQUEST = Request("rent", "drift", 3, "Revise rent", "It *moved*.", {"area & rooms": PNG})


def test_files_below_the_state_folder(tmp_path: Path) -> None:
    tracker = build_tracker(TrackerSettings(), tmp_path)
    folder = tmp_path / "revisions"
    assert tracker.open_requests() == []
    made = tracker.open(REQUEST)
    path = folder / "rent-drift.md"
    assert (made.name, made.version, made.url) == ("rent-drift.md", 3, path.as_uri())
    text = path.read_text()
    assert text.startswith("# Revise rent\n\nIt *moved*.\n\n")
    assert "](rent-drift--area-rooms.png)" in text
    assert (folder / "rent-drift--area-rooms.png").read_bytes() == PNG

    before = path.stat().st_mtime_ns
    assert tracker.open(REQUEST) == made
    assert path.stat().st_mtime_ns == before
    newer = replace(REQUEST, body="It moved more.", pictures={"rooms": b"two"})
    assert tracker.open(newer).content != made.content
    assert sorted(p.name for p in folder.glob("*.png")) == ["rent-drift--rooms.png"]
    tracker.open(replace(REQUEST, cause="slice"))
    assert [r.cause for r in tracker.open_requests()] == ["drift", "slice"]

    tracker.close(made, "Version 5 resolves it.")
    tracker.close(made, "Version 5 resolves it.")
    assert tracker.find_open("rent", "drift") is None
    closed = folder / "closed" / "0001-rent-drift.md"
    assert closed.read_text().endswith("**Resolved.** Version 5 resolves it.\n")
    assert "](0001-rent-drift--rooms.png)" in closed.read_text()
    assert (closed.parent / "0001-rent-drift--rooms.png").read_bytes() == b"two"
    assert tracker.open(REQUEST).name == "rent-drift.md"
    tracker.close(tracker.open(REQUEST), "Again.")
    assert sorted(p.name for p in closed.parent.glob("*.md")) == [
        "0001-rent-drift.md",
        "0002-rent-drift.md",
    ]


def test_pictures_of_a_longer_name_stay(tmp_path: Path) -> None:
    tracker = build_tracker(TrackerSettings(), tmp_path)
    tracker.open(replace(REQUEST, model="rent_b"))
    made = tracker.open(REQUEST)
    tracker.close(made, "done")
    names = sorted(p.name for p in (tmp_path / "revisions").glob("rent*"))
    assert names == ["rent_b-drift--area-rooms.png", "rent_b-drift.md"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "revisions").write_text("a file")
    with pytest.raises(TrackerError, match="revisions: "):
        build_tracker(TrackerSettings(), tmp_path).open(REQUEST)


def test_settings_of_variables() -> None:
    assert TrackerSettings.from_variables({}) == TrackerSettings()
    found = TrackerSettings.from_variables({"MLOPS_TRACKER": "github:a-b/c.d", "GITHUB_TOKEN": "t"})
    assert found == TrackerSettings("github", "a-b", "c.d", "https://api.github.com", "t")
    found = TrackerSettings.from_variables(
        {
            "MLOPS_TRACKER": "azure-devops:acme/Rents of flats",
            "MLOPS_TRACKER_TOKEN": "PAT",
            "MLOPS_TRACKER_URL": "https://devops.example.org/tfs/",
            "PAT": "t",
        }
    )
    url = "https://devops.example.org/tfs"
    assert found == TrackerSettings("azure-devops", "acme", "Rents of flats", url, "t")
    assert "'t'" not in repr(found)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MLOPS_TRACKER": "jira:a/b"}, "MLOPS_TRACKER.*must be github:OWNER/REPOSITORY or"),
        ({"MLOPS_TRACKER": "github:a/b/c"}, "MLOPS_TRACKER.*must be"),
        ({"MLOPS_TRACKER": "github:a/.."}, "MLOPS_TRACKER.*must be"),
        ({"MLOPS_TRACKER": "github:a/b?c"}, "MLOPS_TRACKER.*must be"),
        ({"MLOPS_TRACKER": "azure-devops:a/../b"}, "MLOPS_TRACKER.*must be"),
        ({"MLOPS_TRACKER": "github:a/b"}, "GITHUB_TOKEN.*missing, or empty"),
        (
            {"MLOPS_TRACKER": "github:a/b", "MLOPS_TRACKER_TOKEN": "ghp_s3cret"},
            "MLOPS_TRACKER_TOKEN.*must be the name of the variable with the token",
        ),
        ({"MLOPS_TRACKER": "github:a/b", "GITHUB_TOKEN": "ghp_s3cret x"}, "what no token holds"),
        *(
            (
                {
                    "MLOPS_TRACKER": "github:a/b",
                    "GITHUB_TOKEN": "ghp_s3cret",
                    "MLOPS_TRACKER_URL": url,
                },
                "MLOPS_TRACKER_URL.*must be a URL such as",
            )
            for url in (
                "http://github.example.org",
                "https://me:ghp_s3cret@github.example.org",
                "https://",
                "https://a/?q=1",
                "https://a:port",
                "github.example.org",
            )
        ),
    ],
)
def test_settings_that_are_wrong(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        TrackerSettings.from_variables(variables)
    assert "ghp_s3cret" not in str(caught.value)
