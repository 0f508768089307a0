"""A page of HTML of a prediction: touch a class to see its evidence, a patch to see what it gave each class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED, find_method, unique_names
from captum_gmar.attr.explainer import Explainer
from captum_gmar.engine.models.patch_grid import Logits, check_model, config_of, patch_grid
from captum_gmar.engine.request import pixel_values
from captum_gmar.inspection._html import Page, fill_page, image_data, model_name, round_values, shrink
from captum_gmar.inspection.proof import fill_photo, prove
from captum_gmar.metrics._inputs import check_count
from captum_gmar.metrics.removal import PixelRemoval
from captum_gmar.visualization._heatmap import Array, Crop, Heat, Pixels, blend, corners_of, photo_of, scale


class ClassPage(Page):
    """The likely classes of an image, each with its evidence by one or more methods, as a page of HTML.

    In Jupyter the last line of a cell shows it, also in a saved notebook. It needs no network and no server.

    Args:
        model (torch.nn.Module): An image classifier.
        inputs (Tensor): Pixel values (1, channels, height, width), as the model takes them.
        image (PIL.Image.Image, Tensor or numpy.ndarray): The photo, as :func:`~captum_gmar.visualize_attribution` takes
            it.
        labels (sequence or dict, optional): The names of the classes, by their index.
            Default: None, those of ``model.config.id2label``, or their numbers
        methods (sequence of str, optional): Names of :func:`captum_gmar.list_methods`. Default: ("token-evidence",).
        classes (int, optional): How many of the likeliest classes the page holds.
        rivals (int, optional): How many of the likeliest can be held against one another: why one rather than another.
        crop (tuple of float, optional): That of :func:`~captum_gmar.visualize_attribution`.
            Default: None, the whole image
        forward_func (Callable, optional): Takes images, runs ``model`` once and returns logits (N, classes).
            Default: None, the model's logits
        proof (PixelRemoval, optional): Fills removed patches: ``Blur()`` or ``Mean()``. A slider of the page removes
            the strongest patches of the classes that ``rivals`` counts, beside 10 random orders of the patches. Each
            map and each order takes at most 22 forward passes. Default: None, no slider.
        show_progress (bool, optional): Show a bar of these passes.

    Raises:
        TypeError, ValueError: if the inputs are not one image, a number is below 1, there is no such method, labels do
            not name every class, forward_func returns other than logits of one image, or proof is no PixelRemoval.
        RuntimeError: if a method cannot explain the model; the message begins with its name.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.inspection.class_page import ClassPage
        >>> scene = load_scene(3)
        >>> page = ClassPage(load_model(), scene.pixel_values, scene.image)
        >>> page.save("page.html")  # doctest: +SKIP
    """

    title = "Evidence for each class"

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        image: Pixels,
        labels: Sequence[str] | Mapping[int, str] | None = None,
        methods: Sequence[str] = (RECOMMENDED,),
        *,
        classes: int = 20,
        rivals: int = 4,
        crop: Crop | None = None,
        forward_func: Callable[[Tensor], Tensor] | None = None,
        proof: PixelRemoval | None = None,
        show_progress: bool = False,
    ) -> None:
        if len(pixel_values(inputs)) != 1:
            raise ValueError(f"inputs must be one image, (1, channels, height, width), but got {len(inputs)}.")
        for name, count in {"classes": classes, "rivals": rivals}.items():
            check_count(count, name)
        if not isinstance(proof, PixelRemoval | None):
            raise TypeError(f"proof must be a PixelRemoval, such as Blur(), but got {type(proof).__name__}.")
        check_model(model)
        forward = Logits(model if forward_func is None else forward_func)
        logits = _image_logits(forward, inputs)
        chosen = unique_names(methods, "methods")
        if not chosen:
            raise ValueError("methods must be at least one name, but got none.")
        names = _class_names(labels, config_of(model), logits.shape[1])
        likeliest = logits[0].argsort(descending=True)[:classes]
        explained = [_explain_method(find_method(name), model, forward, inputs, likeliest, rivals) for name in chosen]
        relevance = [method.pop("relevance") for method in explained]
        scores, is_share = _score_classes(logits, config_of(model))
        photo, place = _shrink(image, crop)
        content = {
            **_drawn_photo(photo, place),
            "rows": relevance[0].shape[1],
            "columns": relevance[0].shape[2],
            "model": model_name(model),
            "isShare": is_share,
            "classes": [
                {"name": names[index], "score": float(f"{scores[0, index]:.6g}")} for index in likeliest.tolist()
            ],
            "rivals": min(rivals, len(likeliest)),
            "methods": explained,
        }
        if proof is not None:
            followed, grid = likeliest[:rivals], patch_grid(model, *inputs.shape[2:])
            content["proof"] = prove(
                lambda images: _score_classes(forward(images), config_of(model))[0][:, followed],
                *(inputs, grid, [maps[:rivals] for maps in relevance], proof, show_progress),
            )
            content["proof"]["fill"] = image_data(fill_photo(photo.crop(place), inputs, proof))
        self.html = fill_page("class_page.html", content, {"TITLE": f"{self.title}: {content['classes'][0]['name']}"})


@torch.no_grad()
def _image_logits(forward: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    logits = forward(inputs).cpu()
    if logits.dim() != 2 or len(logits) != 1:
        raise ValueError(f"forward_func must return logits (1, classes), but got shape {tuple(logits.shape)}.")
    return logits


def _explain_method(
    name: str, model: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor, classes: Tensor, rivals: int
) -> dict[str, Any]:
    """Return the maps of classes by a method, and of the likeliest rather than one another."""
    entry, explainer = METHODS[name], Explainer([name], model, forward)

    def maps_of(targets: Tensor, contrast: int | None = None) -> Tensor:
        return explainer.explain(inputs, targets[None], contrast).relevance[0, 0] * (100 if entry.share else 1)

    top, contrasts = classes[:rivals], {}
    for place, contrast in enumerate(top.tolist()) if entry.takes_contrast and len(top) > 1 else ():
        others = [number for number in range(len(top)) if number != place]
        for number, map in zip(others, maps_of(top[others], contrast), strict=True):
            contrasts[f"{number},{place}"] = _pack_map(map.numpy())
    relevance = maps_of(classes if entry.reads_class else classes[:1])
    maps = [_pack_map(map.numpy()) for map in relevance]
    texts = {"name": name, "label": entry.label, "caveat": entry.caveat}
    return {**texts, "isShare": bool(entry.share), "maps": maps, "contrasts": contrasts, "relevance": relevance}


def _pack_map(relevance: Array) -> dict[str, Any]:
    """Return a map as the page takes it, with the scale of its colours."""
    heat: Heat = scale(relevance, "relevance")
    return {"zero": heat.zero, "end": heat.end, "low": heat.low, "values": round_values(relevance, 3)}


def _shrink(image: Pixels, crop: Crop | None) -> tuple[Image.Image, Crop]:
    """Return the photo no larger than a page shows it, and where its patches are."""
    whole = photo_of(image)
    photo = shrink(whole)
    corners = (0, 0, *whole.size) if crop is None else corners_of(crop, "crop")
    across, down = photo.width / whole.width, photo.height / whole.height
    return photo, (corners[0] * across, corners[1] * down, corners[2] * across, corners[3] * down)


def _drawn_photo(photo: Image.Image, place: Crop) -> dict[str, Any]:
    """Return the photo as the page takes it, in colours and in grey."""
    ground = blend(photo, Heat(torch.zeros(1, 1).numpy(), 0.0, 1.0), place)
    pictures = {"photo": image_data(photo), "ground": image_data(ground)}
    return {**pictures, "width": photo.width, "height": photo.height, "crop": [round(corner, 2) for corner in place]}


def _class_names(labels: Sequence[str] | Mapping[int, str] | None, config: Any, count: int) -> list[str]:
    """Return the name of each class, or its number where the model's config has no name."""
    given = getattr(config, "id2label", None) or {} if labels is None else {} if isinstance(labels, str) else labels
    names = dict(given if isinstance(given, Mapping) else enumerate(given))
    if labels is not None and not names.keys() >= set(range(count)):
        raise ValueError(f"labels must name all {count} classes, in their order or by their index, but got {labels!r}.")
    return [str(names.get(index, f"class {index}")) for index in range(count)]


def _score_classes(logits: Tensor, config: Any) -> tuple[Tensor, bool]:
    """Return probabilities (N, classes) and True or, where there is no other class, the logits and False."""
    if getattr(config, "problem_type", None) == "multi_label_classification":
        return logits.sigmoid(), True
    return (logits.softmax(-1), True) if logits.shape[-1] > 1 else (logits, False)
