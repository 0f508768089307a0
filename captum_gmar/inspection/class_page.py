"""A page of HTML of a prediction: touch a class to see its evidence, a patch to see what it gave each class."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED, find_method, unique_names
from captum_gmar.attr.explainer import Explainer
from captum_gmar.engine.models.patch_grid import Logits, check_model, config_of
from captum_gmar.engine.request import pixel_values
from captum_gmar.files.writing import write_text
from captum_gmar.inspection._html import fill_page, frame_page, image_data, round_values, shrink
from captum_gmar.metrics._inputs import check_count
from captum_gmar.visualization._heatmap import Array, Crop, Heat, Pixels, blend, corners_of, photo_of, scale
from captum_gmar.visualization._style import number_text, percent_text

TITLE = "Evidence for each class"


class ClassPage:
    """The likely classes of an image, each with its evidence by one or more methods, as a page of HTML.

    In Jupyter the last line of a cell shows it, also in a saved notebook. It needs no network and no server.

    Args:
        model (torch.nn.Module): An image classifier.
        inputs (Tensor): Pixel values (1, channels, height, width), as the model takes them.
        image (PIL.Image.Image, Tensor or numpy.ndarray): The photo, as :func:`~captum_gmar.visualize_attribution` takes
            it.
        labels (sequence or dict, optional): The names of the classes, by their index.
            Default: None, those of ``model.config.id2label``, or their numbers
        methods (sequence of str, optional): Names of :func:`captum_gmar.list_methods`.
            Default: ("token-evidence",)
        classes (int, optional): How many of the likeliest classes the page holds.
        rivals (int, optional): How many of the likeliest can be held against one another: why one rather than another.
        crop (tuple of float, optional): That of :func:`~captum_gmar.visualize_attribution`.
            Default: None, the whole image
        forward_func (Callable, optional): Takes the inputs, runs ``model`` once and returns logits (1, classes).
            Default: None, the model's logits

    Raises:
        TypeError, ValueError: if the inputs are not one image, a number is below 1, there is no such method, labels do
            not name every class, or forward_func returns other than logits of one image.
        RuntimeError: if a method cannot explain the model; the message begins with its name.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.inspection.class_page import ClassPage
        >>> scene = load_scene(3)
        >>> page = ClassPage(load_model(), scene.pixel_values, scene.image)
        >>> page.save("page.html")  # doctest: +SKIP
    """

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
    ) -> None:
        if len(pixel_values(inputs)) != 1:
            raise ValueError(f"inputs must be one image, (1, channels, height, width). Got {len(inputs)} instead.")
        for name, count in {"classes": classes, "rivals": rivals}.items():
            check_count(count, name)
        check_model(model)
        forward = Logits(model if forward_func is None else forward_func)
        with torch.no_grad():
            batch = forward(inputs)
        if batch.dim() != 2 or len(batch) != 1:
            raise ValueError(f"forward_func must return logits (1, classes). Got shape {tuple(batch.shape)} instead.")
        logits, chosen = batch[0].cpu(), unique_names(methods, "methods")
        if not chosen:
            raise ValueError("methods must be at least one name. Got none instead.")
        names = _class_names(labels, config_of(model), len(logits))
        likeliest = logits.argsort(descending=True)[:classes]
        explained = [_explain_method(find_method(name), model, forward, inputs, likeliest, rivals) for name in chosen]
        rows, columns = explained[0].pop("grid")
        content = {
            **_drawn_photo(image, crop),
            "rows": rows,
            "columns": columns,
            "classes": [_class_row(names[int(index)], int(index), logits, config_of(model)) for index in likeliest],
            "rivals": min(rivals, len(likeliest)),
            "methods": explained,
        }
        self.html = fill_page("class_page.html", content, {"TITLE": f"{TITLE}: {content['classes'][0]['name']}"})

    def save(self, path: str | Path) -> None:
        """Write the page as a file, whole or not at all.

        Raises:
            OSError: if it cannot be written; the message names the path.
        """
        write_text(Path(path), self.html)

    def _repr_html_(self) -> str:
        return frame_page(self.html, TITLE)


def _explain_method(
    name: str,
    model: nn.Module,
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    classes: Tensor,
    rivals: int,
) -> dict[str, Any]:
    """Return the maps of classes by a method, and of the likeliest rather than one another."""
    entry, explainer = METHODS[name], Explainer([name], model, forward)

    def maps_of(targets: Tensor, contrast: int | None = None) -> list[dict[str, Any]]:
        relevance = explainer.explain(inputs, targets[None], contrast).relevance[0, 0].numpy()
        return [_pack_map(100 * map if entry.share else map) for map in relevance]

    top, contrasts = classes[:rivals], {}
    for place, contrast in enumerate(top.tolist()) if entry.takes_contrast and len(top) > 1 else ():
        others = [number for number in range(len(top)) if number != place]
        for number, map in zip(others, maps_of(top[others], contrast), strict=True):
            contrasts[f"{number},{place}"] = map
    first = explainer.explain(inputs, classes[None, :1]).relevance[0, 0, 0]
    maps = maps_of(classes if entry.reads_class else classes[:1])
    texts = {"name": name, "label": entry.label, "caveat": entry.caveat}
    return {**texts, "isShare": bool(entry.share), "maps": maps, "contrasts": contrasts, "grid": first.shape}


def _pack_map(relevance: Array) -> dict[str, Any]:
    """Return a map as the page takes it, with the scale of its colours."""
    heat: Heat = scale(relevance, "relevance")
    return {"zero": heat.zero, "end": heat.end, "low": heat.low, "values": round_values(relevance, 3)}


def _drawn_photo(image: Pixels, crop: Crop | None) -> dict[str, Any]:
    """Return the photo as the page takes it, in colours and in grey, and where its patches are."""
    whole = photo_of(image)
    photo = shrink(whole)
    corners = (0, 0, *whole.size) if crop is None else corners_of(crop, "crop")
    factors = [small / large for small, large in zip(photo.size * 2, whole.size * 2, strict=True)]
    place = [corner * factor for corner, factor in zip(corners, factors, strict=True)]
    ground = blend(photo, Heat(torch.zeros(1, 1).numpy(), 0.0, 1.0), (place[0], place[1], place[2], place[3]))
    pictures = {"photo": image_data(photo), "ground": image_data(ground)}
    return {**pictures, "width": photo.width, "height": photo.height, "crop": [round(corner, 2) for corner in place]}


def _class_names(labels: Sequence[str] | Mapping[int, str] | None, config: Any, count: int) -> list[str]:
    """Return the name of each class, or its number where the model's config has no name."""
    given = getattr(config, "id2label", None) or {} if labels is None else {} if isinstance(labels, str) else labels
    names = dict(given if isinstance(given, Mapping) else enumerate(given))
    if labels is not None and not names.keys() >= set(range(count)):
        raise ValueError(f"labels must name all {count} classes, in their order or by their index. Got {labels!r}.")
    return [str(names.get(index, f"class {index}")) for index in range(count)]


def _class_row(name: str, index: int, logits: Tensor, config: Any) -> dict[str, Any]:
    """Return the name of a class with its probability or, where there is no other class, its logit."""
    is_multi_label = getattr(config, "problem_type", None) == "multi_label_classification"
    if len(logits) == 1 and not is_multi_label:
        return {"name": name, "score": f"logit {number_text(float(logits[index]))}", "share": 0}
    share = float((logits.sigmoid() if is_multi_label else logits.softmax(-1))[index])
    return {"name": name, "score": percent_text(share, ".3g"), "share": round(share, 4)}
