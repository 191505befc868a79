"""Whatever a flag or a line of YAML says: an error that names it, or settings; and nothing is written before."""

import json
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pseudo_label_generation
import test_han as stage4
import train_han
import train_transformer
from baselines.jomold import find_noise_ratios
from baselines.lsld import refine_labels
from baselines.ma import find_exchange
from utils.errors import InputError
from utils.recipes import parse_recipe
from utils.settings import NOT_WRITTEN, flat, parse_settings, whole_number


def parse_train_han(argv: list[str]) -> train_han.Settings:
    return parse_recipe(train_han.Settings, "", argv, ())[1]


def parsing(settings: object) -> Callable[[list[str]], object]:
    return lambda argv: parse_settings(settings, "", argv)


# What parses the flags of each command, and the settings that it has.
COMMANDS = {
    "train_han": (parse_train_han, train_han.Settings()),
    "test_han": (stage4.find_settings, stage4.Settings()),
} | {
    module.__name__.split(".")[-1]: (parsing(module.Settings()), module.Settings())
    for module in (train_transformer, pseudo_label_generation, find_exchange, find_noise_ratios, refine_labels)
}
if find_spec("timm") and find_spec("av"):  # without, there are no classifiers of clips
    from experiments import clip_analysis
    from lavish import test_classifier, train_classifier
    from lavish.clip_settings import ClipSettings, clip_recipe

    def parse_clips(argv: list[str]) -> train_classifier.Settings:
        return parse_settings(clip_recipe(train_classifier.Settings(), argv), "", argv)

    COMMANDS |= {
        "prepare_clips": (parsing(ClipSettings()), ClipSettings()),
        "train_classifier": (parse_clips, train_classifier.Settings()),
        "test_classifier": (parsing(test_classifier.Settings()), test_classifier.Settings()),
        "clip_analysis": (parsing(clip_analysis.Settings()), clip_analysis.Settings()),
    }
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from((0, -1, 2**63, 2**64, 10**400, 1e-320)))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.sampled_from((date(2020, 1, 1), b"\0")))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner)),
    max_leaves=4,
)
CHOICES = [(command, name) for command, (_, settings) in COMMANDS.items() for name in flat(settings)]
few = settings(
    max_examples=120, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with the settings of a run to evaluate beside it."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/args.yaml").write_text("num_heads: 4\n")
    monkeypatch.chdir(work)
    return work


def settings_or_error(command: str, argv: list[str], folder: Path) -> None:
    """Settings that can be written and read again, an InputError, or the exit with status 2 that says what is wrong."""
    if command == "test_han":
        argv = ["--checkpoint_dir", str(folder.parent / "run"), *argv]
    try:
        found = COMMANDS[command][0](argv)
    except InputError as error:
        assert "expected" in str(error)
    except SystemExit as error:
        assert error.code in (0, 2)
    else:
        assert json.dumps(flat(found)) and yaml.safe_load(yaml.safe_dump(flat(found))) is not None
    assert not any(folder.iterdir())


@few
@given(choice=st.sampled_from(CHOICES), text=st.one_of(st.text(max_size=12), NUMBERS.map(str)))
def test_any_text_of_any_flag_is_an_error_or_settings(folder: Path, choice: tuple[str, str], text: str):
    settings_or_error(choice[0], [f"--{choice[1]}", text], folder)


@few
@given(choice=st.sampled_from(CHOICES), value=VALUES)
def test_any_value_of_any_line_of_yaml_is_an_error_or_settings(folder: Path, choice: tuple[str, str], value: object):
    path = folder.parent / "some.yaml"
    path.write_text(yaml.safe_dump({choice[1]: value}))
    settings_or_error(choice[0], ["--config", str(path)], folder)


@few
@given(name=st.sampled_from(sorted(flat(stage4.Settings()))), value=VALUES)
def test_any_value_in_the_settings_of_an_evaluated_run_is_an_error_or_settings(folder: Path, name: str, value: object):
    (folder.parent / "run/args.yaml").write_text(yaml.safe_dump({name: value}))
    settings_or_error("test_han", [], folder)


@few
@given(text=st.text(alphabet="abd:[]{}&*!?-|>'\"#%@ \n\t1.", max_size=40))
def test_any_text_as_yaml_is_an_error_or_settings(folder: Path, text: str):
    path = folder.parent / "some.yaml"
    path.write_text(text)
    settings_or_error("train_han", ["--config", str(path)], folder)


