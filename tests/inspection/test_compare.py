"""Several methods on one image: each measured as it is alone, its passes counted, and all of it drawn and told."""

import re
from itertools import combinations

import captum.attr
import matplotlib
import numpy as np
import pytest
import torch
from field_families import swin
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from snapshots import state

from captum_gmar import GMARAttribution, get_method, list_methods
from captum_gmar.ablation import TokenRemoval
from captum_gmar.attr.captum_methods import IntegratedGradients
from captum_gmar.attr.catalogue import COMPARED, METHODS
from captum_gmar.inspection.compare import compare
from captum_gmar.metrics import Mean, control_maps, deletion, insertion
from captum_gmar.visualization import overlay_attribution

PATCH, PATCHES = 8, 16  # of the images of 32×32 pixels
BRIEF = {"steps": 4, "ig_steps": 3, "repeats": 1}
PASSES = {
    "gmar-l1": (1, 1),
    "gmar++": (1, 1),
    "rollout": (1, 0),
    "raw-attention": (1, 0),
    "legrad": (1, 1),
    "published-gmar": (1, 1),
    "attention-evidence": (1, 1),
    "token-evidence": (1, 1),
    "libra-fullgrad+": (1, 1),
    "attcat": (1, 1),
    "grad-eclip": (1, 1),
    "cdam": (1, 1),
    "input-x-gradient": (1, 1),
    "integrated-gradients": (3, 3),
    "gradient-shap": (5, 5),
    "occlusion": (PATCHES + 1, 0),
    "feature-ablation": (PATCHES + 1, 0),
    "layer-grad-cam": (1, 1),
}


def test_usual_methods_are_those_that_explain_the_model(images):
    model = swin("Swin", image_size=32, patch_size=4, depths=[1, 1], num_heads=[1, 2]).eval()
    names = [result.name for result in compare(model, images[:1], **BRIEF).methods]
    assert names == [name for name in COMPARED if name != "attention-evidence"]


@pytest.fixture
def pixels(images):
    return images[:1]


@pytest.fixture
def make_comparison(vit, pixels):
    def make(names=("gmar-l1", "integrated-gradients"), target=3, **options):
        return compare(vit, pixels, names, target, **{**BRIEF, **options})

    return make


@pytest.fixture
def agg():
    before = matplotlib.get_backend()
    pyplot.close("all")  # which older versions mind, when they switch
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


def logits(model):
    return lambda inputs: model(inputs).logits


class TestNumbers:
    @pytest.mark.parametrize("name", ["gmar-l2", "saliency", "occlusion", "integrated-gradients"])
    def test_curves_are_those_of_the_metrics(self, vit, pixels, make_comparison, name):
        (own,) = make_comparison([name], removal=Mean()).methods
        options = {"n_steps": 3} if name == "integrated-gradients" else {}
        attributions = get_method(name, vit).attribute(pixels, target=3, **options)
        for metric, found in ((insertion, own.insertion), (deletion, own.deletion)):
            expected = metric(logits(vit), pixels, attributions, 3, patch_size=PATCH, steps=4, removal=Mean())
            torch.testing.assert_close(found.curve, expected.curve)
            torch.testing.assert_close(found.auc, expected.auc)
            assert found.removal == "mean"
        assert own.areas == (float(own.insertion.auc), float(own.deletion.auc), own.areas[0] - own.areas[1])

    def test_insertion_begins_where_deletion_ends(self, vit, make_comparison):
        for removal, name in ((None, "blur (sigma 10)"), (TokenRemoval(vit), "tokens")):
            comparison = make_comparison(["rollout"], removal=removal)
            (own,) = comparison.methods
            torch.testing.assert_close(own.insertion.curve[0, [0, -1]], own.deletion.curve[0, [-1, 0]])
            assert comparison.removal == own.insertion.removal == own.deletion.removal == name

    def test_controls_are_those_of_the_metrics(self, vit, pixels, make_comparison):
        comparison = make_comparison(["rollout"], removal=Mean())
        maps = control_maps(pixels, patch_size=PATCH)
        assert [own.name for own in comparison.controls] == list(maps)
        for own in comparison.controls:
            options = {"patch_size": PATCH, "steps": 4, "removal": Mean()}
            expected = insertion(logits(vit), pixels, maps[own.name], 3, **options)
            torch.testing.assert_close(own.insertion.curve, expected.curve)
            assert float(own.relevance.sum()) == pytest.approx(1)
            assert own.cost is None

    @pytest.mark.parametrize(("target", "expected"), [(0, 0), (-1, 9), ([4], 4), (torch.tensor(5), 5)])
    def test_target_in_every_form(self, vit, pixels, make_comparison, target, expected):
        comparison = make_comparison(["gradient-rollout"], target)
        assert comparison.target == expected
        with torch.no_grad():
            assert comparison.score == pytest.approx(vit(pixels).logits.softmax(-1)[0, expected].item())
        single = get_method("gradient-rollout", vit).relevance(pixels, expected)[0]
        torch.testing.assert_close(comparison.methods[0].relevance, single)

    def test_without_target_it_is_the_predicted_class(self, vit, pixels, make_comparison):
        assert make_comparison(target=None).target == int(vit(pixels).logits.argmax())

    def test_probabilities_of_a_forward_func_are_followed_as_they_are(self, vit, make_comparison):
        comparison = make_comparison(
            ["rollout"], forward_func=lambda inputs: vit(inputs).logits.softmax(-1), softmax=False
        )
        curve = make_comparison(["rollout"]).methods[0].insertion.curve
        torch.testing.assert_close(comparison.methods[0].insertion.curve, curve)
        assert not comparison.is_probability

    @pytest.mark.parametrize("shape", [(1, 1), (1,)])
    def test_model_with_one_output(self, vit, make_comparison, shape):
        comparison = make_comparison(
            ["gmar-l1", "integrated-gradients", "occlusion"],
            None,
            forward_func=lambda inputs: vit(inputs).logits[:, 2].reshape(-1, *shape[1:]),
        )
        assert (comparison.target, comparison.is_probability, comparison.followed) == (None, False, "output")
        whole = comparison.methods[0].insertion.curve[0, -1]
        assert float(whole) == pytest.approx(comparison.score, abs=1e-5)
        relevance = make_comparison(["gmar-l1"], 2).methods[0].relevance
        torch.testing.assert_close(comparison.methods[0].relevance, relevance)


