"""Trained networks from run folders, exported folders and the hub."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import models.pretrained
from models import HAN, TemporalTransformer, TemporalTransformerConfig
from models.pretrained import Description, description_in, read_config
from tests.tiny_parsers import han_run, transformer_run
from tests.tiny_runs import label, pretrain
from utils.errors import InputError
from utils.trained import export, main, newest_han, open_run, open_trained, thresholds_of

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

ROOT = Path(__file__).resolve().parents[2]


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("make_run", [han_run, transformer_run])
def test_an_exported_run_is_the_same_network_with_its_description(tmp_path: Path, make_run):
    trained = open_run(make_run(tmp_path / "run"))
    main([str(tmp_path / "run"), str(tmp_path / "exported")])
    again = open_trained(str(tmp_path / "exported"))
    assert type(again) is type(trained) and not again.training
    assert same_weights(again, trained)
    assert again.description == trained.description and again.sizes == trained.sizes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "run"]


def test_from_pretrained_opens_a_run(tmp_path: Path):
    run = han_run(tmp_path / "run")
    network, opened = HAN.from_pretrained(run), open_run(run)
    assert same_weights(network, opened) and network.description == opened.description and not network.training
    with pytest.raises(InputError, match=r"found no TemporalTransformer .*a HAN"):
        TemporalTransformer.from_pretrained(run)


def test_what_shapes_do_not_tell_survives_the_export(tmp_path: Path):
    settings = {"encoder_order": "parallel", "decoding": "modality", "num_classes": 25, "dataset": "LLP"}
    trained = open_run(han_run(tmp_path / "run", **settings))
    export(trained, tmp_path / "exported")
    again = HAN.from_pretrained(tmp_path / "exported")
    assert again.description.decoding == "modality"
    audio, visual = torch.randn(2, 10, 128), torch.randn(2, 10, trained.sizes["visual_dim"])
    assert torch.equal(again(audio, visual).video_probs, trained(audio, visual).video_probs)


def test_a_run_says_what_it_was_trained_on_and_how_it_is_built(tmp_path: Path):
    how = {"pre_norm": True, "encoder_order": "parallel", "cross_attention": False}
    run = han_run(tmp_path / "run", num_classes=3, decoding="modality", **how)
    (run / "data").mkdir()
    (run / "data" / "simulation.yaml").touch()
    network = open_run(run)
    assert {name: getattr(network.config, name) for name in how} == how and network.config.num_heads == 2
    assert network.description == Description(
        network="HAN",
        dataset="LLP",
        classes=("Speech", "Car", "Cheering"),
        audio_features=("vggish",),
        visual_features=("res152", "r2plus1d_18"),
        decoding="modality",
        note="simulated features",
    )
    of_transformer = open_run(transformer_run(tmp_path / "transformer")).description
    assert (of_transformer.network, of_transformer.dataset) == ("TemporalTransformer", "UnAV")
    assert (of_transformer.audio_features, of_transformer.visual_features) == (("clap",), ("clip",))
    assert len(of_transformer.classes) == 100 and of_transformer.note == ""


def test_the_json_says_in_words_what_the_network_is(tmp_path: Path):
    export(open_run(han_run(tmp_path / "run")), tmp_path / "exported")
    content = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert content["num_classes"] == 25 and content["audio_dim"] == 128
    description = content["description"]
    assert description["classes"][:2] == ["Speech", "Car"]
    assert description["audio_features"] == ["vggish"]
    assert description["visual_features"] == ["res152", "r2plus1d_18"]


def test_a_network_saves_and_loads_without_any_run(tmp_path: Path):
    network = TemporalTransformer(6, 7, 4, 5, TemporalTransformerConfig(dim=16, num_heads=2, ffn_dim=24, num_layers=1))
    description = Description("TemporalTransformer", classes=("a", "b"), audio_thresholds=(0.5, None))
    network.save_pretrained(tmp_path / "saved", description)
    again = TemporalTransformer.from_pretrained(tmp_path / "saved")
    assert same_weights(network, again) and again.description == description
    again.save_pretrained(tmp_path / "copy", config=None, model_card_kwargs=None)  # as push_to_hub calls it
    assert TemporalTransformer.from_pretrained(tmp_path / "copy").description == description


def test_thresholds_of_stage_2_go_with_the_transformer(tmp_path: Path, llp_dir: Path, unav_dir: Path):
    run = pretrain(unav_dir, tmp_path / "train", "--num_epochs", "1")
    pseudo_dir = label(llp_dir, run)
    main([str(run), str(tmp_path / "exported"), "--pseudo_label_dir", str(pseudo_dir)])
    network = open_trained(str(tmp_path / "exported"))
    assert network.description.dataset == "LLP" and len(network.description.classes) == 25
    saved = load_file(pseudo_dir / "test.safetensors")
    audio, visual = thresholds_of(network.description)
    torch.testing.assert_close(audio, saved["audio_thresholds"].float())
    torch.testing.assert_close(visual, saved["visual_thresholds"].float())


def test_a_threshold_that_is_always_exceeded_has_a_word_in_json():
    description = Description("HAN", audio_thresholds=(0.25, None), visual_thresholds=(None, -1.0))
    audio, visual = thresholds_of(description)
    assert audio.tolist() == [0.25, -torch.inf] and visual.tolist() == [-torch.inf, -1.0]
    assert thresholds_of(replace(description, audio_thresholds=None)) is None


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path):
    (tmp_path / "exported").mkdir()
    with pytest.raises(InputError, match="already"):
        export(open_run(han_run(tmp_path / "run")), tmp_path / "exported")


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path):
    export(open_run(han_run(tmp_path / "run")), tmp_path / "exported")
    path = tmp_path / "exported" / "model.safetensors"
    state = load_file(path)
    state.pop("fc_prob.weight")
    save_file(state, path)
    with pytest.raises(InputError, match="fc_prob"):
        open_trained(str(tmp_path / "exported"))


@pytest.mark.parametrize("damage", ["no config.json", "no JSON", "no description", "damaged weights", "no weights"])
def test_a_damaged_folder_is_refused_in_words(tmp_path: Path, damage: str):
    folder = tmp_path / "exported"
    export(open_run(han_run(tmp_path / "run")), folder)
    config = json.loads((folder / "config.json").read_text())
    if damage == "no config.json":
        (folder / "config.json").unlink()
    elif damage == "no JSON":
        (folder / "config.json").write_text("{")
    elif damage == "no description":
        (folder / "config.json").write_text(json.dumps({**config, "description": {"network": "other"}}))
    elif damage == "damaged weights":
        (folder / "model.safetensors").write_bytes(b"no weights")
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="exported"):
        open_trained(str(folder))


def test_a_description_may_be_absent_or_of_a_later_version():
    assert description_in({"num_classes": 25}) is None
    later = {"network": "HAN", "classes": ["a", "b"], "colour": "red"}
    assert description_in({"description": later}) == Description("HAN", classes=("a", "b"))


def test_a_config_that_is_no_object_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        read_config(tmp_path)


def test_a_hub_id_that_cannot_be_had_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="someone/no-such-network"):
        HAN.from_pretrained("someone/no-such-network", cache_dir=tmp_path)


def test_a_run_without_checkpoint_or_settings_is_refused(tmp_path: Path):
    run = han_run(tmp_path / "run")
    (run / "args.yaml").write_text("num_heads: 2\n")
    with pytest.raises(InputError, match=r"args\.yaml"):
        open_run(run)
    (run / "checkpoints" / "checkpoint_best.pt").unlink()
    with pytest.raises(InputError, match="checkpoint_best"):
        open_run(run)


def test_without_huggingface_hub_saving_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models.pretrained, "hf_hub_download", None)
    network = open_run(han_run(tmp_path / "run"))
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        network.save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        HAN.from_pretrained(tmp_path / "saved")


def test_training_does_without_huggingface_hub():
    script = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import train_han, train_transformer\n"
        "from models import HAN\n"
        "HAN(3, 4, [5]).state_dict()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)


class HubServer(BaseHTTPRequestHandler):
    """Serves one repository as the Hugging Face hub does: /<id>/resolve/<revision>/<file>."""

    folder: Path
    commit = "0" * 40

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.folder / self.path.rsplit("/", 1)[-1].partition("?")[0]
        if not self.path.startswith("/someone/han/resolve/") or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *message: object) -> None:
        """Be quiet."""


def test_a_network_comes_from_the_hub_by_its_id(tmp_path: Path):
    export(open_run(han_run(tmp_path / "run")), tmp_path / "exported")
    handler = type("Handler", (HubServer,), {"folder": tmp_path / "exported"})
    script = "from utils.trained import open_trained; print(open_trained('someone/han').description.classes[1])"
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        of_hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, **of_hub, "HF_HOME": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.shutdown()
    assert done.stdout.splitlines()[-1:] == ["Car"], done.stderr


def test_the_newest_run_that_can_be_opened_is_found(tmp_path: Path):
    names = ["HAN_uwav_LLP_1", "HAN_several/run_2", "HAN_cmpae_LLP_3", "HAN_several", "HAN_unfinished_5"]
    for number, name in enumerate(names):
        if name != "HAN_several":
            han_run(tmp_path / name, method="cmpae" if "cmpae" in name else "uwav")
        if "unfinished" not in name:
            (tmp_path / name / "summary.json").write_text("{}")
            os.utime(tmp_path / name / "summary.json", (number, number))
    assert newest_han(tmp_path) == tmp_path / "HAN_several/run_2"
    with pytest.raises(InputError, match="a run of cmpae"):
        open_run(tmp_path / "HAN_cmpae_LLP_3")


def test_without_a_run_that_can_be_opened_the_others_are_counted(tmp_path: Path):
    with pytest.raises(InputError, match="no finished run"):
        newest_han(tmp_path)
    (han_run(tmp_path / "HAN_leap_LLP", method="leap") / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"among 1;.*--model"):
        newest_han(tmp_path)


def changed(part: str | None, name: str, value: object):
    """A change of `config.json`: of the sizes themselves, of the network's settings, or of the description."""

    def change(content: dict) -> None:
        (content if part is None else content[part])[name] = value

    return change


