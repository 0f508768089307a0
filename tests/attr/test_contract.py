"""Captum's contract, for every public attribution class. A new class is one more row in ``methods.py``."""

import copy
import pickle
import threading
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from captum.metrics import infidelity, sensitivity_max
from methods import METHODS, NAMES, PUBLIC
from snapshots import state
from torch.testing import assert_close
from transformers import ViTForImageClassification

from captum_gmar import AttCAT, GMARAttribution

THREAD_CALLS = 4  # of each thread, in each of four cases for each method


@pytest.fixture(params=[*PUBLIC, "GMAR l2", "GMAR forward"], scope="module")
def row(request):
    return METHODS[request.param]


@pytest.fixture(scope="module")
def make_vit(row, make_vit):
    """Two layers are enough but for AttCAT, which is zero there: layer norm knows no scale."""
    return partial(make_vit, num_hidden_layers=3 if row.make is AttCAT else 2)


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_method(row):
    return row.make


@pytest.fixture
def method(make_method, vit):
    return make_method(vit)


@pytest.fixture(scope="module")
def results():
    return {}


@pytest.fixture
def computed(row, make_vit, images, results):
    """What one of the method's calls returns for a target, of a model that nobody else has; computed once."""

    def result(target, call="attribute", **options):
        key = row.make, repr(target), call, repr(options)
        if key not in results:
            results[key] = getattr(row.make(make_vit()), call)(images, target, **options)
        return results[key]

    return result


@pytest.fixture(scope="module")
def captums_error(make_vit, images, results):
    """What Captum raises for a target, of any model, and its text; computed once."""

    def error(target):
        if repr(target) not in results:
            model = make_vit()
            with pytest.raises(Exception) as raised:  # noqa: PT011
                Saliency(lambda pixels: model(pixels).logits).attribute(images.clone().requires_grad_(), target)
            results[repr(target)] = raised.type, str(raised.value)
        return results[repr(target)]

    return error


@pytest.fixture
def reading_gradient(row, method):
    if not row.reads_gradient:
        pytest.skip("it takes any target")
    return method


