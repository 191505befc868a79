"""Stage 3: train HAN on video labels and pseudo-labels (paper sections 3.3 to 3.5)."""

from utils.entry_point import run_entry_point

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.jomold.noise_ratios import NoiseRatios, load_noise_ratios
from baselines.leap.word_vectors import WORD_VECTORS_FILE, load_class_vectors
from baselines.ma.cleaned_labels import CleanedLabels, load_cleaned_labels
from dataloaders.batches import DataSettings, SplitBatches, open_split
from dataloaders.datasets import DATASETS, PARSED_DATASETS
from dataloaders.subsets import Subset
from models import NETWORKS, HANConfig, HANOutput, ParsingNetwork
from utils.audio_visual import AudioVisual
from utils.command_settings import parse_settings, with_settings
from utils.errors import InputError
from utils.evaluation.inference import run_han
from utils.evaluation.tasks import SELECTABLE, find_task, true_events
from utils.method.decoding import DecodingSettings
from utils.method.losses import smooth_labels
from utils.method.objectives import HANLosses, HANObjective
from utils.method.steps import make_step
from utils.methods import METHODS
from utils.run_folders import SUMMARY_FILE, TrainingRun, begin_run, finish_run, newest_finished_run
from utils.settings import setting
from utils.several_seeds import SeveralSeeds, train_seeds
from utils.training.device import CompileSettings, DeviceSettings, Precision, compile_network, select_device
from utils.training.loop import BEST_CHECKPOINT, RESUMABLE, Recipe, Saving, fit


@dataclass(frozen=True)
class Settings:
    """What stage 3 can be told; its defaults are UWAV's released recipe on LLP."""

    method: str = setting(
        "uwav",
        "sets the defaults of all flags below to this method's (utils/methods.py); every flag still counts",
        choices=METHODS,
    )
    dataset: str = setting("LLP", "data set", choices=PARSED_DATASETS)
    pseudo_label_dir: Path | None = setting(
        None, "output of stage 2 (default: <dataset>_Dataset of the newest finished stage-1 run in output_dir)"
    )
    cleaned_label_dir: Path | None = setting(
        None,
        "output of baselines.ma.find_exchange (default: <dataset>_Exchange of the newest such run in output_dir)",
    )
    noise_ratio_dir: Path | None = setting(
        None,
        "output of baselines.jomold.find_noise_ratios (default: <dataset>_Noise of the newest such run in output_dir)",
    )
    network: str = setting("han", "network", choices=NETWORKS)
    glove: Path | None = setting(None, "word vectors of LEAP, GloVe's text format (default: glove.txt in data_dir)")
    select_on: str | None = setting(
        None, "score on val that selects the best checkpoint (default: segment_Type, or accuracy)", choices=SELECTABLE
    )
    data: DataSettings = DataSettings()
    subset: Subset = Subset()
    model: HANConfig = HANConfig()
    losses: HANLosses = HANLosses()
    decoding: DecodingSettings = DecodingSettings()
    recipe: Recipe = Recipe()
    seeds: SeveralSeeds = SeveralSeeds()
    device: DeviceSettings = DeviceSettings()
    compile: CompileSettings = CompileSettings()
    saving: Saving = Saving()
    run: TrainingRun = TrainingRun()


def settings_of_method(settings: Settings) -> Mapping[str, object]:
    """What data set and method change in the defaults."""
    return {**DATASETS[settings.dataset].han_settings, **METHODS[settings.method].settings}


def variant(settings: Settings) -> str:
    """Name of the method that the settings make, for the run folder."""
    losses = settings.losses
    if settings.method != "uwav":
        return settings.method
    if losses.segment_labels == "none":
        return "video"
    return losses.segment_labels + "_reweight" * losses.reweight + "_mixup" * losses.mixup


