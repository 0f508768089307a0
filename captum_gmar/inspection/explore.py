"""Looking at one image in Jupyter: choose class, method and patch, or layer and head, and see the map drawn anew."""

import inspect
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from html import escape
from importlib import import_module
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.catalogue import METHODS, OURS, MethodFactory
from captum_gmar.attr.gmar import GMARAttribution
from captum_gmar.attr.patch_relevance import FAILURES, PATCHWISE, images_at_once, relevance_of
from captum_gmar.engine.attention.record import record_attention
from captum_gmar.engine.models.patch_grid import Logits, config_of, patch_grid
from captum_gmar.engine.request import pixel_values
from captum_gmar.visualization._heatmap import Pixels
from captum_gmar.visualization._style import number_text, percent_text
from captum_gmar.visualization.attribution import visualize_attribution
from captum_gmar.visualization.heads import visualize_head_attention
from captum_gmar.visualization.tokens import visualize_token_interaction

RELEVANCE, ATTENTION = "relevance", "attention of heads"
ALL_HEADS = "all"
SCREEN_DOTS_PER_INCH = 90  # of a page
SHARP = 2  # dots of the picture for each of these, as screens of phones and laptops have


def explore(
    model: nn.Module,
    inputs: Tensor,
    image: Pixels,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    methods: Mapping[str, MethodFactory] | None = None,
) -> "Explorer":
    """
    Controls for looking at one image in Jupyter, with a picture below that follows them.

    "relevance" draws a method's map for a class, seen from where the classifier reads or, with "from patch", from the
    patch of that row and column. "attention of heads" draws where the heads of a layer look, from that patch, or else
    from the first token, or in models without prefix tokens from the mean of the patches. Controls that do nothing for
    what is chosen are grey. Where a method cannot do what is chosen, what it says stands in place of the picture.

    Args:
        model (nn.Module): A vision transformer. Heads are looked at through
            :func:`~captum_gmar.record_attention`, which takes Hugging Face models.
        inputs (Tensor): Pixel values (1, channels, height, width), as the model takes them.
        image (Tensor, numpy.ndarray or PIL.Image.Image): The same to look at, as
            :func:`~captum_gmar.visualize_attribution` takes it.
        labels (sequence or dict, optional): The names of the classes, by their index.
            Default: None, those of ``model.config.id2label``, or their numbers
        methods (dict, optional): From names to callables that make a method of the model, as
            the classes of methods are.
            Default: None, this package's own

    Returns:
        Explorer: What the last line of a cell shows. Its ``controls`` are the widgets by name, its ``picture`` holds
        the PNG, its ``message`` what went wrong, and its ``draw()`` returns the picture as a figure.

    Raises:
        ImportError: if ipywidgets is not installed.
        ValueError: if the inputs are not one image.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.inspection.explore import explore
        >>> scene = load_scene(3)
        >>> explorer = explore(load_model(), scene.pixel_values, scene.image)  # doctest: +SKIP
        >>> explorer.controls["method"].value = "gradient-rollout"  # doctest: +SKIP
    """
    ours = {name: METHODS[name].load() for name in OURS}
    return Explorer(model, inputs, image, labels, ours if methods is None else methods)


