"""The parameter randomisation test, and that the model comes back from it as it was."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2ForImageClassification, SwinConfig, SwinForImageClassification

from captum_gmar import GMARAttribution
from captum_gmar.metrics import layers_from_the_top, parameter_randomisation, random_map
from captum_gmar.metrics._statistics import spearman


class Net(nn.Module):
    """With a buffer that changes, a shared parameter, one that is frozen, and one that no module below holds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.randn(3, 1, 1))
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU())
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU()) for _ in range(2))
        self.head = nn.Linear(4, 5)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.head.weight
        self.head.bias.requires_grad_(False)

    def forward(self, inputs):
        hidden = self.stem(inputs * self.scale)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        pooled = hidden.mean((2, 3))
        return self.head(pooled) + self.tied(pooled)


@pytest.fixture
def net():
    return Net().train()  # its batch statistics change with every pass


@pytest.fixture
def photos():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def gradient(model):
    def attribute(inputs, target):
        return torch.autograd.grad(model(inputs)[:, target].sum(), inputs)[0]

    return attribute


def state(model):
    """All that must come back: bits, flags, and the very tensors."""
    tensors = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    return (
        {name: (id(tensor), tensor.detach().clone()) for name, tensor in tensors.items()},
        {name: tensor.requires_grad for name, tensor in tensors.items()},
        {name: module.training for name, module in model.named_modules()},
    )


def assert_same_state(before, after):
    assert before[1:] == after[1:]
    for name, (identity, values) in before[0].items():
        assert after[0][name][0] == identity, name
        assert torch.equal(values, after[0][name][1]), name


def test_layers_are_listed_from_the_top(net):
    assert layers_from_the_top(net) == ["tied", "head", "blocks.1", "blocks.0", "stem", ""]


def test_layers_of_a_vit(vit):
    names = layers_from_the_top(vit)
    assert names[:2] == ["classifier", "vit.layernorm"]
    assert [name.rsplit(".", 1)[1] for name in names[2:5]] == ["2", "1", "0"]
    assert names[5:] == ["vit.embeddings"]


