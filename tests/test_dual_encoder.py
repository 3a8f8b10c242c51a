"""The contrastive losses against loops in float64; captions of one photo; and that two processes train as one does."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.environment import ROOT
from helpers.errors import InputError
from helpers.models.dual_encoder import (
    ClipDualEncoder,
    Contrastive,
    DualEncoder,
    DualEncoderConfig,
    ProjectionHead,
    info_nce,
    soft_target_loss,
)

PHOTOS = torch.tensor([0, 1, 0, 2, 3, 0, 2, 4])  # some photos bring several captions


class Pixels(nn.Module):
    """A tower as small as can be."""

    width = 6

    def __init__(self):
        super().__init__()
        self.see = nn.Linear(3 * 4 * 4, self.width)

    def forward(self, pixels):
        return self.see(pixels.flatten(1)).tanh()


class Words(nn.Module):
    width = 5

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, self.width)

    def forward(self, tokens, mask):
        return (self.table(tokens) * mask[..., None]).sum(dim=1)


def build(**options) -> DualEncoder:
    torch.manual_seed(1)
    return DualEncoder.build(Pixels(), Words(), **{"dim": 7, "dropout": 0.0} | options)


def make_batch():
    """Pixels, tokens, mask, photos of 8 pairs; equal photos have equal pixels."""
    torch.manual_seed(2)
    pixels = torch.randn(5, 3, 4, 4)[PHOTOS]
    mask = torch.arange(6) < torch.randint(2, 7, (8, 1))
    return pixels, torch.randint(20, (8, 6)), mask, PHOTOS


@pytest.fixture
def batch():
    return make_batch()


@pytest.fixture
def vectors():
    torch.manual_seed(3)
    return torch.randn(8, 7, dtype=torch.float64), 2 * torch.randn(8, 7, dtype=torch.float64)


def log_softmax(row, j):
    """By hand, of a list of numbers."""
    return row[j] - torch.stack([value.exp() for value in row]).sum().log()


def info_nce_by_loops(image, text, scale, positives):
    image = [v / sum(x * x for x in v).sqrt() for v in image]
    text = [v / sum(x * x for x in v).sqrt() for v in text]
    total = 0
    for rows, others, matches in ((image, text, positives), (text, image, positives.T)):
        for i, row in enumerate(rows):
            logits = [scale * sum(a * b for a, b in zip(row, other, strict=True)) for other in others]
            own = [j for j in range(len(others)) if matches[i, j]]
            total -= sum(log_softmax(logits, j) for j in own) / len(own)
    return total / (2 * len(image))


def test_info_nce_equals_loops(vectors):
    image, text = vectors
    own = torch.eye(8, dtype=torch.bool)
    torch.testing.assert_close(info_nce(image, text, 5.0), info_nce_by_loops(image, text, 5.0, own), atol=1e-6, rtol=0)
    several = PHOTOS[:, None] == PHOTOS
    expected = info_nce_by_loops(image, text, 5.0, several)
    torch.testing.assert_close(info_nce(image, text, 5.0, several), expected, atol=1e-6, rtol=0)
    assert (expected - info_nce(image, text, 5.0)).abs() > 0.01, "several positives are another loss"
    uneven = several.clone()
    uneven[2, 0] = False  # text 0 describes picture 2 no more, though text 2 describes picture 0
    expected = info_nce_by_loops(image, text, 5.0, uneven)
    torch.testing.assert_close(info_nce(image, text, 5.0, uneven), expected, atol=1e-6, rtol=0)


def test_one_positive_each_is_cross_entropy_along_the_diagonal(vectors):
    """The form that helpers.pretrain was written with: the same gradients to the last bit."""

    def along_the_diagonal(image, text):
        logits = 9.0 * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        return (F.cross_entropy(logits, torch.arange(8)) + F.cross_entropy(logits.T, torch.arange(8))) / 2

    results = []
    for loss in (along_the_diagonal, lambda *rows: info_nce(*rows, 9.0), lambda *rows: info_nce(*rows, 9.0, torch.eye(8) > 0)):
        image, text = (rows.float().requires_grad_() for rows in vectors)
        value = loss(image, text)
        value.backward()
        results.append((value.detach(), image.grad, text.grad))
    for value, *gradients in results[1:]:
        torch.testing.assert_close(value, results[0][0])
        assert all(map(torch.equal, gradients, results[0][1:]))


def test_a_caption_that_matches_nothing_adds_nothing(vectors):
    image, text = vectors
    positives = torch.eye(8, dtype=torch.bool)
    positives[5, 5] = False
    logits = 5.0 * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    pairs = logits.log_softmax(dim=1).diag() + logits.log_softmax(dim=0).diag()
    torch.testing.assert_close(info_nce(image, text, 5.0, positives), -(pairs.sum() - pairs[5]) / 16)


def test_positives_of_another_shape_are_refused(vectors):
    with pytest.raises(InputError, match=r"\(8, 8\), and are \(8,\)"):
        info_nce(*vectors, 5.0, torch.ones(8, dtype=torch.bool))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
def test_soft_targets_equal_loops(vectors, temperature):
    image, text = vectors
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    N = range(8)
    logits = [[dot(text[i], image[j]) / temperature for j in N] for i in N]
    alike = [[(dot(image[i], image[j]) + dot(text[i], text[j])) / 2 * temperature for j in N] for i in N]
    targets = [[log_softmax(alike[i], j).exp() for j in N] for i in N]
    rows = [-sum(targets[i][j] * log_softmax(logits[i], j) for j in N) for i in N]
    columns = [-sum(targets[i][j] * log_softmax([logits[k][j] for k in N], i) for i in N) for j in N]
    expected = (sum(rows) + sum(columns)) / 2 / 8
    torch.testing.assert_close(soft_target_loss(image, text, temperature), expected, atol=1e-6, rtol=0)


def test_gradients_flow_through_soft_targets_as_published(vectors):
    assert torch.autograd.gradcheck(lambda image, text: soft_target_loss(image, text, 0.5),
                                    [rows[:3].requires_grad_() for rows in vectors])


def test_the_head_is_the_published_one():
    torch.manual_seed(4)
    head, x = ProjectionHead(9, dim=5, dropout=0.5), torch.randn(3, 9)
    _, second, _ = head.refine
    first = x @ head.project.weight.T + head.project.bias
    out = F.gelu(first) @ second.weight.T + second.bias + first
    expected = (out - out.mean(dim=1, keepdim=True)) / (out.var(dim=1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head.eval()(x), expected)
    assert not torch.equal(head.train()(x), head(x)), "dropout"


class Given(Contrastive):
    """Its vectors are what it is given."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def image_vectors(self, pixels):
        return pixels

    def text_vectors(self, tokens, mask):
        return tokens


