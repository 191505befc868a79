"""The feature networks' optional backends and checkpoints."""

import math
import os
import sys
import types
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers", reason="pip install -r requirements-video.txt")

from transformers import ClapConfig, ClapModel, CLIPConfig, CLIPModel

from utils.errors import InputError
from video.backbones.clip_clap import CLAP, CLIP, LaionCLAP, OpenCLIP, from_laion_names, load_laion_state
from video.backbones.convolutional import torchvision_features
from video.backbones.drawn_weights import (
    draw,
    draw_weights_of,
    small_clap,
    small_clip,
    small_clip_network,
    small_image_network,
    small_vggish,
)
from video.extraction import download
from video.extraction.feature_networks import (
    NETWORKS,
    WEIGHTS,
    download_of,
    draw_network,
    load_network,
    read_state,
    weights_of,
)


def test_drawn_weights_are_the_same_on_every_machine():
    expected = torch.tensor([[-0.4228, 0.8664, 0.6823], [-0.4445, -0.4952, 1.1948]])
    torch.testing.assert_close(draw("layer.weight", (2, 3)), expected, atol=1e-4, rtol=0)
    assert (draw("norm.running_var", (2,)) >= 1).all()
    assert not torch.equal(draw("layer.weight", (2, 3)), draw("layer.weight", (2, 3), seed=1))


def test_drawn_weights_follow_the_published_formula():
    def normal(name: str, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()) + 2))

    shapes = {"a.weight": (4, 3, 2), "a.bias": (5,), "n.weight": (5,), "n.running_mean": (5,), "n.running_var": (50,)}
    x = {name: normal(name, *shape) for name, shape in shapes.items()} | {"scale": normal("scale")}
    drawn = {name: draw(name, shape, seed=2) for name, shape in (shapes | {"scale": ()}).items()}
    expected = {
        "a.weight": x["a.weight"] / math.sqrt(3 * 2),
        "a.bias": 0.1 * x["a.bias"],
        "n.weight": 1 + 0.1 * x["n.weight"],
        "n.running_mean": 0.1 * x["n.running_mean"],
        "n.running_var": 1 + 0.1 * x["n.running_var"].abs(),
        "scale": 0.1 * x["scale"],
    }
    assert drawn.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(drawn[name], values, rtol=1e-6, atol=0)


def test_parameters_and_running_statistics_of_a_network_are_drawn_and_other_buffers_stay():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    network.register_buffer("mask", torch.ones(2))
    draw_weights_of(network, seed=1)
    state = network.state_dict()
    drawn = {name: draw(name, x.shape, seed=1) for name, x in state.items() if x.is_floating_point()}
    assert state["mask"].tolist() == [1, 1] and state["1.num_batches_tracked"] == 0
    assert all(torch.equal(state[name], drawn[name]) for name in drawn if name != "mask")


def test_networks_of_pictures_end_before_their_classifiers():
    with torch.device("meta"):
        pictures, clips = torch.empty(2, 3, 224, 224), torch.empty(2, 3, 8, 112, 112)
        assert torchvision_features("resnet152").eval()(pictures).shape == (2, 2048)
        assert torchvision_features("r2plus1d_18").eval()(clips).shape == (2, 512)


def test_clip_without_weights_is_vit_l_14():
    with torch.device("meta"):
        network = CLIP()
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 768)
    assert sum(p.numel() for p in network.parameters()) == 427_616_513  # as OpenAI's


