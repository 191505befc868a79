"""Stage 1: pre-train the temporal transformer on UnAV-100 (paper section 4.1)."""

from utils.entry_point import run_entry_point

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from dataloaders.batches import Batch, DataSettings, SplitBatches, open_split, open_texts
from models import TemporalTransformer, TemporalTransformerConfig
from utils.audio_visual import AudioVisual
from utils.evaluation.inference import temporal_transformer_logits
from utils.evaluation.tasks import true_events
from utils.method.losses import Losses, Moment, audio_visual_loss
from utils.method.metrics import segment_counts, video_f_scores
from utils.provenance import hash_of_tensors, provenance_of
from utils.run_folders import TrainingRun, begin_run, finish_run
from utils.settings import FromFile, parse_settings, settings_group
from utils.training.device import CompileSettings, DeviceSettings, Precision, compile_network, machine_name
from utils.training.loop import BEST_CHECKPOINT, RESUMABLE, Recipe, Saving, fit

DATASET = "UnAV"
BEST_METRIC = "segment_AV"


@settings_group
class TemporalTransformerLosses:
    """Settings of the loss of stage 1."""

    occurring_weight: NonNegativeFloat = 5.0
    """loss weight of all segments of a video for the classes that occur in it (not mentioned in the paper; 1: off)"""


@settings_group
class Settings(FromFile):
    """Settings of stage 1; the defaults are the released recipe, `configs/transformer_unav.yaml`.

    The paper clips gradients at 1.0 and does not give the betas.
    """

    data: DataSettings = DataSettings(audio_features=("clap",), visual_features=("clip",))
    model: TemporalTransformerConfig = TemporalTransformerConfig()
    recipe: Recipe = Recipe(lr_min=1e-5, betas=(0.5, 0.999), weight_decay=1e-3, clip_norm=2.0, seed=1000)
    losses: TemporalTransformerLosses = TemporalTransformerLosses()
    device: DeviceSettings = DeviceSettings(eval_batch_size=128)
    compile: CompileSettings = CompileSettings()
    saving: Saving = Saving()
    run: TrainingRun = TrainingRun()


@torch.inference_mode()
def validate(
    model: TemporalTransformer, split: SplitBatches, texts: AudioVisual[Tensor], batch_size: int, precision: Precision
) -> dict[str, float]:
    """Return the segment-level F-score of p_av > 0.5 on the audio-visual labels, averaged over videos, in percent."""
    logits = temporal_transformer_logits(model, split, texts, batch_size, precision)
    prediction = torch.sigmoid(logits.audio) * torch.sigmoid(logits.visual) > 0.5  # (N, T, C)
    truth = true_events(split.annotations, prediction.device).audio  # equal for both modalities
    return {BEST_METRIC: 100 * video_f_scores(segment_counts(prediction, truth)).mean().item()}


def main(argv: list[str] | None = None) -> None:
    # 1 Settings
    settings = parse_settings(Settings(), __doc__, argv, RESUMABLE)
    device, precision = settings.device.select()
    torch.manual_seed(settings.recipe.seed)

    # 2 Data
    train, val = (open_split(DATASET, name, settings.data, device) for name in ("train", "val"))
    texts = open_texts(DATASET, settings.data, device)
    sources = {"texts": hash_of_tensors(*texts)}
    record = provenance_of("a run of train_transformer.py", {"train": train, "val": val}, sources)

    # 3 Model
    text_dims = texts.audio.shape[1], texts.visual.shape[1]
    model = TemporalTransformer(*train.widths, *text_dims, settings.model).to(device)
    forward = compile_network(model, device) if settings.compile.compile else model

    # 4 Loop
    name = "_".join(filter(None, ("TemporalTransformer", settings.run.name, DATASET)))
    run_dir, log = begin_run(settings, name, record)
    log.info(f"{run_dir}: {train.num_videos} training videos, {val.num_videos} validation videos, {device}")

    def step(network: nn.Module, batch: Batch, moment: Moment) -> Losses:
        output = precision.run(forward, *batch.features, *texts, batch.mask, batch.valid_rows)
        occurring_weight = settings.losses.occurring_weight
        return {"total": audio_visual_loss(output.logits, batch.labels.audio, batch.mask, occurring_weight)}

    def score() -> dict[str, float]:
        return validate(model, val, texts, settings.device.eval_batch_size, precision)

    resume = settings.run.resume is not None
    progress = fit(model, train, step, score, settings.recipe, BEST_METRIC, run_dir, log, settings.saving, resume)

    # 5 Report
    computed = {"device": str(device), "threads": torch.get_num_threads(), "machine": machine_name(str(device))}
    summary = {"best_epoch": progress.best_epoch, BEST_METRIC: progress.best_score, **computed}
    finish_run(run_dir, summary, progress.seconds)
    kept = f"kept: epoch {progress.best_epoch}, {BEST_METRIC} {progress.best_score:.2f}"
    log.info(f"{kept}, {run_dir / BEST_CHECKPOINT}; {progress.seconds:.0f} s")


if __name__ == "__main__":
    run_entry_point(main)
