"""ClipCap in front of other language models: small random ones of the library's own classes, saved and loaded as users do."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from helpers.captioner import Captioner
from helpers.checkpoints import load_captioner, save_captioner
from helpers.data.batches import pad_captions
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap

E, D, POSITIONS = 64, 32, 48
LLAMA = {"hidden_size": D, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}  # fmt: skip
OPT = {"hidden_size": D, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
       "max_position_embeddings": POSITIONS, "dropout": 0.1}  # fmt: skip
MODELS = {
    "gpt2": ("GPT2", {"n_embd": D, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}),
    "opt": ("OPT", {**OPT, "word_embed_proj_dim": D}),
    "opt-projected": ("OPT", {**OPT, "word_embed_proj_dim": 24, "do_layer_norm_before": False}),  # as OPT-350m
    "llama": ("Llama", LLAMA),
    "qwen2": ("Qwen2", {**LLAMA, "tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2", {**LLAMA, "tie_word_embeddings": False}),
    "olmo": ("Olmo", LLAMA),  # peft knows no usual places for its adapters: all linear maps
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, gpt2_folder, tmp_path_factory):
    """A language model of each family with the byte pairs of `gpt2_folder`."""
    import transformers

    name, sizes = MODELS[request.param]
    tokens = load_tokens(gpt2_folder)
    special = {"bos_token_id": tokens.bos, "eos_token_id": tokens.eos, "pad_token_id": None}
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokens), **sizes, **special)
    torch.manual_seed(0)
    model = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)
    model.generation_config.repetition_penalty = 5.0  # a habit, as instruction-tuned models bring along
    folder = tmp_path_factory.mktemp(request.param) / "model"
    model.save_pretrained(folder)
    tokens.tokenizer.save_pretrained(folder)
    return folder


def make(folder, **options) -> ClipCap:
    torch.manual_seed(1)
    language_model = load_language_model(folder)
    for _, parameter in language_model.named_parameters():  # random weights hardly look around: make them
        if parameter.dim() > 1 and len(parameter) != len(load_tokens(folder)):
            parameter.data.mul_(6)
    return ClipCap.build(E, language_model, mapping="mlp", prefix_length=3, **options).eval()


@pytest.fixture
def tokens(folder):
    return load_tokens(folder)


@pytest.fixture
def batch(tokens):
    torch.manual_seed(2)
    captions = ["A red dog.", "A blue car near a big house.", "A kite"]
    ids, mask = pad_captions([[*tokens.encode(c), tokens.eos] for c in captions], tokens.pad)
    return {"image": torch.randn(len(captions), E), "tokens": ids, "mask": mask}


def by_hand(model: ClipCap, image: torch.Tensor, prompt: list[int], eos: int, steps: int) -> list[int]:
    """Greedy decoding of one picture (1, E) by the whole forward pass: no cache, no generate()."""
    words: list[int] = []
    while len(words) < steps and eos not in words:
        said = torch.tensor([prompt + words], dtype=torch.long)
        inputs = torch.cat([model.prefix(image), model.gpt.get_input_embeddings()(said)], dim=1)
        words.append(int(model.gpt(inputs_embeds=inputs).logits[0, -1].argmax()))
    return words


def test_width_is_that_of_the_word_embedding(folder):
    model = make(folder)
    assert model.config.width == model.gpt.get_input_embeddings().weight.shape[1] in (D, 24)
    assert model.prefix(torch.randn(2, E)).shape == (2, 3, model.config.width)


def test_loss_equals_one_computed_from_the_model_s_own_logits(folder, batch):
    model = make(folder)
    losses = []
    for image, ids, mask in zip(batch["image"], batch["tokens"], batch["mask"], strict=True):
        ids = ids[mask]
        inputs = torch.cat([model.prefix(image[None]), model.gpt.get_input_embeddings()(ids[None, :-1])], dim=1)
        logits = model.gpt(inputs_embeds=inputs).logits[0, model.config.prefix_length - 1 :]
        losses += F.cross_entropy(logits, ids, reduction="none")
    torch.testing.assert_close(model.loss(**batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_gradient_reaches_the_mapping_and_not_the_frozen_model(folder, batch):
    model = make(folder).train()
    assert not any(module.training for module in model.gpt.modules())
    model.loss(**batch).backward()
    assert all(p.grad is None for p in model.gpt.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.clip_project.parameters())


def test_greedy_with_and_without_a_prompt(folder, tokens):
    model, image = make(folder), torch.randn(2, E)
    for prompt in ([], tokens.encode("A blue")):
        given = torch.tensor(prompt) if prompt else None
        ids = model.generate(image, eos=tokens.eos, prompt=given, max_new_tokens=7, do_sample=False)
        for row in range(2):
            words = by_hand(model, image[row : row + 1], prompt, tokens.eos, 7)
            assert ids[row, : len(words)].tolist() == words


def test_beams_of_a_batch_equal_those_of_each_picture(folder, tokens):
    model, image = make(folder), torch.randn(3, E)
    together = model.generate(image, eos=tokens.eos, max_new_tokens=6, num_beams=3, do_sample=False)
    for row in range(3):
        alone = model.generate(image[row : row + 1], eos=tokens.eos, max_new_tokens=6, num_beams=3, do_sample=False)[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()


def test_all_positions_can_be_used_and_no_more(folder, tokens, batch):
    model = make(folder)
    ids = model.generate(batch["image"], eos=tokens.eos, max_new_tokens=POSITIONS - 3, min_new_tokens=POSITIONS - 3)
    assert ids.shape[1] == POSITIONS - 3
    with pytest.raises(InputError, match=rf"prefix of 3 \+ {POSITIONS - 2} .* {POSITIONS} positions"):
        model.generate(batch["image"], eos=tokens.eos, max_new_tokens=POSITIONS - 2)


@pytest.mark.parametrize(
    "options", [{"tuning": "all"}, {"tuning": "blocks", "frozen_blocks": 1}, {"tuning": "lora", "lora_rank": 2}],
    ids=["all", "blocks", "lora"],
)  # fmt: skip
def test_tuned_models_come_back_from_a_checkpoint(folder, batch, clip_file, tmp_path, options):
    torch.manual_seed(1)
    model = ClipCap.build(E, load_language_model(folder), mapping="mlp", prefix_length=3, **options)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    trains = {name for name, p in model.gpt.named_parameters() if p.requires_grad}
    before = {name: value.clone() for name, value in model.gpt.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        model.train().loss(**batch).backward()
        optimizer.step()
    assert {name for name, value in model.gpt.named_parameters() if not torch.equal(value, before[name])} == trains
    names = {"clip": str(clip_file), "language_model": str(folder)}
    saved = save_captioner(Captioner(load_clip(clip_file), load_tokens(folder), model.eval(), names), tmp_path / "saved")
    again = load_captioner(saved).model
    torch.testing.assert_close(again.loss(**batch), model.loss(**batch), atol=1e-6, rtol=0)
    assert again.config == model.config and not again.training


def test_models_that_the_loss_would_misread_are_refused(folder):
    model = load_language_model(folder)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(InputError, match=r"bends its logits \(final_logit_softcapping=30\.0\)"):
        ClipCap.build(E, model)


def test_a_folder_without_its_tokenizer(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(InputError, match=r"holds no tokenizer_config\.json"):
        load_tokens(tmp_path / "bare")