def test_captions_of_the_same_photo_are_pulled_not_pushed():
    """All cosines are 0 here, and the picture's gradient along a caption's axis is the loss's by their cosine."""
    image, text = F.one_hot(torch.full((8,), 8)).float(), torch.eye(8, 9)
    pulled = {}
    for name, photos in (("photos", PHOTOS), ("pairs alone", torch.arange(8))):
        rows = image.clone().requires_grad_()
        Given().loss(rows, text, None, photos).backward()
        pulled[name] = -rows.grad[:, :8]
    same, own = PHOTOS[:, None] == PHOTOS, torch.eye(8, dtype=torch.bool)
    assert torch.equal(pulled["photos"] > 0, same) and torch.equal(pulled["photos"] < 0, ~same)
    assert (pulled["pairs alone"][same & ~own] < 0).all(), "what would happen if they counted as strangers"


def test_where_all_captions_of_a_photo_are_found_equally_nothing_moves():
    axes = torch.eye(5)[PHOTOS].requires_grad_()
    model = Given()
    model.log_scale.data.fill_(4.6)
    model.loss(axes, torch.eye(5)[PHOTOS], None, PHOTOS).backward()
    torch.testing.assert_close(axes.grad, torch.zeros_like(axes), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", ["info-nce", "soft-targets"])
def test_gradients_reach_every_parameter(batch, loss):
    model = build(loss=loss)
    model.loss(*batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert ("log_scale" in dict(model.named_parameters())) == (loss == "info-nce")


@pytest.mark.parametrize("loss", ["info-nce", "soft-targets"])
def test_the_loss_is_that_of_the_vectors(batch, loss):
    model = build(loss=loss)
    image, text = model.image_vectors(batch[0]), model.text_vectors(*batch[1:3])
    assert (text.norm(dim=1) - 1).abs().min() > 0.1
    expected = {"info-nce": info_nce(image, text, 1 / 0.07, PHOTOS[:, None] == PHOTOS),
                "soft-targets": soft_target_loss(image, text, 1.0)}  # fmt: skip
    torch.testing.assert_close(model.loss(*batch), expected[loss])


def test_the_loss_is_computed_in_fp32_under_autocast(batch):
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.image_vectors(batch[0]).float(), model.text_vectors(*batch[1:3]).float()
        loss = model.loss(*batch)
    torch.testing.assert_close(loss, info_nce(*vectors, 1 / 0.07, PHOTOS[:, None] == PHOTOS), atol=1e-6, rtol=0)


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch(batch):
    model = build(dropout=0.3).eval()
    pixels, tokens, mask, _ = batch
    for together, alone in (
        (model.embed_images(pixels), [model.embed_images(pixels[n : n + 3]) for n in range(0, 8, 3)]),
        (model.embed_texts(tokens, mask), [model.embed_texts(tokens[n : n + 1], mask[n : n + 1]) for n in range(8)]),
    ):
        torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(8))


def test_the_scale_stops_at_100_and_comes_back():
    """Two captions, each nearer to the other's picture: a smaller scale is better, and the gradient has to say so."""
    model = Given()
    model.log_scale.data.fill_(9.0)
    model.loss(torch.eye(2), torch.eye(2).flip(0), None, torch.arange(2)).backward()
    assert model.scale.item() == pytest.approx(100) and model.log_scale.grad > 0


def test_learns_pairs_by_heart(batch):
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(*batch).backward()
        optimizer.step()
    cosines = model.embed_texts(*batch[1:3]) @ model.embed_images(batch[0]).T
    assert PHOTOS[cosines.argmax(dim=1)].tolist() == PHOTOS.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"loss": "triplet"}, "loss='triplet' is not known: choose info-nce or soft-targets"), ({"dim": 0}, "dim=0 must be"),
     ({"temperature": 0.001}, "temperature=0.001 must be at least 0.01"), ({"dropout": 1.0}, "dropout=1.0 must be")],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        DualEncoderConfig(6, 5, **changes)


