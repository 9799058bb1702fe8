"""The story that `make demo-drift` tells."""

from pathlib import Path

import dagster as dg

from tests.drift_story import Story, play


def test_drift_warns_a_loss_retrains_and_what_that_cannot_mend_is_asked_for_once(
    tmp_path: Path,
) -> None:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        story = Story(tmp_path, instance)
        try:
            play(story)
        finally:
            story.platform.serving.stop()
    assert len(story.asks()) == 1
    assert len(story.closed()) == 1