class TestTargets:
    """Every form that Captum takes means what it means to Captum."""

    @pytest.mark.parametrize(
        "target", [3, (3,), torch.tensor(3), torch.tensor([3]), [3] * 4, torch.tensor([3] * 4), [(3,)] * 4]
    )
    def test_one_class(self, method, images, computed, target):
        assert_close(method.attribute(images, target), computed(3), rtol=0, atol=0)

    @pytest.mark.parametrize("target", [[0, 9, 0, 5], torch.tensor([0, 9, 0, 5]), [(0,), (9,), (0,), (5,)]])
    def test_one_class_per_example(self, method, images, computed, target):
        singles = [computed(c)[i : i + 1] for i, c in enumerate([0, 9, 0, 5])]
        assert_close(method.attribute(images, target), torch.cat(singles))

    def test_first_and_last_class(self, row, method, images, computed):
        assert_close(method.attribute(images, -1), computed(9), rtol=0, atol=0)
        assert torch.equal(computed(0), computed(9)) == (not row.reads_gradient)

    def test_contrast(self, row, make_method, vit, images, computed):
        targets = torch.tensor([3, 1, 9, 3])

        def difference(inputs):
            """One number per example; LeGrad's layers come one after the other."""
            logits = vit(inputs).logits
            return logits.gather(1, targets.repeat(len(logits) // 4)[:, None]).squeeze(1) - logits[:, 7]

        found = computed([3, 1, 9, 3], "relevance", contrast=7)
        assert_close(found, make_method(vit, forward_func=difference).relevance(images))
        assert torch.equal(found, computed([3, 1, 9, 3], "relevance")) == (not row.reads_gradient)

    def test_classes_of_numpy(self, method, images, computed):
        expected = computed([3, 1, 9, 3], "relevance", contrast=7)
        for classes in (np.array([3, 1, 9, 3]), list(np.array([3, 1, 9, 3]))):
            assert_close(method.relevance(images, classes, None, 3, np.int64(7)), expected, rtol=0, atol=0)

    @pytest.mark.parametrize("contrast", [7, (7,), torch.tensor(7), [7] * 4, torch.tensor([7] * 4), [(7,)] * 4])
    def test_forms_of_contrast(self, method, images, computed, contrast):
        expected = computed([3, 1, 9, 3], "relevance", contrast=7)
        assert_close(method.relevance(images, [3, 1, 9, 3], contrast=contrast), expected)
        assert_close(method.relevance(images, [3, 1, 9, 3], None, 3, contrast), expected)

    def test_one_contrast_per_example(self, method, images):
        singles = [method.attribute(images[i : i + 1], 3, contrast=c) for i, c in enumerate([0, 9, 0, 5])]
        assert_close(method.attribute(images, 3, contrast=[0, 9, 0, 5]), torch.cat(singles))

    @pytest.mark.parametrize(
        "target",
        [
            None,
            [1, 2],
            torch.tensor([1, 2]),
            torch.tensor(1.0),
            1.0,
            "3",
            [1.0] * 4,
            torch.ones(4, 1).long(),
            (1, 2),
            True,
        ],
    )
    def test_wrong_targets_raise_what_captum_raises(self, row, method, images, computed, captums_error, target):
        if not row.reads_gradient:
            assert_close(method.attribute(images, target), computed(3), rtol=0, atol=0)
            return
        error, text = captums_error(target)
        with pytest.raises(error) as ours:
            method.attribute(images, target)
        assert str(ours.value) == text

    def test_class_out_of_range(self, reading_gradient, images):
        with pytest.raises(ValueError, match="target must be from 0 to 9, as there are 10 classes, but got 10"):
            reading_gradient.attribute(images, 10)
        with pytest.raises(ValueError, match="contrast must be from 0 to 9, as there are 10 classes, but got -11"):
            reading_gradient.attribute(images, [0, 9, 0, 5], contrast=-11)

    def test_contrast_that_is_the_target_of_one_example(self, reading_gradient, images):
        said = "contrast must be another class than the target, but got 3 for both"
        with pytest.raises(ValueError, match=said):
            reading_gradient.relevance(images, [0, 9, 3, 5], contrast=3)
        with pytest.raises(ValueError, match=said):
            reading_gradient.explain(images, lambda logits: torch.tensor([[0], [9], [3], [5]]), contrast=3)

    def test_no_target_for_one_logit(self, make_method, make_vit, images):
        method = make_method(make_vit(num_labels=1))
        assert_close(method.attribute(images), method.attribute(images, 0), rtol=0, atol=0)


class TestInputs:
    def test_tuple_in_tuple_out(self, method, images, computed):
        (attributions,) = method.attribute((images,), 3)
        assert_close(attributions, computed(3), rtol=0, atol=0)
        assert isinstance(computed(3), torch.Tensor)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_shape_dtype_and_layout(self, make_method, vit, images, dtype):
        attributions = make_method(vit.to(dtype)).attribute(images.to(dtype), 3)
        assert attributions.shape == images.shape
        assert attributions.dtype == dtype
        assert attributions.device == images.device
        assert attributions.is_contiguous()
        assert not attributions.requires_grad

    def test_a_patch_sums_to_its_relevance(self, row, computed):
        patches = computed(3).unfold(2, 8, 8).unfold(3, 8, 8)  # (N, channels, rows, columns, 8, 8)
        assert_close(patches.sum((1, 4, 5)), computed(3, "relevance"))
        assert bool((computed(3, "relevance") < 0).any()) == row.is_signed

    def test_additional_forward_args(self, method, images):
        wider = torch.nn.functional.interpolate(images, (40, 56))
        with pytest.raises(ValueError, match=r"doesn't match model"):
            method.attribute(wider, 3)
        names = list(ViTForImageClassification.forward.__annotations__)
        args = (None,) * (names.index("interpolate_pos_encoding") - 1) + (True,)
        assert method.attribute(wider, 3, args).shape == (4, 3, 40, 56)
        assert method.relevance(wider, 3, args).shape == (4, 5, 7)

    def test_more_than_one_input(self, method, images):
        with pytest.raises(ValueError, match="inputs must be one tensor of pixel values, but got 2 inputs"):
            method.attribute((images, images), 3)

    @pytest.mark.parametrize(
        "wrong",
        [
            torch.zeros(3, 32, 32),
            torch.zeros(0, 3, 32, 32),
            torch.zeros(1, 3, 32, 32).long(),
            torch.zeros(1, 3, 8, 8) + 0j,
        ],
    )
    def test_wrong_inputs(self, method, wrong):
        with pytest.raises(
            ValueError, match=r"inputs must be floating-point pixel values of shape .*, but got torch\."
        ):
            method.attribute(wrong, 3)

    @pytest.mark.parametrize("wrong", [[[1.0]], None, "photo.png", np.zeros((1, 3, 32, 32)), ()])
    def test_inputs_that_are_no_tensor(self, method, wrong):
        with pytest.raises((AssertionError, ValueError), match=r"inputs.* must be a (torch.T|t)ensor"):
            method.attribute(wrong, 3)

    def test_images_smaller_than_a_patch(self, method):
        with pytest.raises(ValueError, match="at least a patch, 8x8, but got 4x32"):
            method.attribute(torch.zeros(1, 3, 4, 32), 3)

    def test_no_model(self, make_method):
        with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, but got function."):
            make_method(lambda x: x)


class TestBatches:
    def test_a_batch_is_its_singles(self, method, images, computed):
        singles = torch.cat([method.relevance(image[None], 3) for image in images])
        assert_close(computed(3, "relevance"), singles)

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
    @pytest.mark.parametrize("target", [3, [0, 9, 0, 5], torch.tensor([0, 9, 0, 5])])
    def test_internal_batch_size(self, method, images, computed, size, target):
        """``relevance`` takes the same way to batches as ``attribute``, so that one size is enough for it."""
        calls = ["attribute", *(["relevance"] if size == 3 else [])]
        calls += ["head_importance"] if type(method) is GMARAttribution else []
        for call in calls:
            assert_close(getattr(method, call)(images, target, internal_batch_size=size), computed(target, call))

    def test_additional_arguments_are_split_too(self, make_method, vit, images):
        method = make_method(vit, forward_func=lambda x, shift: vit(x + shift).logits)
        shift = torch.arange(4.0)[:, None, None, None]
        split = method.relevance(images, 3, shift, internal_batch_size=3)
        assert_close(split, make_method(vit).relevance(images + shift, 3))

    def test_wrong_target_lengths_are_not_cut_off(self, reading_gradient, images):
        method = reading_gradient
        with pytest.raises(AssertionError, match="does not match with the number of targets"):
            method.attribute(images, [1, 2, 3, 4, 5], internal_batch_size=2)

    def test_wrong_size(self, method, images):
        with pytest.raises(AssertionError, match="Batch size must be greater than 0"):
            method.attribute(images, 3, internal_batch_size=0)


class TestCaptum:
    """What Captum's own tools do with us."""

    def test_name_and_flags(self, method):
        assert method.get_name() == NAMES[type(method)]
        assert not method.has_convergence_delta()
        assert not method.multiplies_by_inputs
        with pytest.raises(NotImplementedError, match="attribute_future is not implemented"):
            method.attribute_future()

    def test_forward_func_and_model(self, method, vit, images):
        assert method.model is vit
        assert_close(method.forward_func(images), vit(images).logits, rtol=0, atol=0)

    def test_noise_tunnel(self, method, images, computed):
        torch.manual_seed(0)
        smooth = NoiseTunnel(method).attribute(images, nt_samples=3, stdevs=0.0, target=[0, 9, 0, 5])
        assert_close(smooth, computed([0, 9, 0, 5]))

    def test_infidelity(self, method, images, computed):
        def perturb(inputs):
            noise = 0.01 * torch.randn_like(inputs)
            return noise, inputs - noise

        assert infidelity(method.forward_func, perturb, images, computed(3), target=3).isfinite().all()

    def test_sensitivity(self, method, images):
        sensitivity = sensitivity_max(method.attribute, images, target=3, perturb_radius=0.01)
        assert sensitivity.shape == (4,)
        assert (sensitivity < 0.5).all()

    def test_positional_order(self, method, images, computed):
        assert_close(method.attribute(images, 3, None, 2), computed(3), rtol=1e-5, atol=1e-8)
        assert_close(method.attribute(inputs=images, target=3), computed(3), rtol=0, atol=0)


class TestNothingIsDisturbed:
    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("needs_grad", [False, True])
    @pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
    def test_gradients(self, make_method, vit, images, computed, frozen, needs_grad, context):
        vit.requires_grad_(not frozen)
        before = state(vit)
        inputs = images.clone().requires_grad_(needs_grad)
        inputs.grad = marker = torch.ones_like(inputs) if needs_grad else None
        with context():
            attributions = make_method(vit).attribute(inputs, 3)
            assert torch.is_grad_enabled() == (context is torch.enable_grad)
        assert_close(attributions, computed(3), rtol=0, atol=0)
        assert state(vit) == before
        assert inputs.requires_grad == needs_grad
        assert inputs.grad is marker
        assert torch.equal(inputs, images)

    def test_inputs_made_in_inference_mode(self, method, images, computed):
        with torch.inference_mode():
            attributions = method.attribute(images.clone(), 3)
        assert_close(attributions, computed(3), rtol=0, atol=0)

    def test_parameter_gradients_stay(self, method, vit, images):
        vit(images).logits.sum().backward()
        before = {name: p.grad.clone() for name, p in vit.named_parameters()}
        method.attribute(images, 3)
        for name, parameter in vit.named_parameters():
            assert torch.equal(parameter.grad, before[name])

    def test_training_mode_is_used_as_it_is(self, make_method, make_vit, images):
        model = make_vit(attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0).train()
        before = state(model)
        assert_close(make_method(model).attribute(images, 3), make_method(model.eval()).attribute(images, 3))
        model.train()
        assert state(model) == before

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    def test_attention_implementation(self, make_method, make_vit, images, computed, implementation):
        model = make_vit(attn_implementation=implementation)
        before = state(model)
        assert before["attention"] == implementation
        assert_close(make_method(model).attribute(images, 3), computed(3))
        assert state(model) == before

    @pytest.mark.usefixtures("reading_gradient")
    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    @pytest.mark.parametrize("target", [10, None, "3"])
    def test_after_a_wrong_target(self, make_method, make_vit, images, computed, implementation, target):
        model = make_vit(attn_implementation=implementation)
        before = state(model)
        with pytest.raises((AssertionError, ValueError)):
            make_method(model).attribute(images, target)
        assert state(model) == before
        assert_close(make_method(model).attribute(images, 3), computed(3), rtol=0, atol=0)

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    @pytest.mark.parametrize("stage", ["forward", "backward"])
    def test_after_an_error_in_the_model(self, row, make_method, make_vit, images, computed, implementation, stage):
        if stage == "backward" and not row.reads_gradient:
            pytest.skip("there is no backward pass")

        class Fails(torch.autograd.Function):
            @staticmethod
            def forward(ctx, tensor):
                if stage == "forward":
                    raise ZeroDivisionError("in forward")
                return tensor.clone()

            @staticmethod
            def backward(ctx, grad):
                raise ZeroDivisionError("in backward")

        model = make_vit(attn_implementation=implementation)
        handle = model.vit.layernorm.register_forward_hook(lambda module, args, output: Fails.apply(output))
        before = state(model)
        with pytest.raises(ZeroDivisionError, match=f"in {stage}"):
            make_method(model).attribute(images, 3)
        assert state(model) == before
        handle.remove()
        assert_close(make_method(model).attribute(images, 3), computed(3))

    @pytest.mark.usefixtures("reading_gradient")
    def test_numbers_that_are_not_finite(self, make_method, vit, images):
        before = state(vit)
        with torch.no_grad():
            vit.vit.layernorm.weight[0] = torch.nan
        with pytest.raises(FloatingPointError, match="The target's logits must be finite"):
            make_method(vit).attribute(images, 3)
        assert {**state(vit), "weights": None} == {**before, "weights": None}


class TestObjects:
    def test_deepcopy_and_pickle(self, method, images, computed):
        for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
            assert_close(other.attribute(images, 3), computed(3), rtol=0, atol=0)
            assert other.model is not method.model

    @pytest.mark.parametrize("shared_model", [False, True])
    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    def test_two_threads(self, make_method, make_vit, images, computed, shared_model, implementation):
        models = [make_vit(seed=0, attn_implementation=implementation), make_vit(seed=1)]
        methods = [make_method(models[0]), make_method(models[0] if shared_model else models[1])]
        expected = [computed(0), computed(1) if shared_model else methods[1].attribute(images, 1)]
        found = [[], []]

        def work(i):
            for _ in range(THREAD_CALLS):
                found[i].append(methods[i].attribute(images, i))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(2):
            assert len(found[i]) == THREAD_CALLS
            for attributions in found[i]:
                assert_close(attributions, expected[i])
        assert models[0].config._attn_implementation == implementation
