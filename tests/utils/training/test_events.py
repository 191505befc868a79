"""Events, read by TensorBoard's own reader."""

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

from utils.training import events


def test_a_run_that_goes_on_replaces_the_events_from_its_first_step_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for step in (1, 2, 3):
        events.write_scalars(tmp_path, {"train/total": step / 4, "val/score": 10.0 * step}, step)
    monkeypatch.setattr(events, "EVENTS_FILE", events.EVENTS_FILE + "0")  # as of another process
    events.write_scalars(tmp_path, {"train/total": 0.5, "val/score": 99.0}, 3)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("train/total")] == [(1, 0.25), (2, 0.5), (3, 0.5)]
    assert [(e.step, e.value) for e in shown.Scalars("val/score")] == [(1, 10), (2, 20), (3, 99)]


def test_hparams_shows_the_settings_of_all_runs_which_of_them_differ_and_their_scores(tmp_path: Path):
    runs = {"a": {"lr": 0.1, "clip_norm": math.inf, "mixup": True}, "b": {"lr": 0.2, "clip_norm": 1.0, "mixup": True}}
    for name, settings in runs.items():
        (tmp_path / name).mkdir()
        events.write_scalars(tmp_path / name, {"test/score": 50.0})
        events.write_hparams(tmp_path / name, settings | {"features": ["clip", "clap"], "select_on": None})
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(tmp_path))))
    found = context.hparams_metadata(RequestContext(), "")
    experiment = context.experiment_from_metadata(RequestContext(), "", True, found, [])
    assert {info.name: info.differs for info in experiment.hparam_infos} == {
        **{"lr": True, "clip_norm": True, "mixup": False},
        **{"features": False, "select_on": False},
    }
    assert [info.name.tag for info in experiment.metric_infos] == ["test/score"]
    shown = parse_session_start_info_plugin_data(found["a"][SESSION_START_INFO_TAG]).hparams
    assert shown["lr"].number_value == 0.1 and shown["clip_norm"].string_value == "inf"