@torch.inference_mode()
def test_clips_features_are_the_projections_of_transformers_at_unit_length():
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"bos_token_id": 98, "eos_token_id": 99, "vocab_size": 100}
    theirs = CLIPModel(CLIPConfig(projection_dim=8, vision_config=tower | {"patch_size": 112}, text_config=text)).eval()
    draw_weights_of(theirs)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    token_ids, mask = torch.tensor([[98, 5, 99], [98, 99, 99]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    output = theirs(input_ids=token_ids, attention_mask=mask, pixel_values=images)
    ours = CLIP(theirs)
    torch.testing.assert_close(ours(images), output.image_embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.text(token_ids, mask), output.text_embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours(images).norm(dim=-1), torch.ones(2))


SMALL_INPUTS = {
    "vggish": (small_vggish, (96, 64), 128),
    "res152": (small_image_network, (3, 224, 224), 256),
    "r2plus1d_18": (small_clip_network, (3, 8, 112, 112), 256),
    "clip": (small_clip, (3, 224, 224), 256),
    "clap": (small_clap, (1001, 64), 256),
}


@pytest.mark.parametrize(("make", "shape", "dim"), SMALL_INPUTS.values(), ids=SMALL_INPUTS)
@torch.inference_mode()
def test_small_networks_take_the_inputs_of_those_they_stand_for_and_tell_them_apart(make, shape, dim: int):
    network = make().eval()
    draw_weights_of(network)
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    inputs[1] = inputs[1] * 0.1 + 1
    features = network(inputs)
    assert features.shape == (3, dim)
    similar = F.cosine_similarity(features[0], features[1], dim=0)
    assert similar < 0.99 and torch.allclose(network(inputs[:1]), features[:1], atol=1e-5)


def test_laion_names_become_those_of_transformers():
    qkv = torch.arange(6.0).reshape(6, 1)
    block = "module.audio_branch.layers.0.blocks.1"
    state = {
        f"{block}.attn.qkv.weight": qkv,
        f"{block}.norm1.bias": torch.zeros(2),
        f"{block}.mlp.fc2.weight": torch.zeros(2, 8),
        f"{block}.attn_mask": torch.zeros(4),
        "module.audio_branch.bn0.running_mean": torch.zeros(64),
        "module.text_projection.2.bias": torch.zeros(512),
        "module.audio_transform.sequential.0.weight": torch.zeros(512, 512),
        "module.audio_branch.tscam_conv.bias": torch.zeros(527),
    }
    converted = from_laion_names(state)
    block = "audio_model.audio_encoder.layers.0.blocks.1"
    assert converted.keys() == {
        *(f"{block}.attention.self.{part}.weight" for part in ("query", "key", "value")),
        f"{block}.layernorm_before.bias",
        f"{block}.output.dense.weight",
        "audio_model.audio_encoder.batch_norm.running_mean",
        "text_projection.linear2.bias",
    }
    torch.testing.assert_close(converted[f"{block}.attention.self.key.weight"], qkv[2:4])


@pytest.mark.parametrize(("name", "first", "places"), [("vggish", 1, (1, 8)), ("res152", 2, (2, 2))])
@torch.inference_mode()
def test_small_networks_of_sounds_and_pictures_are_strided_convolutions_pooled_and_normalised(
    name: str, first: int, places: tuple[int, int]
):
    make, shape, _ = SMALL_INPUTS[name]
    network = make().eval()
    draw_weights_of(network)
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    x = F.avg_pool2d(inputs if inputs.ndim == 4 else inputs[:, None], first)  # pictures at half their size
    for weight in network.parameters():
        x = F.conv2d(x, weight, stride=2, padding=1).clamp(min=0)
    rows, columns = (side // count for side, count in zip(x.shape[2:], places, strict=True))
    pooled = F.avg_pool2d(x, (rows, columns)).flatten(1)
    expected = (pooled - pooled.mean(1, keepdim=True)) / (pooled.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-5)


def test_laion_weights_that_are_missing_unknown_or_of_another_shape_are_refused():
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = tower | {"patch_embeds_hidden_size": 8, "depths": [1], "num_attention_heads": [1]}
    network = ClapModel(ClapConfig(text_config=tower | {"vocab_size": 9}, audio_config=audio))
    state = {name: torch.zeros_like(x) for name, x in network.state_dict().items()}
    load_laion_state(network, state)
    assert not any(p.any() for p in network.parameters())
    name = "text_projection.linear1.bias"
    others = {
        f"Missing key.*{name}": {key: x for key, x in state.items() if key != name},
        r"Unexpected key.*text_projection\.linear9\.bias": state | {"text_projection.linear9.bias": torch.zeros(2)},
        f"size mismatch for {name}": state | {name: torch.zeros(2)},
    }
    for message, other in others.items():
        with pytest.raises(RuntimeError, match=message):
            load_laion_state(network, other)


def small_open_clip():
    open_clip = pytest.importorskip("open_clip", reason="open_clip is an extra: pip install open_clip_torch")
    vision_cfg = {"image_size": 224, "layers": 2, "width": 128, "head_width": 64, "patch_size": 32}
    text_cfg = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
    return open_clip.CLIP(embed_dim=64, vision_cfg=vision_cfg, text_cfg=text_cfg, quick_gelu=True)


def small_clip_pair():
    """transformers' CLIP and open_clip's with the same small sizes and the same drawn weights."""
    tower = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"bos_token_id": 49406, "eos_token_id": 49407}
    ours = CLIPModel(CLIPConfig(projection_dim=64, vision_config=tower | {"patch_size": 32}, text_config=text))
    draw_weights_of(ours)
    theirs = small_open_clip()
    theirs.load_state_dict(under_open_clips_names(ours.state_dict()), strict=True)
    return CLIP(ours).eval(), OpenCLIP(theirs).eval()


def under_open_clips_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' weights of CLIP under open_clip's names."""
    named = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T,
        "visual.proj": state["visual_projection.weight"].T,
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
    }
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for prefix, to in (("vision_model", "visual."), ("text_model", "")):
        norms = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "final_layer_norm": "ln_final"}
        for kind in ("weight", "bias"):
            for name, renamed in norms.items():
                if f"{prefix}.{name}.{kind}" in state:
                    named[f"{to}{renamed}.{kind}"] = state[f"{prefix}.{name}.{kind}"]
            for layer in range(2):
                old, new = f"{prefix}.encoder.layers.{layer}", f"{to}transformer.resblocks.{layer}"
                for name, renamed in (*parts.items(), ("self_attn.out_proj", "attn.out_proj")):
                    named[f"{new}.{renamed}.{kind}"] = state[f"{old}.{name}.{kind}"]
                projections = [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                named[f"{new}.attn.in_proj_{kind}"] = torch.cat(projections)
    return named


@torch.inference_mode()
def test_open_clip_gives_the_same_features_with_the_same_weights():
    ours, theirs = small_clip_pair()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-5, rtol=0)
    token_ids = torch.tensor([[49406, 320, 1125, 49407, 49407], [49406, 320, 4558, 533, 49407]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    torch.testing.assert_close(theirs.text(token_ids, mask), ours.text(token_ids, mask), atol=1e-5, rtol=0)


class Tree(torch.nn.Module):
    """Nothing but tensors, under the names of a state dict."""

    def __init__(self, state: dict[str, torch.Tensor]):
        super().__init__()
        for name in dict.fromkeys(name.split(".")[0] for name in state):
            below = {key.removeprefix(f"{name}."): x for key, x in state.items() if key.startswith(f"{name}.")}
            if below:
                self.add_module(name, Tree(below))
            else:
                self.register_buffer(name, state[name])


@pytest.fixture
def openai_archive(tmp_path: Path, monkeypatch) -> dict[str, torch.Tensor]:
    """A small network's weights in a file as OpenAI's is: half precision, TorchScript, sizes beside them."""
    _, theirs = small_clip_pair()
    import open_clip

    state = {name: x.half() for name, x in theirs.network.state_dict().items()}
    sizes = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.jit.script(Tree(state | sizes)).save(tmp_path / WEIGHTS["open_clip"])
    monkeypatch.setattr(open_clip, "create_model", lambda name: small_open_clip())
    monkeypatch.setattr(download, "hash_of_file", lambda path: download_of("open_clip").sha256)
    return state


def test_open_clip_reads_openais_archive(tmp_path: Path, openai_archive):
    loaded = load_network("clip", tmp_path, "open_clip").network.state_dict()
    assert loaded.keys() == openai_archive.keys()
    assert all(x.dtype == torch.float32 for x in loaded.values())
    assert all(torch.equal(loaded[name], openai_archive[name].float()) for name in loaded)


def test_open_clip_reads_a_plain_state_dict_under_the_same_name(tmp_path: Path, openai_archive):
    torch.save(openai_archive, tmp_path / WEIGHTS["open_clip"])
    loaded = load_network("clip", tmp_path, "open_clip").network.state_dict()
    assert all(torch.equal(loaded[name], openai_archive[name].float()) for name in loaded)


def test_open_clip_refuses_an_archive_of_another_hash_and_other_weights(tmp_path: Path, openai_archive, monkeypatch):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "open_clip_pytorch_model.bin")
    monkeypatch.setattr(download, "hash_of_file", lambda path: "0" * 64)
    with pytest.raises(InputError, match="SHA-256"):
        load_network("clip", tmp_path, "open_clip")
    (tmp_path / WEIGHTS["open_clip"]).unlink()
    with pytest.raises(InputError, match=r"no clip weights that open_clip can read.*openaipublic"):
        load_network("clip", tmp_path, "open_clip")


def test_open_clip_without_weights_says_where_they_are(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "open_clip", types.SimpleNamespace())
    with pytest.raises(InputError, match=r"ViT-L-14\.pt.*openaipublic.*download\.sh open_clip"):
        load_network("clip", tmp_path, "open_clip")


@pytest.mark.parametrize("fails", ["construction", "weights"])
def test_what_laion_clap_lacks_is_said_in_words(tmp_path: Path, monkeypatch, fails: str):
    class Module:
        def __init__(self, **_):
            if fails == "construction":
                raise OSError("We couldn't connect to huggingface.co")
            self.model = torch.nn.Linear(1, 1)

    monkeypatch.setitem(sys.modules, "laion_clap", types.SimpleNamespace(CLAP_Module=Module))
    torch.save({"module.weight": torch.ones(1, 1)}, tmp_path / WEIGHTS["clap"])
    expected = "couldn't connect" if fails == "construction" else 'Missing key.*"bias"'
    with pytest.raises(InputError, match=rf"{expected}.*lukewys/laion_clap.*roberta-base"):
        load_network("clap", tmp_path, "laion_clap")


def test_laion_clap_gets_its_weights_without_running_the_code_of_a_pickle(tmp_path: Path, monkeypatch):
    class Module:
        def __init__(self, **_):
            self.model = torch.nn.Linear(1, 1)

    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "planted"),)

    monkeypatch.setitem(sys.modules, "laion_clap", types.SimpleNamespace(CLAP_Module=Module))
    torch.save({"weight": torch.ones(1, 1), "bias": Planted()}, tmp_path / WEIGHTS["clap"])
    with pytest.raises(InputError, match="no clap weights that laion_clap can read"):
        load_network("clap", tmp_path, "laion_clap")
    assert not (tmp_path / "planted").exists()
    state = {"epoch": 1, "state_dict": {"module.weight": torch.full((1, 1), 3.0), "module.bias": torch.zeros(1)}}
    torch.save(state, tmp_path / WEIGHTS["clap"])
    assert load_network("clap", tmp_path, "laion_clap").network.weight.item() == 3


@pytest.fixture
def laion_clap_network(monkeypatch) -> torch.nn.Module:
    """laion-clap's own network. Its import fetches tokenizers, and it fetches RoBERTa; neither is needed here."""
    pytest.importorskip("torchlibrosa", reason="laion-clap is an extra: pip install laion-clap 'numpy<2'")
    import transformers

    def roberta(*_, **__):
        sizes = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
        return transformers.RobertaModel(transformers.RobertaConfig(pad_token_id=1, **sizes))

    for tokenizer in (transformers.BertTokenizer, transformers.RobertaTokenizer, transformers.BartTokenizer):
        monkeypatch.setattr(tokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(transformers.RobertaModel, "from_pretrained", roberta)
    laion_clap = pytest.importorskip("laion_clap", reason="laion-clap is an extra", exc_type=ImportError)
    return laion_clap.CLAP_Module(enable_fusion=True, amodel="HTSAT-tiny", device="cpu").model


@torch.inference_mode()
def test_laion_clap_gives_the_same_features_with_the_same_weights(laion_clap_network):
    draw_weights_of(laion_clap_network)
    ours, theirs = CLAP().eval(), LaionCLAP(laion_clap_network).eval()
    load_laion_state(ours.network, laion_clap_network.state_dict())
    mel = 20 * torch.randn(2, 1001, 64, generator=torch.Generator().manual_seed(0)) - 40
    torch.testing.assert_close(theirs(mel), ours(mel), atol=1e-5, rtol=0)
    token_ids = torch.tensor([[0, 713, 16, 5, 2], [0, 713, 2, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    torch.testing.assert_close(theirs.text(token_ids, mask), ours.text(token_ids, mask), atol=1e-5, rtol=0)


def test_published_weights_are_read_without_the_classifier_of_the_resnet(tmp_path: Path, monkeypatch):
    state = draw_network("res152", "real", 3).state_dict()
    file = tmp_path / WEIGHTS["res152"]
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, file)
    with pytest.raises(InputError, match="SHA-256"):
        load_network("res152", tmp_path)
    monkeypatch.setattr(download, "hash_of_file", lambda path: download_of("res152").sha256 + "0" * 56)
    loaded = load_network("res152", tmp_path).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_weights_of_another_network_are_an_error(tmp_path: Path, monkeypatch):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / WEIGHTS["vggish"])
    monkeypatch.setattr(download, "hash_of_file", lambda path: download_of("vggish").sha256)
    with pytest.raises(InputError, match=r"no vggish weights that transformers can read.*harritaylor"):
        load_network("vggish", tmp_path)
    torch.save({"state_dict": {"module.audio_branch.bn0.weight": torch.zeros(64)}}, tmp_path / WEIGHTS["clap"])
    with pytest.raises(InputError, match="Missing key"):
        load_network("clap", tmp_path)


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path):
    path = tmp_path / WEIGHTS["clap"]
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"630k-fusion-best\.pt: found no clap weights that transformers can read"):
        load_network("clap", tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"no pickle")
    with pytest.raises(InputError, match=r"630k-fusion-best\.pt: found no clap weights that transformers can read"):
        load_network("clap", tmp_path)


def test_counters_of_numpy_beside_a_state_dict_do_not_hinder(tmp_path: Path):
    state = {"weight": torch.ones(2)}
    torch.save({"epoch": 5, "best": np.float64(0.5), "state_dict": state}, tmp_path / "checkpoint.pt")
    assert torch.equal(read_state(tmp_path / "checkpoint.pt")["weight"], state["weight"])


def test_a_folder_of_transformers_is_loaded_as_clip(tmp_path: Path):
    ours, _ = draw_network("clip", "small", 0), None
    ours.network.save_pretrained(tmp_path / WEIGHTS["clip"])
    loaded = load_network("clip", tmp_path)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), ours(images))


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_absent_weights_say_what_is_needed(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        weights_of(name, tmp_path)
    assert WEIGHTS[name] in str(error.value)
    assert download_of(name).address in str(error.value)


def test_every_network_has_an_address_to_get_its_weights_from():
    assert WEIGHTS.keys() == NETWORKS.keys() | {"open_clip", "clap tokenizer"}
    for name, file in WEIGHTS.items():
        assert file in download_of(name).path.parts and download_of(name).address.startswith("https://")
    assert all(download_of(name).sha256 for name in ("vggish", "res152", "r2plus1d_18", "open_clip"))


def test_weights_in_the_named_folder_come_before_those_of_torch_s_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    own, in_hub = (folder / WEIGHTS["clap"] for folder in (tmp_path / "own", tmp_path / "torch/hub/checkpoints"))
    for path in (in_hub, own):
        path.parent.mkdir(parents=True)
        path.touch()
        assert weights_of("clap", tmp_path / "own") == path