class Explorer:
    """See :func:`explore`."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        image: Pixels,
        labels: Sequence[str] | Mapping[int, str] | None,
        methods: Mapping[str, MethodFactory],
    ) -> None:
        widgets = _ipywidgets()
        if len(pixel_values(inputs)) != 1:
            raise ValueError(f"inputs must be one image, (1, channels, height, width). Got {len(inputs)} instead.")
        self.model, self.inputs, self.image, self.methods = model, inputs, image, methods
        self.recorded = lru_cache(maxsize=1)(partial(record_attention, model, inputs))
        self.names = getattr(config_of(model), "id2label", None) if labels is None else labels
        self.logits = Logits(model)(inputs).detach()[0]
        self.controls: dict[str, Any] = self._controls(widgets)
        self.message, self.picture = widgets.HTML(), widgets.Image(format="png", layout={"max_width": "100%"})
        for control in self.controls.values():
            control.observe(lambda change: self.redraw(), names="value")
        choices = widgets.Box(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        self.widget = widgets.VBox([choices, self.message, self.picture])
        self.redraw()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget for Jupyter, and the picture for pages that have no kernel."""
        png = bytes(self.picture.value)
        still = {"image/png": b64encode(png).decode()} if png else {}
        return {**self.widget._repr_mimebundle_(**options), **still}

    def redraw(self) -> None:
        """Draws what is chosen, or says why that cannot be."""
        idle = self._idle()
        for name, control in self.controls.items():
            control.disabled = name in idle
        try:
            figure = self.draw()
        except FAILURES as error:
            self.message.value, self.picture.value, self.picture.layout.display = escape(str(error)), b"", "none"
            return
        png = BytesIO()
        figure.savefig(png, format="png", dpi=SHARP * SCREEN_DOTS_PER_INCH)
        self.picture.width = str(round(figure.get_figwidth() * SCREEN_DOTS_PER_INCH))
        self.message.value, self.picture.value, self.picture.layout.display = "", png.getvalue(), None

    def draw(self) -> Figure:
        """What is chosen, as a figure."""
        chosen = {name: control.value for name, control in self.controls.items()}
        patch = (chosen["row"], chosen["column"]) if chosen["from patch"] else None
        if chosen["view"] == RELEVANCE:
            return self._draw_relevance(chosen["method"], chosen["class"], patch)
        layer, head = chosen["layer"], chosen["head"]
        attention = self._attention(chosen["class"], layer, patch)
        if head != ALL_HEADS:
            return self._draw_head(attention[head], patch, f"layer {layer}, head {head}")
        importance = GMARAttribution(self.model).head_importance(self.inputs, chosen["class"])[0, layer]
        title = f"layer {layer}, weights for {self._class_text(chosen['class'])}"
        options: dict[str, Any] = {"patch": patch, "title": title, "use_pyplot": False}
        return visualize_head_attention(attention, self.image, importance, **options)[0]

    def _idle(self) -> set[str]:
        """The controls that do nothing for what is chosen."""
        values = {name: control.value for name, control in self.controls.items()}
        idle = set() if values["from patch"] else {"row", "column"}
        if values["view"] == RELEVANCE:
            return idle | {"layer", "head"}
        return idle | ({"method"} if values["head"] == ALL_HEADS else {"method", "class"})

    def _class_text(self, index: int) -> str:
        """A class, and its probability or, where there is no other, its logit."""
        name = self.names[index] if self.names else f"class {index}"
        is_multi_label = getattr(config_of(self.model), "problem_type", None) == "multi_label_classification"
        if len(self.logits) == 1 and not is_multi_label:
            return f"{name} (logit {number_text(float(self.logits[index]))})"
        probabilities = self.logits.sigmoid() if is_multi_label else self.logits.softmax(-1)
        return f"{name} ({percent_text(float(probabilities[index]), '.3g')})"

    def _controls(self, widgets: Any) -> dict[str, Any]:
        best_first = self.logits.argsort(descending=True).tolist()
        _, layers, heads = GMARAttribution(self.model).head_importance(self.inputs, best_first[0]).shape
        grid = patch_grid(self.model, *self.inputs.shape[-2:])
        choices = {
            "class": [(self._class_text(index), index) for index in best_first],
            "view": [RELEVANCE, ATTENTION],
            "method": list(self.methods),
            "layer": list(range(layers)),
            "head": [ALL_HEADS, *range(heads)],
        }
        controls = {name: widgets.Dropdown(description=name, options=options) for name, options in choices.items()}
        controls["from patch"] = widgets.Checkbox(description="from patch")
        for name, count in (("row", grid.rows), ("column", grid.columns)):
            controls[name] = widgets.IntSlider(description=name, max=count - 1, continuous_update=False)
        return controls

    def _draw_relevance(self, name: str, target: int, patch: tuple[int, int] | None) -> Figure:
        relevance, entry = self._relevance(name, target, patch), METHODS.get(name)
        title = f"{self._class_text(target)}, explained by {name}"
        if entry is None:
            return self._map(relevance, patch, title)
        label = entry.label if relevance.dim() == 2 else None  # of patches, not of pixels
        return self._map(100 * relevance if entry.share else relevance, patch, title, label, entry.caveat)

    def _relevance(self, name: str, target: int, patch: tuple[int, int] | None) -> Tensor:
        make = self.methods[name]
        if patch is not None and "tokens" not in inspect.signature(make).parameters:
            raise ValueError(f"{name} cannot be seen from a patch: it takes no tokens.")
        method = make(self.model) if patch is None else make(self.model, tokens=patch)
        if name in OURS or isinstance(method, (AttentionAttribution, *PATCHWISE)):
            batch_size = images_at_once(self.inputs.device)
            return relevance_of(method, self.model, self.inputs, target, batch_size=batch_size)[0]
        attributions: Tensor = method.attribute(self.inputs, target=target)[0]
        return attributions

    def _attention(self, target: int, layer: int, patch: tuple[int, int] | None) -> Tensor:
        """(heads, rows, columns) from the patch, from token 0, or in models without prefix tokens the patches' mean."""
        attention = self.recorded(target).attention[layer][0]  # (H, T, T)
        grid = patch_grid(self.model, *self.inputs.shape[-2:])
        prefix = attention.shape[-1] - grid.patches
        if patch is not None:
            row = attention[:, prefix + patch[0] * grid.columns + patch[1]]
        else:
            row = attention[:, 0] if prefix else attention.mean(1)
        return row[:, prefix:].reshape(-1, grid.rows, grid.columns)

    def _draw_head(self, attention: Tensor, patch: tuple[int, int] | None, title: str) -> Figure:
        figure = self._map(attention, patch, title, "attention")
        figure.axes[1].title.set_text("attention")  # it is no relevance
        return figure

    def _map(
        self,
        values: Tensor,
        patch: tuple[int, int] | None,
        title: str,
        label: str | None = None,
        note: str | None = None,
    ) -> Figure:
        options: dict[str, Any] = {"label": label, "title": title, "note": note, "use_pyplot": False}
        if patch is None:
            return visualize_attribution(values, self.image, **options)[0]
        return visualize_token_interaction(values, self.image, patch, **options)[0]


def _ipywidgets() -> Any:
    try:
        return import_module("ipywidgets")
    except ImportError as error:
        raise ImportError(
            "explore needs ipywidgets, which is not installed. In a clone of the repository: "
            'pip install -e ".[notebook]"'
        ) from error
