"""Class sensitivity of maps made by hand, and parameter randomisation, which restores the model."""

import copy
import itertools

import pytest
import torch
from families import hugging_face
from field_families import swin
from torch import nn, tensor
from torch.testing import assert_close

from captum_gmar import GMARAttribution
from captum_gmar.metrics import class_sensitivity, layers_from_the_top, parameter_randomisation
from captum_gmar.metrics._statistics import spearman
from metrics.by_definition import slow_spearman

WEIGHTS = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def linear(inputs):
    return torch.einsum("nchw,kchw->nk", inputs, WEIGHTS)


def linear_gradient(inputs, target):
    return torch.autograd.grad(linear(inputs)[range(len(inputs)), target].sum(), inputs)[0]


@pytest.fixture
def inputs():
    return torch.randn(3, 3, 4, 6, generator=torch.Generator().manual_seed(1))


def test_against_the_two_maps_made_by_hand(inputs):
    found = class_sensitivity(linear_gradient, linear, inputs, patch_size=2)
    order = linear(inputs).argsort(1, descending=True)
    maps = WEIGHTS.sum(1).reshape(5, 2, 2, 3, 2).sum((2, 4)).flatten(1).tolist()  # of this model, for any image
    expected = [1 - slow_spearman(maps[first], maps[second]) for first, second in order[:, :2].tolist()]
    assert_close(found, tensor(expected))
    assert (found > 0.1).all()


@pytest.mark.parametrize("patch_size", [None, 2])
def test_a_method_blind_to_the_class_scores_exactly_zero(inputs, patch_size):
    def saliency_of_all(inputs, target):
        return torch.autograd.grad(linear(inputs).square().sum(), inputs)[0].abs()

    assert torch.equal(class_sensitivity(saliency_of_all, linear, inputs, patch_size=patch_size), torch.zeros(3))


@pytest.mark.parametrize(("second", "expected"), [(-1.0, 2.0), (0.0, 1.0)])
def test_opposite_maps_score_two_and_a_map_for_one_class_only_scores_one(inputs, second, expected):
    def attribute(inputs, target):
        is_first = (tensor(target) == linear(inputs).argmax(1)).view(-1, 1, 1, 1)
        return inputs.detach() * torch.where(is_first, 1.0, second)

    assert_close(class_sensitivity(attribute, linear, inputs), torch.full((3,), expected))


def test_wrong_arguments(inputs):
    for arguments, error, message in (
        ((linear_gradient, linear, inputs[:0]), ValueError, "at least one example"),
        ((linear_gradient, linear, [inputs]), TypeError, "inputs must be a tensor"),
        ((linear_gradient, lambda x: x.mean((1, 2, 3)), inputs), ValueError, r"two classes or more, but got .* \(3,\)"),
        (
            (linear_gradient, lambda x: x.mean((2, 3))[:, :1], inputs),
            ValueError,
            r"two classes or more, but got .* \(3, 1\)",
        ),
        ((linear_gradient, lambda x: (linear(x),), inputs), TypeError, r"must return a tensor .* but got tuple"),
        ((linear_gradient, lambda x: linear(x) / 0 * 0, inputs), FloatingPointError, "outputs without NaN"),
        ((lambda x, target: x.sum(1), linear, inputs), ValueError, "the shape of the inputs"),
        ((lambda x, target: x / 0, linear, inputs), ValueError, "attributions must be finite, but got NaN or infinity"),
        ((lambda x, target: (x,), linear, inputs), TypeError, "attributions must be a tensor .* but got tuple"),
    ):
        with pytest.raises(error, match=message):
            class_sensitivity(*arguments)
    with pytest.raises(ValueError, match="patch_size must divide the image of 4x6 pixels, but got 3x3"):
        class_sensitivity(linear_gradient, linear, inputs, patch_size=3)


class Net(nn.Module):
    """Model with changing buffers, and a shared, a frozen and a top-level parameter."""

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
    return Net().train()  # batch statistics change with every pass


