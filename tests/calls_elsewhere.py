"""Calls of the whole library on the device of ``engine/elsewhere.py``, each beside its result on the CPU.

Run as a script with parts, of ``PARTS``, it prints what differs.
"""

import contextlib
import os
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from engine.elsewhere import NAME, register
from families import make
from torch.utils._pytree import tree_flatten

TARGETS = torch.tensor([3, 5])
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
MAPS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
BOX = [8, 4, 24, 20]
COMPARED = ("method", "insertion", "deletion", "target")  # of what takes no time
MASKS = torch.zeros(2, 32, 32, dtype=torch.bool)
MASKS[:, BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
WAITED_FOR = []  # devices whose work was waited for


def metrics(model, images):
    """Every metric, by its name; what comes after a comma is how it is called. Curves by every removal."""
    from captum_gmar import GMARAttribution
    from captum_gmar import metrics as library
    from captum_gmar.evaluation.catalogue import REMOVALS, make_removal

    def forward(pixels):
        return model(pixels).logits

    maps, attribute, curves = MAPS.to(images.device), GMARAttribution(model).attribute, {"steps": 4, "patch_size": 8}
    calls = {}
    for name in REMOVALS:
        options = {**curves, "removal": make_removal(name, model)}
        calls[f"deletion, {name}"] = partial(library.deletion, forward, images, maps, TARGETS, **options)
    for name in ("insertion", "symmetric_relevance_gain"):
        calls[name] = partial(getattr(library, name), forward, images, maps, TARGETS, **curves)
    calls["prediction_changes"] = partial(library.prediction_changes, forward, images, maps, **curves)
    calls["area_over_curve"] = lambda: library.area_over_curve(calls["insertion"]())
    calls["masked_probability"] = partial(library.masked_probability, forward, images, maps, TARGETS)
    for name in ("pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy"):
        calls[name] = partial(getattr(library, name), maps, MASKS.to(images.device))
        calls[f"{name}, masks of a data loader"] = partial(getattr(library, name), maps, MASKS)
    logits = forward(images)[:, 3].detach()
    calls["completeness_error"] = partial(library.completeness_error, maps, logits)
    calls["grid_pointing_game"] = partial(library.grid_pointing_game, maps, [1, 2])
    calls["mosaic"] = partial(library.mosaic, [*images, *maps], 32, 32)
    segments = {"box": BOX}
    calls["relevance_by_segment"] = lambda: torch.tensor(
        [row.relevance for row in library.relevance_by_segment(maps[0], segments, size=(32, 32))]
    )
    calls["boxes_to_masks"] = partial(library.boxes_to_masks, [[BOX], [BOX]], 32, 32)
    calls["class_sensitivity"] = partial(library.class_sensitivity, attribute, forward, images, patch_size=8)
    calls["parameter_randomisation"] = partial(
        library.parameter_randomisation, attribute, model, images, TARGETS, layers=["classifier"], patch_size=8
    )
    calls["layers_from_the_top"] = partial(library.layers_from_the_top, model)
    for name in ("random_map", "uniform_map", "centre_blob", "control_maps"):
        calls[name] = partial(getattr(library, name), images)
    public = {name for name in dir(library) if name[0].islower() and not hasattr(getattr(library, name), "__path__")}
    public = {name for name in public if callable(getattr(library, name))}
    assert not public - {name.split(",")[0] for name in calls}, f"call {public - set(calls)} here too"
    return calls


def captums(model, images):
    """Captum's methods and published GMAR, as they are called by name; ours are checked by ``elsewhere.py``."""
    from captum_gmar.attr.catalogue import CAPTUMS
    from captum_gmar.attr.catalogue import METHODS as ENTRIES

    return {
        name: partial(ENTRIES[name].load()(model).attribute, images, TARGETS) for name in (*CAPTUMS, "published-gmar")
    }


def heads(model, images):
    """Scores of heads, by batches with labels as a data loader gives them, and what is done with them."""
    from captum_gmar import GMARAttribution, record_attention
    from captum_gmar import ablation as library
    from captum_gmar.evaluation.catalogue import SCORES

    batches = [(images, TARGETS)]
    by_layer = torch.arange(9.0).view(3, 3)

    def without_heads(fill):
        with library.ablate_heads(model, {0: [1], 2: [0, 2]}, fill):
            return model(images).logits

    scores = {
        "mask-gradient": partial(library.gradient_of_mask, model),
        "entropy": partial(library.attention_entropy, model),
        **{f"gmar-{norm}": GMARAttribution(model, norm=norm).head_importance for norm in ("l1", "l2")},
    }
    assert set(scores) == set(SCORES)
    return {
        **{name: lambda score=score: library.head_importance(score, batches) for name, score in scores.items()},
        "record_attention": partial(record_attention, model, images, 3),
        "mean_head_outputs": partial(library.mean_head_outputs, model, images),
        "ablate_heads": partial(without_heads, None),
        "ablate_heads, means": lambda: without_heads(library.mean_head_outputs(model, images)),
        "head_ablation_curve": partial(library.head_ablation_curve, model, batches, by_layer, counts=[0, 4]),
    }


def evaluations(model, images):
    """Over data, and of one image. Each removal and head score is called above."""
    from captum_gmar import compare, evaluate, evaluate_heads
    from captum_gmar.evaluation.catalogue import METRICS

    data = [(pixels, int(target), mask.numpy()) for pixels, target, mask in zip(IMAGES, TARGETS, MASKS, strict=True)]
    metrics = [name for name, entry in METRICS.items() if entry.kind != "mosaic"]  # which need more images
    options = {"metrics": metrics, "removals": ["tokens"], "steps": 2}
    counts = {"steps": 2, "ig_steps": 2, "repeats": 1}
    return {
        "evaluate": lambda: evaluate(model, data, ["gmar-l1"], **options).records(),
        "evaluate_heads": lambda: evaluate_heads(model, data, ["entropy"]).records(),
        "compare": lambda: [
            {key: value for key, value in row.items() if key in COMPARED}
            for row in compare(model, images[:1], ["gmar-l1", "input-x-gradient"], **counts).records()
        ],
    }


def commands(model, images):
    """The command line on the built-in scene, and that times are taken when the device is done."""
    from captum_gmar.cli.main import main
    from captum_gmar.inspection.passes import time_in_turns

    def explain():
        with tempfile.TemporaryDirectory() as folder:
            picture, arrays = Path(folder, "map.png"), Path(folder, "map.npz")
            places = ["--output", str(picture), "--save-array", str(arrays), "--device", images.device.type]
            with contextlib.redirect_stdout(sys.stderr):
                assert main(["explain", "--methods", "gmar-l1", *places]) == 0
            return {name: torch.as_tensor(array) for name, array in np.load(arrays).items() if array.dtype.kind == "f"}

    def time():
        known = len(WAITED_FOR)
        time_in_turns({"a": lambda: None}, lambda: None, images.device, 1)
        return set(WAITED_FOR[known:]) == {images.device} - {torch.device("cpu")}

    return {"explain": explain, "time": time}


PARTS = {"metrics": metrics, "captums": captums, "heads": heads, "evaluations": evaluations, "commands": commands}


def outcome(call):
    """The numbers that a call returns, and all else that it returns."""
    torch.manual_seed(0)
    np.random.seed(0)
    result = call()
    leaves, structure = tree_flatten(
        result if isinstance(result, torch.Tensor) else getattr(result, "__dict__", result)
    )
    numbers = [leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves if is_number(leaf)]
    return numbers, [structure, *(leaf for leaf in leaves if not is_number(leaf))]


def is_number(leaf):
    return isinstance(leaf, torch.Tensor | float)


def check(part):
    """What is wrong with the calls of a part."""
    (here, _), (there, _) = make("ViT"), make("ViT")
    expected, calls = PARTS[part](here, IMAGES), PARTS[part](there.to(NAME), IMAGES.to(NAME))
    failures = []
    for name, call in calls.items():
        try:
            (found, others), (correct, expected_others) = outcome(call), outcome(expected[name])
            torch.testing.assert_close(found, correct, rtol=5e-3, atol=1e-5, equal_nan=True)
            assert others == expected_others, f"{others}, not {expected_others}"
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            failures.append(f"{part}, {name}: {type(error).__name__}: {str(error)[:300]}")
    if part == "evaluations" and not WAITED_FOR:
        failures.append(f"{part}: times were taken of work that was not done")
    return failures


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    registered = register()
    torch.accelerator.synchronize = WAITED_FOR.append  # it has no streams
    module = getattr(torch, NAME)
    module.get_rng_state, module.set_rng_state = lambda device: torch.get_rng_state(), lambda state, device: None
    for wanted in sys.argv[1:]:
        print(*check(wanted), sep="\n", flush=True)
    os._exit(0)  # at the interpreter's end, the device's thread now and then aborts it
