"""Several targets for one image: what a call for each gives, of one pass forward."""

import gc
import weakref
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from families import FAMILIES, OwnHead, expected_start, hugging_face, make
from methods import METHODS, PUBLIC, implemented
from oracle import with_truncations
from torch.testing import assert_close

from captum_gmar import GMARAttribution
from captum_gmar.engine.hidden_states.registry import register_rule
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import patch_grid

SEVERAL = torch.tensor([[3, 0], [0, 9], [9, 9], [5, 1]])  # (N, K)
READING = [name for name in PUBLIC if METHODS[name].reads_gradient]
WAYS = ["GMAR l1", "LeGrad"]  # that lead back through the model
ALONE = [name for name in READING if not METHODS[name].of_log_odds]
STARTING = [name for name in READING if METHODS[name].takes_tokens]


def one_by_one(call, images, targets=SEVERAL, **options):
    return torch.stack([call(images, target, **options) for target in targets.unbind(1)], 1)


class Noted(torch.autograd.Function):
    """Notes every pass forward and backward, and holds a tensor as long as the graph is there."""

    @staticmethod
    def forward(ctx, tensor, passes, held):
        ctx.passes, saved = passes, tensor.clone()
        ctx.save_for_backward(saved)
        held.append(weakref.ref(saved))
        passes.append("forward")
        return tensor.clone()

    @staticmethod
    def backward(ctx, grad):
        ctx.passes.append("backward")
        return grad, None, None


register_rule(Noted, "linear")


@pytest.fixture
def noted(vit):
    """What passes the last layer norm of the model, and weak references to what the graph holds there."""
    passes, held = [], []
    vit.vit.layernorm.register_forward_hook(lambda module, args, output: Noted.apply(output, passes, held))
    return passes, held


