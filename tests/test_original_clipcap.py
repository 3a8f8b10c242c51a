"""Published ClipCap checkpoints: files as the original saves them, read by ours, against a model written here on its own.

`Reference` follows the architecture as the paper and SYSTEMS describe it, with nothing of helpers/ in it.
"""

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from helpers.checkpoints import load_captioner, load_clipcap_checkpoint, save_captioner
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.original_clipcap import StopTokens
from tests.conftest import make_clip, make_gpt2

E, D, K, C, LAYERS, HEADS = 64, 64, 4, 3, 2, 8


class Names(nn.Module):
    """Submodules by keyword: enough to give parameters the names that they have in the files."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


def mlp_mapping() -> nn.Module:
    return Names(model=nn.Sequential(nn.Linear(E, K * D // 2), nn.Tanh(), nn.Linear(K * D // 2, K * D)))


def transformer_mapping() -> nn.Module:
    layers = [
        Names(
            norm1=nn.LayerNorm(D),
            attn=Names(to_queries=nn.Linear(D, D, bias=False), to_keys_values=nn.Linear(D, 2 * D, bias=False),
                       project=nn.Linear(D, D)),
            norm2=nn.LayerNorm(D),
            mlp=Names(fc1=nn.Linear(D, 2 * D), fc2=nn.Linear(2 * D, D)),
        )
        for _ in range(LAYERS)
    ]  # fmt: skip
    return Names(linear=nn.Linear(E, C * D), transformer=Names(layers=nn.ModuleList(layers)),
                 prefix_const=nn.Parameter(torch.randn(K, D)))  # fmt: skip


class Reference(nn.Module):
    """One picture at a time, head by head, in plain matrix products."""

    def __init__(self, kind: str, gpt: nn.Module):
        super().__init__()
        self.gpt = gpt
        self.clip_project = {"mlp": mlp_mapping, "transformer": transformer_mapping}[kind]()

    def prefix(self, vector: torch.Tensor) -> torch.Tensor:
        p = self.clip_project
        if hasattr(p, "model"):
            return p.model(vector).reshape(K, D)
        x = torch.cat([p.linear(vector).reshape(C, D), p.prefix_const])
        for layer in p.transformer.layers:
            y = layer.norm1(x)
            queries, both = layer.attn.to_queries(y), layer.attn.to_keys_values(y)
            keys, values = both[:, :D], both[:, D:]
            heads = []
            for h in range(HEADS):
                part = slice(h * D // HEADS, (h + 1) * D // HEADS)
                scores = queries[:, part] @ keys[:, part].T * (D // HEADS) ** -0.5
                heads.append(torch.exp(scores) / torch.exp(scores).sum(dim=1, keepdim=True) @ values[:, part])
            x = x + layer.attn.project(torch.cat(heads, dim=1))
            x = x + layer.mlp.fc2(layer.mlp.fc1(layer.norm2(x)).clamp(min=0))
        return x[C:]

    @torch.no_grad()
    def logits(self, vector: torch.Tensor, words: list[int]) -> torch.Tensor:
        """(E,) and the words so far to the logits of all positions, (K + words, V)."""
        said = self.gpt.transformer.wte(torch.tensor(words, dtype=torch.long))
        return self.gpt(inputs_embeds=torch.cat([self.prefix(vector), said])[None]).logits[0]

    def greedy(self, vector: torch.Tensor, tokenizer, steps: int) -> str:
        stop, words = tokenizer.encode(".")[0], []
        while len(words) < steps and stop not in words:
            words.append(int(self.logits(vector, words)[-1].argmax()))
        return tokenizer.decode(words).strip()


def save_as_the_original(model: Reference, path, *, gpt: bool = True):
    """A bare state dict, with the causal masks that older versions of the transformers library kept among the weights."""
    state = {name: value for name, value in model.state_dict().items() if gpt or name.startswith("clip_project.")}
    for n in range(2 if gpt else 0):
        state[f"gpt.transformer.h.{n}.attn.bias"] = torch.ones(64, 64, dtype=torch.uint8).tril()[None, None]
        state[f"gpt.transformer.h.{n}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state, path)
    return path


@pytest.fixture(params=["mlp", "transformer"])
def reference(request, gpt2_folder) -> Reference:
    gpt = GPT2LMHeadModel.from_pretrained(gpt2_folder).eval()
    torch.manual_seed(3)
    model = Reference(request.param, gpt).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "wte" not in name:
                parameter.mul_(3)  # random weights of the usual size say the same of every picture
    return model


def load(path, gpt2_folder, clip_file, **options):
    return load_clipcap_checkpoint(path, language_model=str(gpt2_folder), clip=str(clip_file), **options)


@pytest.mark.parametrize("whole", [True, False], ids=["with GPT-2", "mapping alone"])
def test_same_logits_and_same_caption(reference, whole, gpt2_folder, clip_file, tmp_path):
    path = save_as_the_original(reference, tmp_path / "coco-009.pt", gpt=whole)
    if not whole:  # GPT-2 is then the one on disk
        reference.gpt = GPT2LMHeadModel.from_pretrained(gpt2_folder).eval()
    captioner = load(path, gpt2_folder, clip_file)
    vectors, words = torch.randn(4, E), [5, 17, 40, 8]
    model = captioner.model
    assert not model.training
    for vector in vectors:
        inputs = torch.cat([model.prefix(vector[None]), model.gpt.transformer.wte(torch.tensor([words]))], dim=1)
        torch.testing.assert_close(model.gpt(inputs_embeds=inputs).logits[0], reference.logits(vector, words),
                                   atol=1e-5, rtol=1e-5)  # fmt: skip
    captions = captioner.caption_features(vectors, max_new_tokens=12)
    theirs = [reference.greedy(vector, captioner.tokens.tokenizer, 12) for vector in vectors]
    assert captions == [" ".join(caption.split()) for caption in theirs]  # ours keeps a caption on one line
    assert len(set(captions)) > 1


def test_saved_as_ours_it_stays_the_same(reference, gpt2_folder, clip_file, tmp_path):
    captioner = load(save_as_the_original(reference, tmp_path / "coco.pt"), gpt2_folder, clip_file)
    again = load_captioner(save_captioner(captioner, tmp_path / "ours"))
    vectors = torch.randn(4, E)
    assert again.caption_features(vectors, max_new_tokens=9) == captioner.caption_features(vectors, max_new_tokens=9)
    assert again.model.config == captioner.model.config and again.config["original"] == "coco.pt"


def test_normalised_on_request_alone(reference, gpt2_folder, clip_file, tmp_path):
    path, vector = save_as_the_original(reference, tmp_path / "coco.pt"), 7 * torch.randn(E)
    plain, normalised = (load(path, gpt2_folder, clip_file, normalize=n).model for n in (False, True))
    torch.testing.assert_close(plain.prefix(vector[None])[0], reference.prefix(vector), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(normalised.prefix(vector[None])[0], reference.prefix(vector / vector.norm()))


def test_captions_end_at_the_first_full_stop(gpt2_folder):
    tokens = StopTokens(load_tokens(gpt2_folder).tokenizer)
    ids = tokens.encode("A red dog in the park. A blue car.")
    assert tokens.decode(ids) == "A red dog in the park."
    assert tokens.decode(tokens.encode("A red dog")) == "A red dog" and tokens.decode([]) == ""


def harm(name: str, state: dict) -> object:
    match name:
        case "stranger":
            return state | {"optimizer": torch.zeros(1)}
        case "long prefixes":  # another network that circulates: one linear map
            return {"clip_project.weight": torch.zeros(K * D, E), "clip_project.bias": torch.zeros(K * D)}
        case "only GPT-2":
            return {key: value for key, value in state.items() if key.startswith("gpt.")}
        case "list":
            return [1, 2]
        case "lacks":
            return {key: value for key, value in state.items() if key != "gpt.transformer.ln_f.bias"}
    # half a mapping, of either kind
    return {key: value for key, value in state.items() if not key.endswith((".model.2.bias", "0.mlp.fc2.bias"))}


@pytest.mark.parametrize(
    ("name", "message"),
    [("stranger", r"holds optimizer: ClipCap's checkpoints have"), ("long prefixes", r"has clip_project\.bias, .* not known"),
     ("only GPT-2", r"has no clip_project\.\*: a layout"), ("list", "holds list, no tensors by name"),
     ("lacks", r"GPT-2 does not fit .*: it lacks transformer\.ln_f\.bias"), ("half a mapping", "is not whole: it lacks")],
)  # fmt: skip
def test_other_layouts_are_refused(reference, gpt2_folder, clip_file, tmp_path, name, message):
    path = save_as_the_original(reference, tmp_path / "bad.pt")
    torch.save(harm(name, torch.load(path, weights_only=True)), path)
    with pytest.raises(InputError, match=message):
        load(path, gpt2_folder, clip_file)


def test_files_that_are_none(gpt2_folder, clip_file, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none.pt", gpt2_folder, clip_file)
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    with pytest.raises(InputError, match="no state dict, or damaged"):
        load(tmp_path / "text.pt", gpt2_folder, clip_file)
    torch.save({"gpt.x": Reference}, tmp_path / "code.pt")  # pickled code is not run
    with pytest.raises(InputError, match="no state dict, or damaged"):
        load(tmp_path / "code.pt", gpt2_folder, clip_file)


def test_backbones_that_do_not_fit(reference, gpt2_folder, clip_file, tmp_path):
    whole = save_as_the_original(reference, tmp_path / "whole.pt")
    mapping = save_as_the_original(reference, tmp_path / "mapping.pt", gpt=False)
    wide = make_gpt2(tmp_path / "wide", width=96)
    with pytest.raises(InputError, match=r"takes image vectors of 64 numbers, .*other\.pt gives 96"):
        load(whole, gpt2_folder, make_clip(tmp_path / "other.pt", embed_dim=96))
    with pytest.raises(InputError, match=r"does not fit the config of .*wide: .* is \(.*64.*\), not \(.*96.*\)"):
        load(whole, wide, clip_file)
    with pytest.raises(InputError, match=r"language model of width 64, this one has 96|language model of width 96"):
        load(mapping, wide, clip_file)
