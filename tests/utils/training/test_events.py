"""Events, read by TensorBoard's own reader."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.training import events


def test_a_run_that_goes_on_replaces_the_events_from_its_first_step_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for step in (1, 2, 3):
        events.write_scalars(tmp_path, {"train/total": step / 4, "val/score": 10.0 * step}, step)
    monkeypatch.setattr(events, "EVENTS_FILE", events.EVENTS_FILE + "0")  # as of another process
    events.write_scalars(tmp_path, {"train/total": 0.5, "val/score": 99.0}, 3)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("train/total")] == [(1, 0.25), (2, 0.5), (3, 0.5)]
    assert [(e.step, e.value) for e in shown.Scalars("val/score")] == [(1, 10), (2, 20), (3, 99)]
