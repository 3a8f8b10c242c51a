"""A ViT's patches are the transformers library's: the same weights, read by CLIPVisionModel, give the same numbers."""

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from helpers.data.encoders import ClipEncoder, clip, grid_and_pooled, load_clip

# Theirs -> ours. Queries, keys and values are one matrix in ours.
NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    **{f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"))
       for kind in ("weight", "bias")},
}  # fmt: skip
LAYER = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
         "mlp.fc2": "mlp.c_proj"}  # fmt: skip
SIZES = {"image_resolution": 48, "vision_layers": 3, "vision_width": 128, "vision_patch_size": 16}


def names_for(layers: int) -> dict[str, str | tuple[str, ...]]:
    """Name in CLIPVisionModel -> name in VisionTransformer, for three of theirs the same."""
    names = dict(NAMES)
    for n in range(layers):
        for kind in ("weight", "bias"):
            names |= {f"encoder.layers.{n}.{theirs}.{kind}": f"transformer.resblocks.{n}.{ours}.{kind}"
                      for theirs, ours in LAYER.items()}  # fmt: skip
            names |= {f"encoder.layers.{n}.self_attn.{letter}_proj.{kind}": f"transformer.resblocks.{n}.attn.in_proj_{kind}"
                      for letter in "qkv"}  # fmt: skip
    return names


def random_clip(**sizes) -> nn.Module:
    text = {"context_length": 8, "vocab_size": 50, "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 1}
    return clip.model.CLIP(**{"embed_dim": 32, **SIZES, **text} | sizes).eval()


def random_vision_model() -> CLIPVisionModel:
    config = CLIPVisionConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=2,
                              image_size=48, patch_size=16, hidden_act="quick_gelu")  # fmt: skip
    return CLIPVisionModel(config).eval()


def inner(model: CLIPVisionModel) -> nn.Module:
    return getattr(model, "vision_model", model)  # where the library before version 5 keeps it


@torch.no_grad()
def to_theirs(visual: nn.Module) -> CLIPVisionModel:
    model, ours = random_vision_model(), visual.state_dict()
    state = {}
    for theirs, name in names_for(3).items():
        state[theirs] = ours[name].chunk(3)["qkv".index(theirs.split("_proj")[0][-1])] if "in_proj" in name else ours[name]
    inner(model).load_state_dict(state, strict=False)
    assert state.keys() == {name for name, _ in inner(model).named_parameters()}
    return model


@torch.no_grad()
def to_ours(model: CLIPVisionModel) -> nn.Module:
    net, theirs = random_clip(), inner(model).state_dict()
    state = {"proj": net.visual.proj}
    for name, ours in names_for(3).items():  # in the order q, k, v
        state[ours] = torch.cat([state[ours], theirs[name]]) if ours in state else theirs[name]
    net.visual.load_state_dict(state)
    return net


def shaken(module: nn.Module) -> nn.Module:
    """With no parameter left at the 0 or 1 that it was initialised with: a bias forgotten in between would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 48, 48)


@pytest.mark.parametrize("way", ["ours to theirs", "theirs to ours"])
@torch.no_grad()
def test_patches_are_the_last_hidden_state_of_the_transformers_library(way, pixels):
    if way == "ours to theirs":
        net = shaken(random_clip())
        model = to_theirs(net.visual)
    else:
        model = shaken(random_vision_model())
        net = to_ours(model)
    encoder = ClipEncoder(net, "random")
    ours, theirs = encoder.encode_grid(pixels), model(pixels)
    assert ours["grid"].shape == theirs.last_hidden_state.shape == (3, 10, 128) == (3, *encoder.grid)  # (B, M, C)
    assert (encoder.side, encoder.summary_rows) == (3, 1)
    torch.testing.assert_close(ours["grid"], theirs.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours["pooled"], theirs.pooler_output @ net.visual.proj, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours["pooled"], encoder.encode(pixels), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "width", "patch", "grid", "side"),
    [("ViT-L/14", 1024, 14, (257, 1024), 16), ("ViT-B/16", 768, 16, (197, 768), 14), ("ViT-B/32", 768, 32, (50, 768), 7)],
)
def test_sizes_of_the_published_ones(name, width, patch, grid, side):
    with torch.device("meta"):
        net = random_clip(image_resolution=224, vision_width=width, vision_patch_size=patch)
        parts = grid_and_pooled(net.visual, torch.zeros(2, 3, 224, 224))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ClipEncoder, "take_fingerprint", lambda self: None)  # no weights, no digest
        encoder = ClipEncoder(net, name, "meta")
    assert encoder.grid == grid and parts["grid"].shape == (2, *grid) and parts["pooled"].shape == (2, 32)
    assert (encoder.side, encoder.summary_rows) == (side, 1)


def test_a_batch_of_three_is_three_of_one(pixels):
    encoder = ClipEncoder(shaken(random_clip()), "random")
    together = encoder.encode_grid(pixels)
    for part, value in together.items():
        alone = torch.cat([encoder.encode_grid(one)[part] for one in pixels.split(1)])
        torch.testing.assert_close(value, alone, atol=1e-5, rtol=0)


def test_half_precision_weights_give_single_precision_features(pixels):
    """What OpenAI ships, and clip.load keeps on a GPU: convolutions, projections and attention in fp16, the rest in fp32."""
    net = shaken(random_clip())
    single = ClipEncoder(net, "random").encode_grid(pixels)
    clip.model.convert_weights(net)
    half = ClipEncoder(net, "random").encode_grid(pixels)
    assert net.visual.conv1.weight.dtype == torch.float16
    for part, value in half.items():
        assert value.dtype == torch.float32
        assert (value - single[part]).norm() < 0.01 * single[part].norm()


def test_the_network_runs_once(clip_file, monkeypatch):
    encoder = load_clip(clip_file)
    runs = []
    encoder.model.visual.conv1.register_forward_hook(lambda *_: runs.append(1))
    encoder.encode_grid(torch.zeros(2, 3, 32, 32))
    assert len(runs) == 1


def test_patches_follow_the_picture_row_by_row():
    """Of a ViT without blocks, a patch sees itself alone: the one in row 1, column 2 is row 1 + 1 * 3 + 2 of the grid."""
    encoder = ClipEncoder(random_clip(vision_layers=0), "random")
    spot = torch.zeros(1, 3, 48, 48)
    spot[..., 16:32, 32:] = 2.0
    change = encoder.encode_grid(spot)["grid"] - encoder.encode_grid(torch.zeros_like(spot))["grid"]
    assert change.norm(dim=-1)[0].nonzero().tolist() == [[6]]
    square = change[:, encoder.summary_rows :].unflatten(1, (encoder.side, encoder.side))  # (1, S, S, C)
    assert square.norm(dim=-1)[0].nonzero().tolist() == [[1, 2]]
