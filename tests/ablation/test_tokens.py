"""Token removal against models that run on the other patches' tokens only."""

import families
import pytest
import torch
import torch.nn.functional as F
from families import TorchEncoder
from field_families import swin
from snapshots import state
from torch import nn
from torch.testing import assert_close

from captum_gmar.ablation import TokenRemoval
from captum_gmar.metrics import Mean, deletion, insertion, random_map

# With the number of tokens before the patches.
MODELS = {"DeiT": 2, "DINOv2": 1, "DINOv2 with registers": 5, "Data2Vec": 1, "BEiT, CLS": 1, "CLIP": 1, "SigLIP": 0}


def make(name):
    return families.make(name)[0], MODELS[name]


def embeddings(model):
    return next(m for name, m in model.named_modules() if type(m).__name__.endswith(("Embeddings", "VisionEmbeddings")))


def logits_of(model):
    return lambda inputs: model(pixel_values=inputs).logits


def run_on_kept_tokens(model, image, gone, prefix):
    """Run the model with removed tokens cut off after the embeddings."""
    kept = torch.cat([torch.ones(prefix, dtype=torch.bool), ~gone.flatten()])

    def cut(module, args, output):
        hidden, *others = output if isinstance(output, tuple) else (output,)
        assert hidden.shape[1] == len(kept)
        return (hidden[:, kept], *others) if isinstance(output, tuple) else hidden[:, kept]

    handle = embeddings(model).register_forward_hook(cut)
    try:
        with torch.no_grad():
            return logits_of(model)(image[None])[0]
    finally:
        handle.remove()


@pytest.fixture
def removed():
    """Return three sets of sixteen patches for four images: few, many, and all but one."""
    order = torch.rand(4, 3, 16, generator=torch.Generator().manual_seed(2)).argsort(-1).argsort(-1)
    return (order < torch.tensor([4, 11, 15])[:, None]).view(4, 3, 4, 4)


@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_that_of_the_kept_tokens_alone(images, removed, name):
    model, prefix = make(name)
    outputs = TokenRemoval(model)(logits_of(model), images, removed).view(4, 3, -1)
    assert (outputs.std(1) > 1e-3).any()
    for example in range(4):
        for part in range(3):
            expected = run_on_kept_tokens(model, images[example], removed[example, part], prefix)
            assert_close(outputs[example, part], expected, rtol=1e-4, atol=1e-4)


def test_a_vit_loaded_with_eager_attention(make_vit, images, removed):
    vit = make_vit()
    eager = make_vit(attn_implementation="eager")
    outputs = TokenRemoval(eager)(logits_of(eager), images, removed)
    assert_close(outputs[4], run_on_kept_tokens(vit, images[1], removed[1, 1], 1), rtol=1e-4, atol=1e-4)
    assert eager.config._attn_implementation == "eager"