class TestPasses:
    @pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"repeats": 2}])
    def test_passes_of_every_kind_of_method(self, make_comparison, options):
        compared = make_comparison(list(PASSES), **options).methods
        assert {own.name: (own.cost.forward_passes, own.cost.backward_passes) for own in compared} == PASSES

    def test_methods_of_ones_own(self, vit, pixels, make_comparison):
        ours, saliency = GMARAttribution(vit, start_layer=1), captum.attr.Saliency(logits(vit))
        noisy, integrated = captum.attr.NoiseTunnel(saliency), IntegratedGradients(vit)
        before = [method.forward_func for method in (ours, saliency, noisy, integrated)]
        given = {"mine": ours, "tunnel": noisy, "ig": integrated, "function": lambda inputs, target: inputs * target}
        comparison = make_comparison(given)
        found = [(own.name, own.cost.forward_passes, own.cost.backward_passes) for own in comparison.methods]
        assert found == [("mine", 1, 1), ("tunnel", 5, 5), ("ig", 3, 3), ("function", None, None)]
        assert [method.forward_func for method in (ours, saliency, noisy, integrated)] == before
        assert noisy.attribution_method is saliency
        by_name = {own.name: own for own in comparison.methods}
        torch.testing.assert_close(by_name["mine"].relevance, ours.relevance(pixels, 3)[0])
        torch.testing.assert_close(by_name["function"].relevance[0, 1], 3 * pixels[0, :, :8, 8:16].sum())
        (named,) = make_comparison(["integrated-gradients"]).methods
        torch.testing.assert_close(by_name["ig"].relevance, named.relevance)
        assert "not known" in comparison.to_markdown()

    def test_times_are_of_the_method_and_of_the_model(self, make_comparison):
        (own,) = make_comparison(["gmar-l1"]).methods
        assert own.cost.ratio == own.cost.seconds / own.cost.forward_seconds > 0


def test_model_is_left_as_it_was(vit, pixels, make_comparison):
    vit.vit.requires_grad_(False)
    vit.classifier.weight.grad = torch.ones_like(vit.classifier.weight)
    expected = state(vit)
    make_comparison(["gmar-l1", "rollout", "legrad", "layer-grad-cam", "occlusion"], removal=TokenRemoval(vit))
    assert state(vit) == expected

    def fails(inputs, target):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"^broken: no$"):
        make_comparison({"legrad": get_method("legrad", vit), "broken": fails})
    assert state(vit) == expected
    assert not pixels.requires_grad


