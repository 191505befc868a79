"""Tiny runs of every command and method, whose results the record keeps.

Each step is one command with its flags, as a user would type them; paths are relative to the working folder.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pseudo_label_generation
import test_han
import train_han
import train_transformer
from baselines import compare_labels
from baselines.jomold import find_noise_ratios
from baselines.lsld import refine_labels
from baselines.ma import find_exchange
from dataloaders import check
from experiments import __main__ as experiments
from experiments import clip_analysis, collect, constant_baseline, localisation
from lavish import prepare_clips, test_classifier, train_classifier
from simulation import __main__ as simulation
from tests.lavish.test_classifiers import write_tiny_ave
from tests.tiny_clips import tiny_flags, write_tiny_ucf
from tests.tiny_data import write_ave, write_llp, write_unav
from tests.tiny_parsers import han_run, transformer_run
from tests.video.made_videos import make_video
from utils import trained
from utils.evaluation import compare
from video import extract_features, parse_video
from video.extraction import compare_features
from video.pages import __main__ as pages

CPU = "--device cpu"
NETWORK = "--dim 16 --num_heads 2 --ffn_dim 24 --num_layers 2"
RECIPE = "--num_epochs 3 --batch_size 4 --warmup_epochs 1 --lr 1e-2"
METHOD = "--dim 16 --ffn_dim 24 --num_epochs 2 --batch_size 4 --lr 1e-2 --checkpoint_every 1"
DECODING = "--segment_threshold 0.4 --gate_threshold 0.3"  # low enough for a network of a few steps to predict events

# Stage 3 beyond its defaults: each setting that another path of the code depends on.
UWAV = {
    "uwav": "",
    "uwav_streamed": "--residency stream",
    "uwav_of_the_paper": "--temperature 1 --weight_normalization mean --encoder_order parallel",
    "uwav_independent_layers": "--layer_init independent",
    "uwav_prenorm": "--pre_norm --num_proj_layers 2 --num_mmil_layers 2",
    "uwav_hard": "--segment_labels hard --mixup_labels hard --no-reweight",
    "uwav_no_mixup": "--no-mixup",
    "uwav_bf16": "--precision bf16",
    "uwav_clip_clap": "--audio_features clap --visual_features clip r2plus1d_18",
    "uwav_part_of_the_classes": "--num_classes 3 --segment_labels none",
    "uwav_part_of_the_videos": "--train_fraction 0.5",
}
METHODS = {
    "han": "",
    "ma": "--cleaned_label_dir {ma_base}/LLP_Exchange",
    "jomold": "--noise_ratio_dir {jomold_base}/LLP_Noise",
    "cmpae": "--noise_ratio_dir {jomold_base}/LLP_Noise --gates_epoch 1",
    "coleaf": "--noise_ratio_dir {jomold_base}/LLP_Noise",
    "valor": "--pseudo_label_dir labels_framewise",
    "valor_plus": "--pseudo_label_dir labels_framewise",
    "valor_plus_plus": "--pseudo_label_dir labels_framewise",
    "leap": "--pseudo_label_dir labels_framewise",
    "mmcse": "--pseudo_label_dir labels_framewise --event_dim 8",
    "lsld": "--pseudo_label_dir labels_language --num_layers 2",
}
CLIPS = {
    "lavish": "",
    "lavish_swin": "--backbone swinv2_tiny_window8_256 --image_size 32 --backbone_sizes window_size=4 embed_dim=24",
    "lavish_transformer": "--temporal transformer --flip --random_crop --max_masked_bands 4 --max_masked_frames 4",
    "lavish_without_the_other_modality": "--no-cross_modal --train_norms --accumulate 2",
    "vit_visual": "--model vit_visual --train_backbone",
    "vit_audio": "--model vit_audio",
    "late_fusion": "--model late_fusion",
    "i3d_soundnet": "--model i3d_soundnet --sound waveform --waveform_seconds 1.2 --image_size 20 --packed_frames 4",
}

Step = tuple[str, Callable[[], object]]  # name, and what runs


def command(main: Callable[[list[str]], object], flags: str, printed: str = "") -> Callable[[], None]:
    """Return a call of a command with its flags; what it prints goes to the file `printed`, if one is named."""

    def call() -> None:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            main(flags.split())
        if printed:
            Path(printed).write_text(output.getvalue())

    return call


def run_of(name: str) -> Path:
    """Return the run folder that the step of this name has made."""
    (folder,) = Path("runs", name).iterdir()
    return folder


def prepare() -> None:
    """Write the data of all runs."""
    write_llp(Path("LLP"))
    write_unav(Path("UnAV"))  # videos of 3 to 9 seconds
    write_ave(Path("AVE"))
    write_tiny_ucf(Path("UCF101"))
    write_tiny_ave(Path("AVE_clips"))
    for number, seconds in enumerate((2, 3.5)):
        make_video(Path(f"videos/video{number}.mp4"), seconds, seed=number)
    han_run(Path("untrained/HAN"))
    transformer_run(Path("untrained/TemporalTransformer"))


def all_steps() -> Iterator[Step]:
    """Yield every step in turn, to be run before the next one is asked for."""
    yield from stages()
    yield from methods()
    yield from ave()
    yield from classifiers_of_clips()
    yield from videos()
    yield from tables()


def stages() -> Iterator[Step]:
    """The four stages on UnAV and LLP."""
    train = f"--data_dir UnAV {NETWORK} {RECIPE} {CPU}"
    for name, more in {
        "transformer": "",
        "transformer_streamed": "--residency stream --num_layers 1 --occurring_weight 1",
    }.items():
        yield name, command(train_transformer.main, f"{train} --output_dir runs/{name} {more}")
    label = f"--data_dir LLP --transformer_dir {run_of('transformer')} {CPU}"
    for name, more in {
        "labels": "--export",
        "labels_class_agnostic": "--threshold_type class_agnostic",
    }.items():
        yield name, command(pseudo_label_generation.main, f"{label} --output_dir {name} {more}")

    train = f"--data_dir LLP --pseudo_label_dir labels {NETWORK} {RECIPE} {CPU}"
    for name, more in UWAV.items():
        yield name, command(train_han.main, f"{train} --output_dir runs/{name} {more}")
        yield f"{name}, evaluated", evaluation(name)
    yield "uwav, decoded by modality", evaluation("uwav", "--decoding modality", "logs/uwav_by_modality")
    yield "uwav, two seeds", command(train_han.main, f"{train} --output_dir runs/seeds --num_runs 2 --jobs 1")
    yield "uwav, two seeds, evaluated", evaluation("seeds")
    yield "uwav, first epochs", command(train_han.main, f"{train} --output_dir runs/resumed --num_epochs 2")
    yield "uwav, resumed", command(train_han.main, f"--resume {run_of('resumed')} --num_epochs 3")


def evaluation(name: str, more: str = "", output: str = "") -> Callable[[], None]:
    """Stage 4 of the run of this name."""
    flags = f"--checkpoint_dir {run_of(name)} --output_dir {output or f'logs/{name}'} --num_figures 1 {DECODING} {CPU}"
    return command(test_han.main, f"{flags} {more}")


def methods() -> Iterator[Step]:
    """The methods of Table 1 on LLP, with the commands that make their labels."""
    train = f"--data_dir LLP {METHOD} {CPU}"
    for name in ("ma_base", "jomold_base"):
        yield name, command(train_han.main, f"--method {name} {train} --output_dir runs/{name}")
    flags = f"--data_dir LLP {CPU} --checkpoint_dir"
    yield "find_exchange", command(find_exchange.main, f"{flags} {run_of('ma_base')}")
    yield "find_noise_ratios", command(find_noise_ratios.main, f"{flags} {run_of('jomold_base')}")
    label = f"--data_dir LLP {CPU} --output_dir"
    framewise = "labels_framewise --teacher framewise --thresholds search"
    yield "labels_framewise", command(pseudo_label_generation.main, f"{label} {framewise}")
    compared = "labels labels_framewise --annotations_dir LLP --output compared_labels"
    yield "compare_labels", command(compare_labels.main, compared)
    yield "labels_language", command(refine_labels.main, f"{label} labels_language")
    bases = {name: run_of(name) for name in ("ma_base", "jomold_base")}
    for name, more in METHODS.items():
        more = more.format_map(bases)
        yield name, command(train_han.main, f"--method {name} {train} --output_dir runs/{name} {more}")
        yield f"{name}, evaluated", evaluation(name, "--unimodal_scores" if name == "coleaf" else "")


def ave() -> Iterator[Step]:
    """Stages 2 to 4 on AVE."""
    label = f"--dataset AVE --data_dir AVE --transformer_dir {run_of('transformer')} {CPU}"
    yield "ave_labels", command(pseudo_label_generation.main, f"{label} --output_dir ave_labels")
    separate = "--output_dir ave_labels_separate --grid_search apart --threshold_type class_agnostic"
    yield "ave_labels_separate", command(pseudo_label_generation.main, f"{label} {separate}")
    train = f"--dataset AVE --data_dir AVE {NETWORK} {RECIPE} {CPU}"
    for name, more in {
        "ave": "--pseudo_label_dir ave_labels",
        "ave_han": f"--method han --num_heads 1 --num_layers 1 {METHOD}",
    }.items():
        yield name, command(train_han.main, f"{train} --output_dir runs/{name} {more}")
        yield f"{name}, evaluated", evaluation(name, "--segment_threshold 0.2")
    other = "--segment_threshold 0.2 --event_from segments --active_in either"
    yield "ave, decoded otherwise", evaluation("ave", other, "logs/ave_otherwise")


def classifiers_of_clips() -> Iterator[Step]:
    """LAVISH and what it is compared with, on UCF-101 and AVE."""
    ucf = " ".join(tiny_flags(Path("UCF101")))
    *rest, _ = ucf.split(" --num_epochs")
    yield "prepare_clips", command(prepare_clips.main, rest[0].split(" --backbone ")[0], "printed/prepare_clips.txt")
    for name, more in CLIPS.items():
        yield name, command(train_classifier.main, f"{ucf} --output_dir runs/{name} {more}")
        yield f"{name}, evaluated", classification(name)
    replaced = {"UCF101/lists": "AVE_clips", "UCF101": "AVE_clips", "--dataset AVE_clips": "--dataset AVE"}
    ave_clips = ucf.replace("--packed_frames 2", "--packed_frames 10")
    for old, new in replaced.items():
        ave_clips = ave_clips.replace(old, new)
    yield "lavish_ave", command(train_classifier.main, f"{ave_clips} --output_dir runs/lavish_ave")
    yield "lavish_ave, evaluated", classification("lavish_ave")
    for analysis in ("features", "reliance", "mistakes"):
        flags = (
            f"--analysis {analysis} --checkpoint_dir {run_of('lavish')} --logs_dir logs/analyses --split train {CPU}"
        )
        yield f"lavish, {analysis}", command(clip_analysis.main, flags)


def classification(name: str) -> Callable[[], None]:
    """Evaluation of the classifier of this name."""
    return command(test_classifier.main, f"--checkpoint_dir {run_of(name)} --logs_dir logs/{name} {CPU}")


def videos() -> Iterator[Step]:
    """Features from videos, one's own video, exports."""
    small = f"--random_weights small {CPU}"
    extract = f"--videos videos --output features {small} --num_decoders 1"
    yield "extract_features", command(extract_features.main, extract)
    valor = f"--videos videos --output features_valor --recipe valor --features clip clap --events dog car {small}"
    yield "extract_features, valor's recipe", command(extract_features.main, f"{valor} --num_decoders 1")
    folders = "features/feats_CLIP/segment_feats features_valor/feats_CLIP/segment_feats"
    written = "--csv printed/compare_features.csv"
    compared = "printed/compare_features.txt"
    yield "compare_features", command(compare_features.main, f"{folders} {written}", compared)
    parse = f"videos/video1.mp4 {small} --threshold 0.4"
    of_han = "--model untrained/HAN --output_dir parsed/HAN --stride 1"
    yield "parse_video", command(parse_video.main, f"{parse} {of_han}")
    named = "--model untrained/TemporalTransformer --output_dir parsed/TemporalTransformer --events barking glass"
    yield "parse_video, any events", command(parse_video.main, f"{parse} {named}")
    yield "trained", command(trained.main, f"{run_of('uwav')} exported/HAN")
    transformer = f"{run_of('transformer')} exported/TemporalTransformer --pseudo_label_dir labels"
    yield "trained, of stage 1", command(trained.main, transformer)
    generate = "--videos --output generated --num_train 2 --num_val 1 --num_test 1 --longest 10 --dataset LLP"
    yield "simulation of videos", command(simulation.main, generate)


