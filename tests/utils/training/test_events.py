"""Events, read by TensorBoard's own reader."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.training.events import EventLog


def test_a_run_that_goes_on_replaces_the_events_from_its_first_step_on(tmp_path: Path):
    first = EventLog(tmp_path)
    for step in (1, 2, 3):
        first.write({"train/total": step / 4, "val/score": 10.0 * step}, step)
    again = EventLog(tmp_path, first_step=3)
    again.write({"train/total": 0.5, "val/score": 99.0}, 3)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("train/total")] == [(1, 0.25), (2, 0.5), (3, 0.5)]
    assert [(e.step, e.value) for e in shown.Scalars("val/score")] == [(1, 10), (2, 20), (3, 99)]