def test_nothing_removed_is_the_model_as_it_is(vit, images):
    nothing = torch.zeros(4, 2, 4, 4, dtype=torch.bool)
    outputs = TokenRemoval(vit)(logits_of(vit), images, nothing)
    assert not outputs.requires_grad
    assert_close(outputs, logits_of(vit)(images).repeat_interleave(2, 0).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_with_all_patches_removed_the_image_does_not_matter(images, name):
    model, _ = make(name)
    everything = torch.ones(4, 1, 4, 4, dtype=torch.bool)
    outputs = TokenRemoval(model)(logits_of(model), images, everything)
    assert outputs.isfinite().all()
    assert_close(outputs, outputs[:1].expand(4, -1))
    if name == "SigLIP":  # what is left is its classifier's bias
        assert_close(outputs[0], model.classifier.bias)


def test_relative_positions(images, removed):
    """BEiT's bias is a mask; cut to the kept tokens it must give the same outputs."""
    torch.manual_seed(0)
    model = families.hugging_face("BeitForImageClassification", use_relative_position_bias=True).eval()
    biases = [m for m in model.modules() if type(m).__name__ == "BeitRelativePositionBias"]
    for bias in biases:
        nn.init.normal_(bias.relative_position_bias_table)
    outputs = TokenRemoval(model)(logits_of(model), images, removed)
    gone = removed[2, 1]
    kept = torch.cat([torch.ones(1, dtype=torch.bool), ~gone.flatten()])
    for bias in biases:
        bias.register_forward_hook(lambda module, args, output: output[..., kept, :][..., kept])
    expected = run_on_kept_tokens(model, images[2], gone, 1)
    assert_close(outputs[7], expected, rtol=1e-4, atol=1e-4)
    assert biases


def probe(tokens):
    """Pool tokens by torch's own attention from one query."""
    torch.manual_seed(1)
    return nn.MultiheadAttention(24, 3, batch_first=True)(torch.ones(len(tokens), 1, 24), tokens, tokens)[0][:, 0]


POOLS = {
    "cls": lambda tokens: tokens[:, 0],
    "all tokens": lambda tokens: tokens.mean(1),
    "patches": lambda tokens: torch.mean(tokens[:, 1:], (1,), keepdim=True).squeeze(1),
    "probe": probe,
    "maximum": lambda tokens: tokens.amax(1),
    "convolution": lambda tokens: F.conv1d(tokens.mT, torch.ones(24, 24, 3))[..., 0],
}


def run_on_kept_patches(model, image, gone):
    """Run the model with removed patches cut off after the patch embedding."""
    kept = ~gone.flatten()
    handle = model.patch_embed.register_forward_hook(lambda module, args, output: output.flatten(2)[..., kept, None])
    with torch.no_grad():
        output = model(image[None])[0]
    handle.remove()
    return output


@pytest.fixture
def encoder(request):
    torch.manual_seed(0)
    return TorchEncoder(2, prefix=1, read=POOLS[request.param]).eval()


@pytest.mark.parametrize("encoder", ["cls", "all tokens", "patches", "probe"], indirect=True)
def test_multihead_attention_and_ways_to_pool(images, removed, encoder):
    outputs = TokenRemoval(encoder)(encoder, images, removed).view(4, 3, -1)
    for example in range(4):
        for part in range(3):
            expected = run_on_kept_patches(encoder, images[example], removed[example, part])
            assert_close(outputs[example, part], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["maximum", "convolution"], indirect=True)
def test_removed_tokens_that_are_read_in_another_way(images, removed, encoder):
    removed[..., :2, :] = True
    with pytest.raises(RuntimeError, match=r"TorchEncoder must have finite outputs .* they became NaN"):
        TokenRemoval(encoder)(encoder, images, removed)


class Causal(nn.Module):
    """Causal attention over patches, of which the last is classified."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed, self.head = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 10)

    def forward(self, inputs):
        tokens = self.patch_embed(inputs).flatten(2).mT
        for _ in range(2):
            query = tokens[:, None]
            tokens = tokens + F.scaled_dot_product_attention(query, query, query, is_causal=True, scale=0.3)[:, 0]
        return self.head(tokens[:, -1])


def test_causal_attention(images, removed):
    model = Causal()
    removed[..., -1, -1] = False  # the last patch stays
    outputs = TokenRemoval(model)(model, images, removed).view(4, 3, -1)
    assert_close(outputs[1, 1], run_on_kept_patches(model, images[1], removed[1, 1]), rtol=1e-4, atol=1e-5)


def test_other_attention_and_other_means_are_unchanged(vit, images, removed):
    def other(examples):
        text = torch.arange(10.0).view(1, 1, 5, 2).expand(examples, -1, -1, -1)
        return F.scaled_dot_product_attention(text, text, text, is_causal=True).mean() + text[0].mean(1).sum()

    found = TokenRemoval(vit)(lambda inputs: vit(inputs).logits + other(len(inputs)), images, removed)
    assert_close(found, TokenRemoval(vit)(logits_of(vit), images, removed) + other(1))


def test_curves(vit, images):
    attributions = random_map(images, patch_size=8)
    forward_func, removal = logits_of(vit), TokenRemoval(vit)
    deleted, inserted = (
        curve(forward_func, images, attributions, [1, 2, 3, 4], patch_size=8, steps=4, removal=removal)
        for curve in (deletion, insertion)
    )
    assert deleted.removal == "tokens"
    whole = vit(images).logits.softmax(1)[range(4), [1, 2, 3, 4]].detach()
    assert_close(deleted.curve[:, 0], whole)
    assert_close(inserted.curve[:, -1], whole)
    assert_close(deleted.curve[:, -1], inserted.curve[:, 0])
    reverse = deletion(forward_func, images, -attributions, [1, 2, 3, 4], patch_size=8, steps=4, removal=removal)
    assert_close(inserted.curve, reverse.curve.flip(1))  # removing from the other end is inserting, backwards


def test_the_model_is_left_as_it_was(make_vit, images, removed):
    vit = make_vit(attn_implementation="eager").train()
    before = state(vit)
    TokenRemoval(vit)(logits_of(vit), images, removed)
    with pytest.raises(ZeroDivisionError):
        TokenRemoval(vit)(lambda inputs: 1 / 0, images, removed)
    assert state(vit) == before
    assert vit.eval()(images).logits.isfinite().all()


@pytest.mark.filterwarnings("ignore")  # dynamo's own
@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_model_runs_as_it_was_written(vit, images, removed, warm):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    expected = TokenRemoval(vit)(logits_of(vit), images, removed)
    compiled = torch.compile(vit, backend=backend)
    if warm:
        compiled(images)
    assert bool(graphs) == warm
    graphs.clear()
    assert_close(TokenRemoval(compiled)(logits_of(compiled), images, removed), expected)
    assert not graphs


def test_half_precision(vit, images, removed):
    expected = TokenRemoval(vit)(logits_of(vit), images, removed)
    half = vit.bfloat16()
    found = TokenRemoval(half)(logits_of(half), images.bfloat16(), removed)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, rtol=0.1, atol=0.2)


def test_models_without_attention_over_the_grid(vit, images, removed):
    model = swin("Swin", image_size=32, patch_size=8, depths=[1], num_heads=[2], window_size=2).eval()
    with pytest.raises(RuntimeError, match=r"SwinForImage.* must attend over 16 patch tokens, a 4x4 grid"):
        TokenRemoval(model)(logits_of(model), images, removed)
    with pytest.raises(RuntimeError, match=r"ViTFor.* Run this model on all images in forward_func"):
        TokenRemoval(vit)(lambda inputs: vit(inputs[:2]).logits, images, removed)


def test_wrong_arguments(vit, images, removed):
    with pytest.raises(TypeError, match=r"model must be .*torch\.nn\.Module, but got function"):
        TokenRemoval(logits_of(vit))
    for wrong, error, message in (
        (removed.float(), TypeError, r"removed must be a boolean tensor.* but got torch\.float32"),
        (removed.tolist(), TypeError, r"removed must be a boolean tensor.* but got list"),
        (removed[:3], ValueError, r"\(examples, sets, 4, 4\) .* for 4 examples, but got \(3, 3, 4, 4\)"),
        (removed[:, 0], ValueError, r"\(examples, sets, 4, 4\) .*, but got \(4, 4, 4\)"),
        (removed[..., :2], ValueError, r"but got \(4, 3, 4, 2\)\. Pass patch_size=\(8, 8\)"),
    ):
        with pytest.raises(error, match=message):
            TokenRemoval(vit)(logits_of(vit), images, wrong)
    with pytest.raises(ValueError, match=r"but got \(1, 15, 32, 32\)\. Pass patch_size=\(8, 8\)"):
        deletion(logits_of(vit), images, random_map(images), 1, removal=TokenRemoval(vit))
    assert deletion(logits_of(vit), images, random_map(images), 1, removal=Mean()).auc.shape == (4,)