def find_label_folders(settings: Settings) -> Settings:
    """The settings with the newest folders of the labels that they ask for, and None for those that they do not."""

    def find(wanted: bool, given: Path | None, prefix: str, folder: str, script: str, flag: str) -> Path | None:
        if not wanted or given is not None:
            return given if wanted else None
        way_out = f"Run {script} first, or give {flag}."
        return newest_finished_run(settings.run.output_dir, prefix, way_out, f"{folder}/{SUMMARY_FILE}") / folder

    wants_pseudo = settings.losses.segment_labels != "none"
    prefix, script = METHODS[settings.method].teacher_prefix, METHODS[settings.method].teacher_script
    folder = f"{settings.dataset}_Dataset"
    pseudo = find(wants_pseudo, settings.pseudo_label_dir, prefix, folder, script, "--pseudo_label_dir")
    wants_noise = settings.losses.guided_labels == "denoised"
    folder = f"{settings.dataset}_Noise"
    noise = find(
        wants_noise,
        settings.noise_ratio_dir,
        "HAN_",
        folder,
        "baselines.jomold.find_noise_ratios",
        "--noise_ratio_dir",
    )
    wants_cleaned = settings.losses.guided_labels == "cleaned"
    folder = f"{settings.dataset}_Exchange"
    cleaned = find(
        wants_cleaned,
        settings.cleaned_label_dir,
        "HAN_",
        folder,
        "baselines.ma.find_exchange",
        "--cleaned_label_dir",
    )
    return with_settings(settings, pseudo_label_dir=pseudo, cleaned_label_dir=cleaned, noise_ratio_dir=noise)


def check_settings(settings: Settings) -> None:
    """Raises InputError for settings that the chosen network or task cannot have, or that contradict each other."""
    network, losses, decoding = NETWORKS[settings.network], settings.losses, settings.decoding
    task, guided = find_task(settings.dataset), losses.guided_labels
    labelled = losses.segment_labels != "none"
    alone = guided == "denoised" or decoding.cross_share < 1
    from_segments = guided == "segments" or losses.similarity_weight > 0
    every, last = settings.saving.checkpoint_every, settings.recipe.num_epochs
    gates_epoch = decoding.gates_epoch if decoding.class_gates else 0
    kept = gates_epoch <= last and gates_epoch % every == 0
    by_name, shared = f"--network {settings.network}", "a classifier that both modalities share, or no mixup"
    for flag, found, wrong, expected in (
        ("--mixup", by_name, losses.mixup and labelled and not network.can_mix, shared),
        (
            "--mutual_weight",
            by_name,
            losses.mutual_weight > 0 and not network.has_uncertainty,
            "one with uncertainties",
        ),
        ("--cross_share, --guided_labels", by_name, alone and not network.can_separate, "one without cross-attention"),
        (
            "--no-cross_attention",
            by_name,
            not settings.model.cross_attention and not network.follows_cross_attention,
            "han, the one network that can do without it throughout",
        ),
        ("--guided_labels", "none", network.has_references and guided == "none", "labels for CoLeaF's references"),
        (
            "--segment_labels",
            "none",
            from_segments and not labelled,
            "labels of segments, of which --guided_labels segments and --similarity_weight learn",
        ),
        ("--class_gates", "--decoding video", decoding.class_gates and decoding.decoding == "video", "modality"),
        (
            "--gates_epoch",
            f"{gates_epoch} of {last} epochs, checkpoints every {every}",
            not kept,
            "an epoch whose checkpoint is kept (--checkpoint_every), or 0 for the evaluated one",
        ),
        (
            "--select_on",
            str(settings.select_on),
            settings.select_on not in (None, *task.selectable),
            f"a score of {settings.dataset}, such as {task.best_metric}",
        ),
    ):
        if wrong:
            raise InputError(flag, found, expected, "Change either; see docs/baselines.md.")


def make_network(settings: Settings, train: SplitBatches) -> ParsingNetwork:
    """The network for the split's features and classes, with random weights, on its device."""
    network, classes = NETWORKS[settings.network], train.annotations.classes
    arguments = [len(classes), train.widths.audio, train.feature_widths.visual, settings.model]
    if network.takes_label_vectors:
        path = settings.glove or settings.data.folder(settings.dataset) / WORD_VECTORS_FILE
        arguments.append(load_class_vectors(path, classes))
    return network(*arguments).to(train.device)