@pytest.fixture
def photos():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def gradient(model):
    def attribute(inputs, target):
        return torch.autograd.grad(model(inputs)[:, target].sum(), inputs)[0]

    return attribute


def state(model):
    """Return all that must be restored: values, flags and the tensors themselves."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    values = {name: (id(t), t.requires_grad, t.detach().numpy().tobytes()) for name, t in tensors}
    return values, {name: module.training for name, module in model.named_modules()}


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
        hugging_face("Dinov2ForImageClassification"),
        swin("Swin"),
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
    assert state(net) == before
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
    assert state(net) == before


def test_what_is_random_at_each_step(net, photos):
    """Step i changes layer i and keeps the layers before it random."""
    original, changed = copy.deepcopy(net.state_dict()), []

    def attribute(inputs, target):
        changed.append({n for n, p in net.named_parameters() if not torch.equal(p, original[n])})
        return inputs

    names = parameter_randomisation(attribute, net, photos, layers=["head", "blocks.1", "blocks", "stem"]).layers
    assert names == ("head", "blocks.1", "blocks", "stem")
    layers = ["head", "blocks.1.0", "blocks.0.0", "stem.0"]  # BatchNorm's parameters are constant and do not change
    added = [{f"{layer}.weight", f"{layer}.bias"} for layer in layers]
    assert changed == list(itertools.accumulate([set(), *added], set.union))


def test_noise_has_the_mean_and_deviation_of_the_parameter():
    model = nn.Sequential(nn.Linear(200, 300))
    with torch.no_grad():
        model[0].weight.mul_(3).add_(0.7)
    weights = []

    def attribute(inputs, target):
        weights.append(model[0].weight.detach().clone())
        return inputs

    parameter_randomisation(attribute, model, torch.rand(1, 1, 2, 2))
    weight, noise = weights
    assert float(noise.mean()) == pytest.approx(float(weight.mean()), abs=0.01)
    assert float(noise.std()) == pytest.approx(float(weight.std()), rel=0.02)
    assert abs(float(spearman(weight.view(1, -1), noise.view(1, -1)))) < 0.02


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


def test_it_is_seeded_and_leaves_the_global_generator_alone(net, photos):
    net.eval()
    state = torch.get_rng_state()
    runs = [parameter_randomisation(gradient(net), net, photos, 1, seed=seed).similarity for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_an_attention_method(vit, images):
    before = state(vit)
    found = parameter_randomisation(GMARAttribution(vit).attribute, vit, images, 3, patch_size=8)
    assert state(vit) == before
    assert found.similarity.shape == (4, 6)
    assert (found.similarity[:, -1] < 0.9).all()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["head", "neck"], r"modules of the model, but got 'neck'\. See model\.named_modules"),
        (["head", "head"], "have parameters that are not randomised yet, but got 'head'"),
        (["head", "tied"], "have parameters that are not randomised yet, but got 'tied'"),
        (["stem.2"], r"have parameters that are not randomised yet, but got 'stem\.2'"),
        ([], "at least one with parameters to randomise, but got none"),
    ],
)
def test_wrong_layers(net, photos, layers, message):
    with pytest.raises(ValueError, match=message):
        parameter_randomisation(gradient(net), net, photos, 1, layers=layers)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": gradient(nn.Flatten())}, TypeError, r"model must be .*torch\.nn\.Module, but got function"),
        ({"model": nn.Sequential(nn.Flatten())}, ValueError, "at least one with parameters to randomise, but got"),
        ({"seed": 1.5}, ValueError, r"seed must be an integer, but got 1\.5"),
        ({"inputs": torch.ones(0, 3, 8, 8)}, ValueError, "at least one example"),
        ({"attribute": lambda inputs, target: inputs[:, :1]}, ValueError, "the shape of the inputs"),
        ({"patch_size": 3}, ValueError, "patch_size must divide"),
    ],
)
def test_wrong_arguments_of_randomisation(net, photos, changes, error, message):
    given = {"attribute": gradient(net), "model": net, "inputs": photos, "target": 1}
    with pytest.raises(error, match=message):
        parameter_randomisation(**{**given, **changes})