class TestTheSameAsOneByOne:
    @pytest.mark.parametrize("name", METHODS)
    def test_every_method(self, name, vit, images):
        method = METHODS[name].make(vit)
        found = method.explain(images, SEVERAL).relevance
        assert_close(found, one_by_one(method.relevance, images), rtol=1e-6, atol=0)
        assert found.shape == (4, 2, 4, 4)
        assert torch.equal(found[2, 0], found[2, 1])
        assert torch.equal(found[:, 0], found[:, 1]) == (not METHODS[name].reads_gradient)

    @pytest.mark.parametrize("name", PUBLIC)
    @pytest.mark.parametrize("family", ["DINOv2 with registers", "BEiT", "SigLIP, image embedding", "timm-like, map"])
    def test_every_family(self, family, name, images):
        model, forward = make(family)
        method = METHODS[name].make(model, forward_func=forward)
        expected = one_by_one(method.relevance, images)
        assert_close(method.explain(images, SEVERAL).relevance, expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("name", PUBLIC)
    def test_internal_batch_size_and_contrast(self, name, vit, images):
        method, options = METHODS[name].make(vit), {"contrast": [7, 2, 4, 6]}
        expected = one_by_one(method.relevance, images, **options)
        found = method.explain(images, SEVERAL, internal_batch_size=3, **options).relevance
        assert_close(found, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("options", [{}, {"recursion": "forward"}, {"norm": "l2", "start_layer": 1}])
    def test_head_importance(self, options, vit, images):
        gmar = GMARAttribution(vit, **options)
        found = gmar.explain(images, SEVERAL, internal_batch_size=3).head_importance
        expected = one_by_one(gmar.head_importance, images)[:, :, options.get("start_layer", 0) :]
        assert_close(found, expected)


@pytest.fixture(scope="module", params=["ViT", "DINOv2"])
def case(request):
    """A model, what runs it, where relevance starts (T), images, and the dense matrices of each of their targets."""
    model, forward = make(request.param)
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    patches = patch_grid(model, 32, 32).patches
    start = expected_start(FAMILIES[request.param][1], patches + 1, patches)
    layers, records = transformer_layers(model), []
    for targets in SEVERAL.T.tolist():
        record = with_truncations(model, layers, lambda copied, pixels: copied(pixels).logits, inputs, targets)
        record.patches = patches
        records.append(record)
    return model, forward, start, inputs, records


@pytest.mark.parametrize("name", [name for name in READING if METHODS[name].expected is not None])
@pytest.mark.parametrize("implementation", ["batched", "blocks", "fused"])
def test_oracle(name, implementation, case):
    """Every target's map is that of its own matrices A and G in float64."""
    model, forward, start, inputs, records = case
    method = implemented(METHODS[name].make(model, forward_func=forward), implementation)
    found = method.explain(inputs, SEVERAL).relevance
    for number, record in enumerate(records):
        expected = (start @ METHODS[name].expected(record))[:, -record.patches :]
        assert (found[:, number].flatten(1) - expected).abs().max() < 2e-5 * expected.abs().max()


class TestCost:
    @pytest.mark.parametrize("name", METHODS)
    def test_one_pass_forward_and_one_backward_for_each_target(self, name, vit, noted, images):
        METHODS[name].make(vit).explain(images, [3, 0, 5, 7])
        assert noted[0] == ["forward"] + 4 * ["backward"] * METHODS[name].reads_gradient

    @pytest.mark.parametrize("name", READING)
    def test_the_graph_goes_with_the_last_pass_backward(self, name, vit, images):
        with mock.patch("torch.autograd.grad", wraps=torch.autograd.grad) as grad:
            METHODS[name].make(vit).explain(images, [3, 0, 5])
        assert [call.kwargs.get("retain_graph") for call in grad.call_args_list] == [True, True, None]

    @pytest.mark.parametrize("name", [*PUBLIC, "GMAR forward"])
    @pytest.mark.parametrize("targets", [[3, 0, 5], [3, 10]])
    def test_the_graph_is_not_kept_after_a_call(self, name, targets, vit, noted, images):
        """It is let go of at once, not when the garbage collector finds a cycle; also after an error."""
        gc.disable()
        try:
            is_right = 10 not in targets or not METHODS[name].reads_gradient
            with nullcontext() if is_right else pytest.raises(ValueError, match="target must be from 0 to 9"):
                METHODS[name].make(vit).explain(images, targets)
            assert [held() for held in noted[1]] == [None]
        finally:
            gc.enable()


class TestForms:
    @pytest.mark.parametrize(
        "targets",
        [
            [3, 5],
            (3, 5),
            range(3, 6, 2),
            [(3,), (5,)],
            torch.tensor([3, 5]),
            list(torch.tensor([3, 5])),
            torch.tensor([[3, 5]] * 4),
        ],
    )
    def test_two_classes_for_all(self, targets, vit, images):
        gmar = GMARAttribution(vit)
        expected = torch.stack([gmar.relevance(images, 3), gmar.relevance(images, 5)], 1)
        assert_close(gmar.explain(images, targets).relevance, expected, rtol=1e-6, atol=0)

    def test_one_image_takes_any_number(self, vit, images):
        gmar, most_likely = GMARAttribution(vit), vit(images[:1]).logits.topk(5).indices
        found = gmar.explain(images[:1], most_likely).relevance
        assert_close(found, one_by_one(gmar.relevance, images[:1], most_likely), rtol=1e-6, atol=0)
        assert torch.equal(gmar.explain(images[:1], most_likely[0]).relevance, found)

    def test_one_logit(self, make_vit, images):
        gmar = GMARAttribution(make_vit(num_labels=1))
        assert torch.equal(gmar.explain(images, [None]).relevance[:, 0], gmar.relevance(images))

    @pytest.mark.parametrize("name", [*WAYS, "rollout"])
    @pytest.mark.parametrize(
        ("targets", "error", "message"),
        [
            (3, TypeError, "targets must be a sequence or tensor, but got int. Pass"),
            (None, TypeError, "but got NoneType"),
            ("tabby", TypeError, "but got str"),
            ([[3, 0], [0, 9]], TypeError, "but got a sequence of lists or tensors.*as a tensor \\(N, K\\)"),
            ([torch.tensor([3, 0, 9, 5])], TypeError, "but got a sequence of lists or tensors"),
            ([], ValueError, "targets must be at least one, but got none"),
            (torch.tensor(3), ValueError, "must be a tensor .K,. of classes .* for 4 examples.*but got shape \\(\\)"),
            (torch.zeros(2, 4), ValueError, "but got shape \\(2, 4\\)"),
            (torch.zeros(4, 0), ValueError, "but got shape \\(4, 0\\)"),
        ],
    )
    def test_wrong(self, name, targets, error, message, vit, images):
        method = METHODS[name].make(vit)
        with pytest.raises(error, match=message):
            method.explain(images, targets)


class TestWhatASingleCallSays:
    """Errors are the same, wherever the target stands among the others; warnings as well, once."""

    @pytest.mark.parametrize("name", WAYS)
    @pytest.mark.parametrize("wrong", [10, -11, None, 1.0, "3", (1, 2)])
    @pytest.mark.parametrize("place", [0, 1])
    def test_wrong_target(self, name, wrong, place, vit, images):
        method, targets = METHODS[name].make(vit), [3, 0]
        targets.insert(place, wrong)
        with pytest.raises(Exception) as single:  # noqa: PT011
            method.relevance(images, wrong)
        with pytest.raises(single.type) as ours:
            method.explain(images, targets)
        assert str(ours.value) == str(single.value)

    @pytest.mark.parametrize("size", [None, 2])
    def test_wrong_contrast(self, size, vit, images):
        with pytest.raises(AssertionError, match=r"number of targets|does not match output"):
            GMARAttribution(vit).explain(images, [3, 5], contrast=[1, 2, 3], internal_batch_size=size)

    @pytest.mark.parametrize("name", STARTING)
    @pytest.mark.parametrize("targets", [[0, 3], [3, 0]])
    def test_a_target_that_reads_other_tokens(self, name, targets, images):
        """Class 0 alone is read off a patch."""
        torch.manual_seed(0)
        model = OwnHead(hugging_face("ViTModel", num_labels=2)).eval()

        def forward(pixels):
            tokens = model.backbone(pixels).last_hidden_state
            return torch.cat([model.head(tokens[:, 5])[:, :1], model.head(tokens[:, 0])[:, 1:]], 1)

        method = METHODS[name].make(model, forward_func=forward)
        assert method.explain(images, [3, 5]).relevance.isfinite().all()
        with pytest.raises(RuntimeError, match=r"must read token 0 after the last layer, but reads some patches"):
            method.explain(images, targets)

    @pytest.mark.parametrize("name", ALONE)
    def test_numbers_that_are_not_finite(self, name, vit, images):
        with torch.no_grad():
            vit.classifier.bias[5] = torch.nan
        method = METHODS[name].make(vit)
        assert method.explain(images, [3, 0]).relevance.isfinite().all()
        with pytest.raises(FloatingPointError, match="The target's logits must be finite"):
            method.explain(images, [3, 5])

    @pytest.mark.parametrize("name", ALONE)
    def test_zero_gradients_warn_once(self, name, vit, images):
        vit.classifier.weight.data[[3, 5]] = 0
        with pytest.warns(UserWarning, match="All gradients of an attention layer are zero") as warned:
            METHODS[name].make(vit).explain(images, [3, 0, 5])
        assert len(warned) == 1
        assert warned[0].filename == __file__


class TestNothingIsDisturbed:
    @pytest.mark.parametrize("name", READING)
    def test_after_an_error_in_the_second_pass_backward(self, name, make_vit, images):
        model, passes = make_vit(attn_implementation="eager"), []
        expected = METHODS[name].make(model).relevance(images, 3)

        class Fails(torch.autograd.Function):
            @staticmethod
            def forward(ctx, tensor):
                return tensor.clone()

            @staticmethod
            def backward(ctx, grad):
                passes.append(grad)
                if len(passes) == 2:
                    raise ZeroDivisionError("in the second")
                return grad

        register_rule(Fails, "linear")
        handle = model.vit.layernorm.register_forward_hook(lambda module, args, output: Fails.apply(output))
        with pytest.raises(ZeroDivisionError, match="in the second"):
            METHODS[name].make(model).explain(images, [3, 0, 5])
        handle.remove()
        assert model.config._attn_implementation == "eager"
        assert_close(METHODS[name].make(model).relevance(images, 3), expected, rtol=0, atol=0)


@pytest.mark.fault
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("choose", [lambda logits: logits.argmax(1), lambda logits: [0, 1], lambda logits: None])
def test_a_function_that_chooses_no_targets_of_each_example(name, choose, vit, images):
    """One class of each example would be taken for as many classes of all."""
    with pytest.raises(ValueError, match=r"targets must return a tensor \(N, K\) of classes for the logits"):
        METHODS[name].make(vit).explain(images, choose)