class TestTable:
    def test_records_and_table_say_the_same(self, make_comparison):
        comparison = make_comparison(["gmar-l1", "rollout"])
        records = comparison.records()
        names = ["gmar-l1", "rollout", "random map", "uniform map", "centre blob"]
        assert [record["method"] for record in records] == names
        assert [record["is_control"] for record in records] == [False, False, True, True, True]
        table = comparison.to_markdown().split("\n\n")[0].splitlines()
        assert len({len(line) for line in table}) == 1
        for line, record in zip(table[2:], records, strict=True):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            areas = [f"{record[key]:.3f}".replace("-", "−") for key in ("insertion", "deletion", "difference")]
            assert (name, cells[:3]) == (record["method"], areas)
            passes = [record["forward_passes"], record["backward_passes"]]
            assert cells[5:] == ["" if count is None else str(count) for count in passes]

    def test_notes_name_what_the_numbers_hang_on(self, make_comparison):
        comparison = make_comparison()
        _, note = comparison.to_markdown().split("\n\n")
        assert "the probability of class 3" in note
        assert "over 4 steps; removal: blur (sigma 10)" in note
        assert repr(comparison) == comparison._repr_markdown_() == comparison.to_markdown()

    def test_bar_in_a_name_does_not_break_the_table(self, vit, make_comparison):
        row = make_comparison({"a|b": GMARAttribution(vit)}).to_markdown().splitlines()[2]
        assert len(re.findall(r"(?<!\\)\|", row)) == 9
        assert r"a\|b" in row


class TestBadInput:
    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["gmar-l3"], r"must be one of captum_gmar.list_methods\(\), .*but got 'gmar-l3'. Try .*gmar-l1"),
            (["gmar-l1", "integrated"], "but got 'integrated'. Try integrated-gradients"),
            ([3], "but got 3"),
            ([], "at least one method"),
            ({}, "at least one method"),
        ],
    )
    def test_no_such_methods(self, make_comparison, names, message):
        with pytest.raises(ValueError, match=message):
            make_comparison(names)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ("gmar-l1", r"but got 'gmar-l1'. Pass \[name\]"),
            (3, "but got 'int'"),
            ({3: GMARAttribution}, "mapping from names, but got the key 3"),
            ({"": GMARAttribution}, "mapping from names, but got the key ''"),
            ({"a": GMARAttribution}, r"methods\['a'\] must be a Captum Attribution.*Call a class on the model first"),
            ({"a": "gmar-l1"}, "but got 'gmar-l1'"),
        ],
    )
    def test_methods_of_the_wrong_kind(self, make_comparison, names, message):
        with pytest.raises(TypeError, match=message):
            make_comparison(names)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((2, 3, 32, 32), r"inputs must be one image \(1, channels, height, width\), but got \(2, 3, 32, 32\)"),
            ((3, 32, 32), "inputs must be floating-point "),
            ((1, 3, 36, 36), "patch_size must divide the image of 36x36 pixels, but got 8x8"),
            ((1, 3, 4, 4), "at least a patch"),
        ],
    )
    def test_images_of_the_wrong_shape(self, vit, shape, message):
        with pytest.raises(ValueError, match=message):
            compare(vit, torch.rand(shape))

    def test_what_is_no_model_or_no_image(self, vit, pixels):
        with pytest.raises(TypeError, match=r"model must be a torch.nn.Module"):
            compare(lambda inputs: inputs, pixels)
        with pytest.raises(TypeError, match="inputs must be a tensor"):
            compare(vit, [[1.0]])

    @pytest.mark.parametrize("target", [10, -11, [1, 2]])
    def test_target_that_is_no_class(self, make_comparison, target):
        with pytest.raises(ValueError, match=r"target must be (from 0 to 9|one for)"):
            make_comparison(target=target)

    @pytest.mark.parametrize("name", ["steps", "ig_steps", "repeats", "batch_size"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, True])
    def test_counts(self, make_comparison, name, value):
        with pytest.raises(ValueError, match=f"{name} must be an integer, one or more, but got {value}"):
            make_comparison(**{name: value})

    def test_more_steps_than_patches(self, make_comparison):
        with pytest.raises(ValueError, match=r"steps must be at most the number of patches, 16, but got 17"):
            make_comparison(steps=17)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda inputs, target: inputs.sum(1), "own: attributions must have the shape of the inputs"),
            (lambda inputs, target: None, "own: attributions must be a tensor"),
            (lambda inputs, target: inputs / 0, "own: attributions must be finite"),
        ],
    )
    def test_function_that_returns_no_attributions(self, make_comparison, function, message):
        with pytest.raises(RuntimeError, match=message):
            make_comparison({"own": function})

    def test_model_that_returns_nan(self, vit, make_comparison):
        vit.classifier.bias.data.fill_(torch.nan)
        with pytest.raises(FloatingPointError, match="without NaN"):
            make_comparison()