def make_objective(
    settings: HANLosses, train: SplitBatches, cleaned: CleanedLabels | None = None, noise: NoiseRatios | None = None
) -> HANObjective:
    """What is minimised on a training split, with what its pseudo-labels and labels give.

    Args:
        cleaned: the labels of each modality that `guided_labels` "cleaned" asks for.
        noise: what `guided_labels` "denoised" asks for.
    """

    def to_device(x: Tensor) -> Tensor:
        return x.to(train.device, torch.float32)

    pseudo, guided = train.pseudo, None
    if settings.guided_labels not in ("none", "segments"):
        video_labels = train.annotations.video_labels
        labels = AudioVisual(video_labels, video_labels) if cleaned is None else cleaned.labels
        smoothing = AudioVisual(settings.audio_smoothing, settings.visual_smoothing)
        guided = labels.map(to_device).map(smooth_labels, smoothing)
    return HANObjective(
        settings,
        thresholds=pseudo and pseudo.thresholds.map(to_device),
        class_frequencies=pseudo and pseudo.class_frequencies.map(to_device),
        guided_targets=guided,
        noise_ratios=noise and noise.ratios.map(to_device),
    )


def validate(
    network: ParsingNetwork, val: SplitBatches, settings: Settings, select_on: str, precision: Precision
) -> dict[str, float]:
    """Scores on the validation split by name; the one that selects the best checkpoint is always among them."""
    task, truth = find_task(settings.dataset), true_events(val.annotations, val.device)
    batch_size, share = settings.device.eval_batch_size, settings.decoding.cross_share
    events = task.decode(run_han(network, val, batch_size, precision, cross_share=share), settings.decoding)
    return {select_on: task.selection_score(select_on, events, truth), **task.score(events, truth)}


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings(Settings, __doc__, argv, settings_of_method, fixed=("method",), resumable=RESUMABLE)
    check_settings(settings)
    settings = find_label_folders(settings)
    name = f"HAN_{variant(settings)}_{settings.dataset}"
    if settings.seeds.num_runs > 1:
        train_seeds(Path(__file__), settings, name, on_gpu=select_device(settings.device.device).type != "cpu")
        return
    device, precision = settings.device.select()
    torch.manual_seed(settings.recipe.seed)

    # 2 Data
    train = open_split(settings.dataset, "train", settings.data, device, settings.pseudo_label_dir, settings.subset)
    val = open_split(settings.dataset, "val", settings.data, device, subset=settings.subset)
    cleaned = settings.cleaned_label_dir and load_cleaned_labels(settings.cleaned_label_dir, train.annotations)
    noise = settings.noise_ratio_dir and load_noise_ratios(
        settings.noise_ratio_dir, settings.dataset, train.annotations.classes
    )

    # 3 Model and what it minimises
    model = make_network(settings, train)
    compiled = compile_network(model, device) if settings.compile.compile else model

    def forward(network: nn.Module, *inputs: Tensor | bool) -> HANOutput:
        return precision.run(compiled if network is model else network, *inputs)

    step = make_step(model, make_objective(settings.losses, train, cleaned, noise), forward)

    # 4 Loop
    run_dir, log = begin_run(settings, name)
    log.info(f"{run_dir}: {train.num_videos} training videos, {val.num_videos} validation videos, {device}")
    select_on = settings.select_on or find_task(settings.dataset).best_metric
    scores = partial(validate, model, val, settings, select_on, precision)
    resume = settings.run.resume is not None
    progress = fit(model, train, step, scores, settings.recipe, select_on, run_dir, log, settings.saving, resume)

    # 5 Report
    finish_run(run_dir, {"best_epoch": progress.best_epoch, select_on: progress.best_score})
    best = f"best {select_on} {progress.best_score:.2f} in epoch {progress.best_epoch}"
    log.info(f"{best}: {run_dir / BEST_CHECKPOINT}")


if __name__ == "__main__":
    run_entry_point(main)
