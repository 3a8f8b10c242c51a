"""The mapping networks: shapes, counts, names of the public checkpoints, and what a memory of length 1 costs."""

import pytest
import torch
import torch.nn.functional as F

from helpers.errors import InputError
from helpers.models.clipcap import ClipCapConfig
from helpers.models.mappings import MAPPINGS, CrossAttentionMapping, LinearMapping, MappingAttention, MLPMapping

B, E, C, M, K, D = 3, 16, 12, 4, 5, 32


def make(mapping: str, **sizes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"prefix_length": K, "layers": 2, "heads": 2, "grid_dim": C} | sizes
    return MAPPINGS[mapping](ClipCapConfig(image_dim=E, width=D, mapping=mapping, **sizes))


def picture(mapping: str):
    torch.manual_seed(1)
    pooled = torch.randn(B, E)
    return {"grid": torch.randn(B, M, C), "pooled": pooled} if mapping == "cross-attention" else pooled


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_mapping_gives_prefixes_and_each_picture_its_own(mapping):
    network, image = make(mapping), picture(mapping)
    prefix = network(image)
    assert prefix.shape == (B, K, D)
    alone = {name: part[1:2] for name, part in image.items()} if isinstance(image, dict) else image[1:2]
    torch.testing.assert_close(network(alone), prefix[1:2])
    assert not torch.allclose(prefix[0], prefix[1])


@pytest.mark.parametrize("mapping", ["transformer", "mlp", "linear", "cross-attention"])
def test_every_parameter_learns(mapping):
    network = make(mapping)
    network(picture(mapping)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_names_and_counts_of_the_paper_s_mlp():
    """Section 4: 31.5M at K=10, CLIP 512, GPT-2 768."""
    with torch.device("meta"):
        network = MLPMapping(ClipCapConfig(image_dim=512, width=768, mapping="mlp"))
    assert [name for name, _ in network.named_parameters()] == ["model.0.weight", "model.0.bias", "model.2.weight",
                                                                "model.2.bias"]
    assert sum(p.numel() for p in network.parameters()) == 512 * 3840 + 3840 + 3840 * 7680 + 7680
    assert round((512 * 3840 + 3840 * 7680) / 1e6, 1) == 31.5


def test_mlp_and_linear_by_hand():
    image = picture("mlp")
    network = make("mlp").model
    hidden = torch.tanh(image @ network[0].weight.T + network[0].bias)
    torch.testing.assert_close(make("mlp")(image).flatten(1), hidden @ network[2].weight.T + network[2].bias)
    linear: LinearMapping = make("linear")
    torch.testing.assert_close(linear(image)[:, 0], torch.tanh(image @ linear.linear.weight[:D].T + linear.linear.bias[:D]))


def test_attention_equals_torch_s_own():
    torch.manual_seed(0)
    ours, x, memory = MappingAttention(D, 4), torch.randn(B, K, D), torch.randn(B, M, D)
    theirs = torch.nn.MultiheadAttention(D, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.to_queries.weight, ours.to_keys_values.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(ours.project.state_dict())
    for seen in (memory, x):
        torch.testing.assert_close(ours(x, seen), theirs(x, seen, seen)[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(ours(x), ours(x, x))


def test_cross_attention_sees_every_cell_and_their_order_does_not_matter():
    network: CrossAttentionMapping = make("cross-attention")
    image = picture("cross-attention")
    assert network.memory(image).shape == (B, M + 1, D)
    image["grid"].requires_grad_()
    network(image).square().sum().backward()
    assert (image["grid"].grad.abs().sum(dim=-1) > 0).all()
    turned = image | {"grid": image["grid"].flip(1)}
    torch.testing.assert_close(network(turned), network(image), atol=1e-5, rtol=1e-4)


def test_with_a_memory_of_length_one_queries_and_keys_never_learn():
    """Softmax over one key is 1 whatever the key: the published setting trains half of its cross-attention for nothing."""
    network: CrossAttentionMapping = make("cross-attention-pooled")
    image = picture("cross-attention-pooled")
    network(image).square().sum().backward()
    for block in network.blocks:
        look = block.cross_attention
        assert look.to_queries.weight.grad.abs().max() < 1e-6
        keys, values = look.to_keys_values.weight.grad.chunk(2)
        assert keys.abs().max() < 1e-6 < 1e-3 < values.abs().max()
        seen = F.linear(network.memory(image), look.to_keys_values.weight.chunk(2)[1])  # (B, 1, D): the one value
        x = torch.randn(B, K, D)
        torch.testing.assert_close(look(x, network.memory(image)), look.project(seen).expand(-1, K, -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mapping": "gru"}, "mapping='gru' is not known: choose one of transformer, mlp"),
     ({"mapping": "cross-attention"}, "needs grid_dim"),
     ({"mapping": "cross-attention", "grid_dim": 4, "normalize": True}, "normalize=True is for mappings of the pooled"),
     ({"mapping": "cross-attention-pooled", "heads": 7}, "32 is not a multiple of heads=7"),
     ({"tuning": "some"}, "tuning='some' is not known: choose one of frozen, all"),
     ({"prefix_length": 0}, "prefix_length=0"), ({"lora_rank": 0}, "lora_rank=0")],
)  # fmt: skip
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        ClipCapConfig(image_dim=E, width=D, **options)


def test_mappings_without_heads_take_any_width():
    assert ClipCapConfig(image_dim=E, width=30, mapping="mlp").sees == "pooled"