def test_temperatures_are_those_of_the_loss_unless_given():
    assert DualEncoderConfig(6, 5).temperature == 0.07
    assert DualEncoderConfig(6, 5, loss="soft-targets").temperature == 1.0
    assert DualEncoderConfig(6, 5, loss="soft-targets", temperature=5.0).temperature == 5.0
    assert build(temperature=0.5).scale.item() == pytest.approx(2)


def test_towers_of_another_width_are_refused():
    with pytest.raises(InputError, match="the text tower has width 5, and the dual encoder was made for 768"):
        DualEncoder(DualEncoderConfig(6, 768), Pixels(), Words())


@pytest.mark.parametrize("visual", [
    {"image_resolution": 32, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 16},
    {"image_resolution": 64, "vision_layers": (1, 1, 1, 1), "vision_width": 4, "vision_patch_size": None},
], ids=["ViT", "ModifiedResNet"])  # fmt: skip
def test_a_clip_learns_from_scratch_and_becomes_a_file_that_load_clip_reads(tmp_path, visual):
    from helpers.data.encoders import clip, load_clip
    from helpers.pretrain import save_clip

    torch.manual_seed(5)
    net = clip.model.CLIP(embed_dim=64, **visual, context_length=16, vocab_size=49_408, transformer_width=64,
                          transformer_heads=1, transformer_layers=1)  # fmt: skip
    model = ClipDualEncoder(net)
    captions = ["a red dog", "a blue car", "a hound", "the kite"]
    photos = torch.tensor([0, 1, 0, 2])
    resolution = visual["image_resolution"]
    pixels, tokens = torch.randn(3, 3, resolution, resolution)[photos], clip.tokenize(captions, context_length=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model.loss(pixels, tokens, None, photos)
        loss.backward()
        losses.append(loss.item())
        lost = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not lost and net.logit_scale.grad != 0 and net.visual.conv1.weight.grad.abs().sum() > 0
        optimizer.step()
    expected = info_nce(net.encode_image(pixels), net.encode_text(tokens), net.logit_scale.exp(), photos[:, None] == photos)
    torch.testing.assert_close(model.loss(pixels, tokens, None, photos), expected)
    assert losses[-1] < losses[0]
    model.eval()
    with torch.no_grad():
        before = model.embed_images(pixels), model.embed_texts(tokens)
    save_clip(net, tmp_path / "clip.pt")
    encoder = load_clip(tmp_path / "clip.pt")
    after = F.normalize(encoder.encode(pixels), dim=-1), F.normalize(encoder.encode_texts(captions), dim=-1)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=0)  # the file is fp16


class Step(nn.Module):
    """What DDP wraps calls forward()."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *batch):
        return self.model.loss(*batch)


ONE_OF_TWO = """
import sys, torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.test_dual_encoder import Step, build, make_batch

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
results = {}
for loss in ("info-nce", "soft-targets"):
    model = build(loss=loss)
    parallel = DistributedDataParallel(Step(model))  # named: without it nothing would be averaged
    value = parallel(*(rows.chunk(2)[rank] for rows in make_batch()))
    value.backward()
    results[loss] = {"loss": value.detach(), **{name: p.grad for name, p in model.named_parameters()}}
torch.save(results, f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_train_as_one_with_the_joint_batch(tmp_path, batch):
    """Captions of photos 0 and 2 stand in both halves: strangers, were the photos' numbers not gathered too."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", ONE_OF_TWO, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(c, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for loss in ("info-nce", "soft-targets"):
        model = build(loss=loss)
        value = model.loss(*batch)
        value.backward()
        expected = {"loss": value.detach(), **{name: p.grad for name, p in model.named_parameters()}}
        for rank in ranks:
            torch.testing.assert_close(rank[loss], expected, atol=1e-5, rtol=0)
        halves = [model.loss(*(rows.chunk(2)[n] for rows in batch)) for n in range(2)]
        assert (sum(halves) / 2 - value).abs() > 0.1, "without negatives from the other process it is another loss"