@pytest.mark.usefixtures("agg")
class TestPicture:
    def draw(self, comparison, **options):
        figure, axes = comparison.visualize(torch.rand(3, 32, 32), use_pyplot=False, **options)
        FigureCanvasAgg(figure).draw()
        return figure, axes

    def test_maps_and_curves_of_every_method(self, make_comparison):
        comparison = make_comparison(["gmar-l1", "integrated-gradients", "rollout"])
        figure, axes = comparison.visualize(torch.zeros(3, 32, 32), title="a title", use_pyplot=False)
        assert figure.get_suptitle() == "a title"
        assert [upper.get_title() for upper, _ in axes] == ["photo", "gmar-l1", "integrated-gradients", "rollout"]
        reference = comparison.controls[0]
        for (upper, lower), own in zip(axes[1:], comparison.methods, strict=True):
            expected = overlay_attribution(own.relevance, torch.zeros(3, 32, 32))
            np.testing.assert_array_equal(upper.images[0].get_array(), np.asarray(expected))
            lines = {line.get_label(): line for line in lower.get_lines()}
            for drawn in (reference, own):
                for kind, curve in (("insertion", drawn.insertion), ("deletion", drawn.deletion)):
                    line = lines[f"{kind}: {drawn.name}"]
                    assert line.get_ydata() == pytest.approx(curve.curve[0].numpy())
                    assert line.get_xdata() == pytest.approx([0, 25, 50, 75, 100])
            assert (lower.get_xlim(), lower.get_ylim()) == ((0, 100), (-0.02, 1.02))

    def test_insertion_and_deletion_are_told_apart_without_colours(self, make_comparison):
        _, axes = self.draw(make_comparison())
        *_, inserted, deleted = axes[1][1].get_lines()
        assert (inserted.get_linestyle(), deleted.get_linestyle()) == ("-", "--")
        legend = [text.get_text() for text in axes[0][1].get_legend().get_texts()]
        assert legend == ["insertion ↑: patches there", "deletion ↓: patches removed", "random map, both"]

    def test_captions_give_areas_and_costs(self, make_comparison):
        comparison = make_comparison()
        _, axes = self.draw(comparison)
        gmar, integrated = (lower.get_xlabel().splitlines() for _, lower in axes[1:])
        areas = [f"{area:.3f}".replace("-", "−") for area in comparison.methods[0].areas]
        assert gmar[0] == f"insertion {areas[0]}, deletion {areas[1]}"
        assert re.fullmatch(r"[\d.]+ ms, [\d.]+ × a forward pass", gmar[1])
        assert gmar[2:] == ["Hardly depends on the class."]
        assert " ".join(integrated[2:]) == METHODS["integrated-gradients"].caveat

    def test_outputs_share_a_scale(self, vit, make_comparison):
        comparison = make_comparison(["gmar-l1", "rollout"], softmax=False)
        _, axes = self.draw(comparison)
        (low, high), other = (lower.get_ylim() for _, lower in axes[1:])
        assert (low, high) == other
        curves = [c.curve for own in comparison.methods for c in (own.insertion, own.deletion)]
        assert low < min(float(curve.min()) for curve in curves)
        assert high > max(float(curve.max()) for curve in curves)

    @pytest.mark.parametrize("count", [1, 4, 8, 22])
    def test_texts_and_panels_do_not_overlap(self, vit, make_comparison, count):
        names = ["integrated-gradients with a name that is much too long for one line", *list_methods()][:count]
        given = {name: lambda inputs, target: inputs for name in names}
        figure, axes = self.draw(make_comparison(given), title="a title of some length, " * 4)
        assert len(axes) == count + 1
        boxes = [panel.get_tightbbox() for pair in axes for panel in pair]
        boxes.append(figure._suptitle.get_window_extent())
        for one, other in combinations(boxes, 2):
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(width, height) < 1  # pixel
        assert all(box.x0 > -1 and box.x1 < figure.bbox.x1 + 1 for box in boxes)
        assert all(box.y0 > -1 and box.y1 < figure.bbox.y1 + 1 for box in boxes)

    def test_a_photo_of_its_own_shape_with_its_crop(self, make_comparison):
        comparison, photo, crop = make_comparison(["gmar-l1"]), torch.rand(3, 33, 50), (8, 0, 41, 33)
        _, axes = comparison.visualize(photo, crop=crop, use_pyplot=False)
        expected = overlay_attribution(comparison.methods[0].relevance, photo, crop=crop)
        np.testing.assert_array_equal(axes[1][0].images[0].get_array(), np.asarray(expected))