WRONG_FLAGS = {
    "--clip_norm": "-1",
    "--lr_min": "-1",
    "--video_weight": "-1",
    "--mixup_alpha": "0",
    "--batch_size": "0",
    "--num_epochs": "0",
    "--dropout": "1",
    "--eps": "0",
    "--seed": str(2**63),
    "--lr": "nan",
    "--dim": "30",
    "--num_heads": "7",
}


@pytest.mark.parametrize("flag", WRONG_FLAGS)
def test_a_number_that_voids_training_is_refused_as_a_flag_and_in_a_file(folder: Path, flag: str):
    path, text = folder.parent / "some.yaml", WRONG_FLAGS[flag]
    path.write_text(f"{flag[2:]}: {'.nan' if text == 'nan' else text}\n")
    for argv in ([flag, text], ["--config", str(path)]):
        with pytest.raises(InputError, match=flag[2:]) as error:
            parse_train_han(argv)
        assert text in str(error.value)
    assert not any(folder.iterdir())


WRONG_LINES = (
    "pre_norm: 'false'",
    "batch_size: 8.9",
    "lr: true",
    "lr: [0.1]",
    "betas: 0.9",
    "betas: [0.9]",
    "audio_features: vggish",
    "lr: null",
    "lr:",
    "dataset: [LLP]",
    "dataset: UnAV",
    "num_epochs: '80'",
    "lr: {a: 1}",
    "data_dir: 3",
)


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_value_of_the_wrong_type_in_a_file_is_refused(folder: Path, line: str):
    path = folder.parent / "some.yaml"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=f"{path}, {line.split(':')[0]}: found .*; expected"):
        parse_train_han(["--config", str(path)])


def test_a_setting_that_a_file_names_twice_is_refused(folder: Path):
    path = folder.parent / "some.yaml"
    path.write_text("lr: 0.1\nlr: 0.2\n")
    with pytest.raises(InputError, match="lr more than once"):
        parse_train_han(["--config", str(path)])


OTHER_ON_RESUME = {
    "--decoding": "modality",
    "--num_heads": "8",
    "--encoder_order": "parallel",
    "--optimizer": "adam",
    "--batch_size": "32",
    "--train_fraction": "0.5",
    "--num_epochs": "79",
}


@pytest.mark.parametrize("flag", OTHER_ON_RESUME)
def test_a_run_is_not_resumed_with_another_setting(folder: Path, flag: str):
    run = folder.parent / "run"
    of_run = flat(train_han.Settings())
    (run / "args.yaml").write_text(
        yaml.safe_dump({name: value for name, value in of_run.items() if name not in NOT_WRITTEN})
    )
    before = (run / "args.yaml").read_bytes()
    with pytest.raises(InputError, match=flag) as error:
        train_han.main(["--resume", str(run), flag, OTHER_ON_RESUME[flag]])
    assert OTHER_ON_RESUME[flag] in str(error.value) and str(of_run[flag[2:]]) in str(error.value)
    assert (run / "args.yaml").read_bytes() == before


def test_flags_are_written_with_dashes_or_underscores_and_several_wrong_values_named_at_once():
    assert not parse_train_han(["--no-reweight"]).losses.reweight
    assert not parse_train_han(["--no_reweight"]).losses.reweight
    assert parse_train_han(["--lr=1e-3", "--betas", "0.5", "0.9"]).recipe.betas == (0.5, 0.9)
    with pytest.raises(InputError, match=r"--lr, --weight_decay: found -1\.0, -2\.0"):
        parse_train_han(["--lr", "-1", "--weight_decay", "-2"])


def test_yaml_s_own_numbers_and_those_with_an_exponent_alone_are_numbers(folder: Path):
    path = folder.parent / "some.yaml"
    path.write_text("lr: 1e-3\nweight_decay: 0\nclip_norm: .inf\n")
    recipe = parse_train_han(["--config", str(path)]).recipe
    assert (recipe.lr, recipe.weight_decay, recipe.clip_norm) == (1e-3, 0.0, float("inf"))


def test_a_method_of_one_head_may_have_a_width_that_the_default_number_of_heads_does_not_divide(folder: Path):
    found = parse_train_han(["--method", "han", "--dim", "30"])
    assert (found.model.dim, found.model.num_heads) == (30, 1)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", str(2**63), ""])
def test_a_number_of_a_plain_flag_has_its_range_too(text: str):
    with pytest.raises(ArgumentTypeError, match=f"found {text!r}; expected a whole number, at least 1"):
        whole_number(1)(text)