HUGE = 1_000_000
UNUSABLE = [
    *(
        changed("config", name, value)
        for name, value in (("pre_norm", "false"), ("encoder_order", "foo"), ("dim", "8"))
    ),
    *(changed("config", name, HUGE) for name in ("dim", "ffn_dim", "num_layers", "num_proj_layers", "num_mmil_layers")),
    *(changed("config", "num_heads", value) for value in (0, 3)),
    *(changed("config", name, value) for name, value in (("dropout", None), ("dropout", 2.0), ("unknown", 1))),
    *(changed("description", "network", value) for value in ("foo", 3, None, "TemporalTransformer")),
    *(changed("description", "classes", value) for value in ("abc", ["a"], 25 * ["a"], [1], None, [""])),
    *(changed("description", "audio_thresholds", value) for value in ([1.0], "x", {})),
    *(changed("description", name, 5) for name in ("dataset", "note", "decoding", "audio_features")),
    *(changed(None, "num_classes", value) for value in (0, "3", -1, HUGE, None)),
    *(changed(None, name, value) for name in ("visual_dims", "config", "description") for value in ("ab", [5], None)),
    changed(None, "audio_dim", 10**9),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(open_run(han_run(folder / "run")), folder / "han")
    return folder / "han"


@pytest.mark.parametrize("change", UNUSABLE)
def test_a_config_that_cannot_be_is_refused_in_words_and_without_its_memory(exported: Path, tmp_path: Path, change):
    shutil.copytree(exported, tmp_path / "han")
    content = json.loads((exported / "config.json").read_text())
    change(content)
    (tmp_path / "han/config.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        open_trained(str(tmp_path / "han"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix's")
def test_a_named_pipe_in_place_of_the_weights_is_refused_without_waiting(exported: Path, tmp_path: Path):
    shutil.copytree(exported, tmp_path / "han")
    (tmp_path / "han/model.safetensors").unlink()
    os.mkfifo(tmp_path / "han/model.safetensors")
    with pytest.raises(InputError, match="named pipe"):
        open_trained(str(tmp_path / "han"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch, number: int):
    network = open_run(han_run(tmp_path / "run"))

    def fail(folder: Path, *_, **__):
        folder.mkdir()
        (folder / "model.safetensors").touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(network, "save_pretrained", fail)
    with pytest.raises(InputError, match="Choose another folder"):
        export(network, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