def tables() -> Iterator[Step]:
    """What compares, checks and collects runs."""
    sizes = "--num_train 3 --num_val 2 --num_test 2"
    yield "simulation", command(simulation.main, f"--output simulated --dataset LLP UnAV AVE {sizes}")
    pe_audio = f"--output simulated --dataset LLP --features pe_audio {sizes}"
    yield "simulation of PE-A-Frame's features", command(simulation.main, pe_audio)
    pe_frame = f"--teacher pe_frame --data_dir simulated/LLP --output_dir labels_pe_frame {CPU}"
    yield "labels_pe_frame", command(pseudo_label_generation.main, pe_frame)
    for dataset in ("LLP", "UnAV", "AVE"):
        flags = f"--dataset {dataset} --data_dir {dataset}"
        yield f"check of {dataset}", command(check.main, flags, f"printed/check_{dataset}.txt")
    yield "compare", command(compare.main, "logs/uwav logs/han", "printed/compare.txt")
    yield "collect", command(collect.main, "logs/uwav_hard logs/seeds logs/han", "printed/collect.txt")
    yield "pages", command(pages.main, "logs/uwav logs/han --output timelines.html --pseudo_label_dir labels")
    yield "constant_baseline", command(constant_baseline.main, "--data_dir LLP", "printed/constant_baseline.txt")
    localised = f"--checkpoint_dir {run_of('transformer')} --split val test {CPU}"
    yield "localisation", command(localisation.main, localised, "printed/localisation.txt")
    names = " ".join(experiments.EXPERIMENTS)
    where = "--data_root . --runs_dir experiment_runs --results_dir results"
    yield "experiments", command(experiments.main, f"{names} --preset tiny --seeds 1 2 {where} {CPU}")