@pytest.mark.parametrize(
    "model",
    [
        Dinov2ForImageClassification(
            Dinov2Config(image_size=32, patch_size=8, hidden_size=8, num_attention_heads=2, num_hidden_layers=2)
        ),
        SwinForImageClassification(
            SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[2, 2], window_size=4)
        ),
        nn.Sequential(nn.Conv2d(3, 3, 2), nn.Flatten(), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))),
        nn.Linear(3, 2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_layers_hold_each_parameter(model):
    names, modules = layers_from_the_top(model), dict(model.named_modules())
    left = {id(parameter) for parameter in model.parameters()}
    for name in names:
        held = {id(parameter) for parameter in modules[name].parameters()}
        assert held & left, name  # each layer adds something
        left -= held
    assert not left


def test_the_model_comes_back_bit_for_bit(net, photos):
    before = state(net)
    parameter_randomisation(gradient(net), net, photos, 1)
    assert_same_state(before, state(net))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_model_comes_back_after_an_error(net, photos):
    before, calls = state(net), []

    def attribute(inputs, target):
        calls.append(target)
        if len(calls) == 4:
            net.eval().requires_grad_(True)
            raise RuntimeError("the method broke")
        return gradient(net)(inputs, target)

    with pytest.raises(RuntimeError, match="the method broke"):
        parameter_randomisation(attribute, net, photos, 1)
    assert len(calls) == 4
    assert_same_state(before, state(net))


def test_what_is_random_at_each_step(net, photos):
    """Cascading: after step i all layers up to the i-th differ from before, and no others."""
    original, seen = copy.deepcopy(net.state_dict()), []

    def attribute(inputs, target):
        seen.append({n for n, p in net.named_parameters() if not torch.equal(p, original[n])})
        return inputs

    names = parameter_randomisation(attribute, net, photos, layers=["head", "blocks.1", "blocks", "stem"]).layers
    assert names == ("head", "blocks.1", "blocks", "stem")
    assert seen[0] == set()
    added = [after - before for before, after in itertools.pairwise(seen)]
    assert all(before <= after for before, after in itertools.pairwise(seen))
    assert added[0] == {"head.weight", "head.bias"}
    assert added[1] == {"blocks.1.0.weight", "blocks.1.0.bias"}
    assert added[2] == {"blocks.0.0.weight", "blocks.0.0.bias"}
    assert added[3] == {"stem.0.weight", "stem.0.bias"}  # what is constant, as BatchNorm's at first, stays


def test_noise_has_the_mean_and_deviation_of_the_parameter():
    model = nn.Sequential(nn.Linear(200, 300))
    with torch.no_grad():
        model[0].weight.mul_(3).add_(0.7)
    weight, seen = model[0].weight.detach().clone(), []

    def attribute(inputs, target):
        seen.append(model[0].weight.detach().clone())
        return inputs

    parameter_randomisation(attribute, model, torch.rand(1, 1, 2, 2))
    assert float(seen[1].mean()) == pytest.approx(float(weight.mean()), abs=0.01)
    assert float(seen[1].std()) == pytest.approx(float(weight.std()), rel=0.02)
    assert abs(float(spearman(weight.view(1, -1), seen[1].view(1, -1)))) < 0.02


def test_similarity_against_a_model_randomised_by_hand(net, photos):
    net.eval()
    kept = []

    def attribute(inputs, target):
        kept.append((copy.deepcopy(net), inputs))
        return gradient(net)(inputs, target)

    found = parameter_randomisation(attribute, net, photos, 1, patch_size=2)
    maps = [gradient(model)(inputs, 1).sum(1).reshape(2, 4, 2, 4, 2).sum((2, 4)).flatten(1) for model, inputs in kept]
    expected = torch.stack([spearman(maps[0].double(), later.double()) for later in maps[1:]], 1)
    assert found.layers == ("tied", "head", "blocks.1", "blocks.0", "stem", "")
    assert_close(found.similarity, expected.float())
    assert found.similarity.shape == (2, 6)


def test_a_method_that_only_shows_the_image_scores_one(net, photos):
    found = parameter_randomisation(lambda inputs, target: inputs.detach().abs(), net, photos)
    assert torch.equal(found.similarity, torch.ones(2, 6))


def test_random_maps_score_about_zero(net):
    inputs = torch.zeros(2, 3, 64, 64)
    seeds = iter(range(100, 200, 10))
    found = parameter_randomisation(lambda inputs, target: random_map(inputs, next(seeds)), net, inputs)
    assert (found.similarity.abs() < 0.08).all()


def test_it_is_seeded_and_leaves_the_global_generator_alone(net, photos):
    net.eval()
    state = torch.get_rng_state()
    runs = [parameter_randomisation(gradient(net), net, photos, 1, seed=seed).similarity for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_batch_equals_its_singles(net, photos):
    net.eval()
    found = parameter_randomisation(gradient(net), net, photos, 1).similarity
    singles = [parameter_randomisation(gradient(net), net, photos[i : i + 1], 1).similarity for i in range(2)]
    assert_close(found, torch.cat(singles), rtol=0, atol=1e-5)


def test_an_attention_method(vit, images):
    before = state(vit)
    found = parameter_randomisation(GMARAttribution(vit).attribute, vit, images, 3, patch_size=8)
    assert_same_state(before, state(vit))
    assert found.similarity.shape == (4, 6)
    assert (found.similarity[:, -1] < 0.9).all()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["head", "neck"], r"modules of the model but got 'neck'\. See model\.named_modules"),
        (["head", "head"], "with parameters that are not randomised yet but got 'head'"),
        (["head", "tied"], "with parameters that are not randomised yet but got 'tied'"),
        (["stem.2"], r"with parameters that are not randomised yet but got 'stem\.2'"),
        ([], "at least one layer with parameters to randomise but got none"),
    ],
)
def test_wrong_layers(net, photos, layers, message):
    with pytest.raises(ValueError, match=message):
        parameter_randomisation(gradient(net), net, photos, 1, layers=layers)


def test_wrong_arguments(net, photos):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module\. Got function instead"):
        parameter_randomisation(gradient(net), gradient(net), photos, 1)
    with pytest.raises(ValueError, match="at least one layer with parameters to randomise but got none"):
        parameter_randomisation(gradient(net), nn.Sequential(nn.Flatten()), photos, 1)
    with pytest.raises(ValueError, match=r"seed must be an integer\. Got 1\.5 instead"):
        parameter_randomisation(gradient(net), net, photos, 1, seed=1.5)
    with pytest.raises(ValueError, match="at least one example"):
        parameter_randomisation(gradient(net), net, photos[:0], 1)
    with pytest.raises(ValueError, match="in the shape of the inputs"):
        parameter_randomisation(lambda inputs, target: inputs[:, :1], net, photos, 1)
    with pytest.raises(ValueError, match="patch size that divides"):
        parameter_randomisation(gradient(net), net, photos, 1, patch_size=3)
