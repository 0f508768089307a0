"""The page of ``captum-gmar app``, in Gradio: its events, and its server."""

import os
import re
import signal
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from captum_gmar.attr.catalogue import GMAR, METHODS
from captum_gmar.classifier import Classifier
from captum_gmar.cli.app.answers import (
    MOST_BYTES,
    SMALL_PHOTO,
    AppQuestion,
    explain_methods,
    explain_patch,
    measure_methods,
    rank_classes,
    read_upload,
    scene_image,
    view_of_model,
)
from captum_gmar.cli.app.layout import MAPS, NOTHING_YET, STALE_MAPS, STYLE, Form, Reply, lay_out
from captum_gmar.cli.sources import open_source
from captum_gmar.cli.terminal import CommandError, one_line
from captum_gmar.files.writing import save_arrays, save_picture

NO_IMAGE = "there must be an image, but got none yet. Drop a photo, or take the scene."
NO_OTHER_CLASS = "– no other class –"
KEPT_SECONDS = 600  # uploads and pictures, before they are deleted
WARNING = "⚠ "
Load = Callable[[str], Classifier]


def serve(model: str | None, size: int | None, device: str, host: str, port: int | None) -> None:
    """Serve the page at this address, and print the address, until it is interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt: uploads are deleted then as well
    with tempfile.TemporaryDirectory(prefix="captum-gmar-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads, which go with it
        page = make_page(model, size, device)
        page.queue(max_size=16, default_concurrency_limit=1).launch(
            **launch_options(), server_name=host, server_port=port
        )


def launch_options() -> dict[str, Any]:
    """Return Gradio's options: nothing from a network, no upload beyond the limit, no trace of errors."""
    gradio = _gradio()
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    shown = {"theme": theme, "css": STYLE, "footer_links": []}
    return {**shown, "max_file_size": MOST_BYTES, "show_error": False, "share": False}


def make_page(model: str | None = None, size: int | None = None, device: str = "auto") -> Any:
    """Return the page, a ``gradio.Blocks``: by ``.launch(**launch_options())`` a Space of the Hugging Face hub."""
    gradio = _gradio()
    load = _loader(size, device)
    load(model or "")  # an error before there is a page
    with gradio.Blocks(title="captum_gmar", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        form, reply = lay_out(gradio, model or "")
        _connect_images(gradio, form, reply, load)
        _connect_maps(gradio, form, reply, load)
        _connect_patches(gradio, form, reply, load)
    return page


def _connect_images(gradio: Any, form: Form, reply: Reply, load: Load) -> None:
    """Show a photo or a scene, and the classes of the model to choose from."""
    show = partial(_classes_of, gradio, form, reply, load)

    @_report_errors(reply.status)
    def drop(path: str | None, model: str) -> dict[Any, Any]:
        return show(read_upload(Path(path)), model) if path else {reply.status: NOTHING_YET}

    @_report_errors(reply.status)
    def take_scene(number: float | None, model: str) -> dict[Any, Any]:
        if number is None:
            raise ValueError("the number of a scene must be a number from 0 on, but got none.")
        return show(scene_image(int(number)), model)

    @_report_errors(reply.status)
    def change_model(image: Any, model: str) -> dict[Any, Any]:
        load(model)
        return show(image, model) if image is not None else {reply.status: "Loaded."}

    shown = [form.image, form.thumbnail, form.target, form.contrast, *reply]
    form.upload.upload(drop, [form.upload, form.model], shown)
    form.take_scene.click(take_scene, [form.seed, form.model], shown)
    form.model.submit(change_model, [form.image, form.model], shown)


def _classes_of(gradio: Any, form: Form, reply: Reply, load: Load, image: Any, model: str) -> dict[Any, Any]:
    """Return the image with the model's classes, the likeliest first, and nothing of the image before it."""
    classifier = load(model)
    classes = rank_classes(classifier, image)
    choices = [(text if share is None else f"{text}, {share:.1%}", index) for text, index, share in classes]
    shown = partial(gradio.update, visible=True)
    return {
        **dict.fromkeys(
            (reply.maps, reply.measured, reply.files, reply.patch), gradio.update(value=None, visible=False)
        ),
        **dict.fromkeys((reply.table, reply.drawn)),
        form.image: image,
        form.thumbnail: shown(value=ImageOps.contain(image, (SMALL_PHOTO, SMALL_PHOTO))),
        form.target: gradio.Dropdown(choices=choices, value=choices[0][1]),
        form.contrast: gradio.Dropdown(choices=[(NO_OTHER_CLASS, -1), *choices], value=-1),
        reply.photo: shown(value=view_of_model(classifier, image)),
        reply.status: f"The model says: {as_text(choices[0][0])}. Press Explain to see why.",
    }


def _connect_maps(gradio: Any, form: Form, reply: Reply, load: Load) -> None:
    """Answer the button with maps at once, then with what they are worth; mark the maps when the question changes."""
    shown = partial(gradio.update, visible=True)

    @_report_errors(reply.status)
    def ask(image: Any, model: str, target: int, contrast: int | None, names: list[str]) -> dict[Any, Any]:
        if image is None:
            raise ValueError(NO_IMAGE)
        question = AppQuestion(target, None if contrast in (None, -1) else contrast, names)
        maps = explain_methods(load(model), image, question)
        picture = _save_shown(maps.figure, "maps.png")
        arrays = picture.with_suffix(".npz")
        save_arrays(arrays, {name: relevance.numpy(force=True) for name, relevance in maps.relevance.items()})
        return {
            reply.maps: shown(value=str(picture), label=MAPS, elem_classes=[]),
            reply.measured: gradio.update(value=None, visible=False),
            reply.table: "Measuring how faithful each map is …",
            reply.files: shown(value=[str(picture), str(arrays)]),
            reply.drawn: (question, maps.panels, str(picture)),  # the path differs each time
            reply.status: as_text(maps.sentence),
        }

    @_report_errors(reply.table)
    def measure(image: Any, model: str, drawn: Any) -> dict[Any, Any]:
        if drawn is None:
            return {reply.table: ""}
        figure, table = measure_methods(load(model), image, drawn[0])
        return {reply.measured: shown(value=str(_save_shown(figure, "measured.png"))), reply.table: table}

    def mark(drawn: Any) -> Any:
        return gradio.update() if drawn is None else gradio.update(label=STALE_MAPS, elem_classes=["stale"])

    asked = [form.target, form.contrast, form.methods]
    answered = [reply.maps, reply.measured, reply.table, reply.files, reply.drawn, reply.status]
    form.explain.click(ask, [form.image, form.model, *asked], answered)
    reply.drawn.change(measure, [form.image, form.model, reply.drawn], [reply.measured, reply.table])
    for component in asked:
        component.input(mark, [reply.drawn], [reply.maps], show_progress="hidden")


def _connect_patches(gradio: Any, form: Form, reply: Reply, load: Load) -> None:
    """Answer a click on a map or on the photo with what fed the patch below it."""

    def show(image: Any, model: str, target: int, place: tuple[float, float], name: str) -> dict[Any, Any]:
        picture = _save_shown(explain_patch(load(model), image, target, place, name), "patch.png")
        return {reply.patch: gradio.update(value=str(picture), visible=True)}

    @_report_errors(reply.status)
    def click_map(image: Any, model: str, drawn: Any, event: gradio.SelectData) -> dict[Any, Any]:
        question, panels, picture = drawn
        with Image.open(picture) as opened:
            x, y = event.index[0] / opened.width, event.index[1] / opened.height
        places = [(panel.method, place) for panel in panels if (place := panel.find(x, y))]
        if not places:
            return {reply.patch: gradio.update()}
        return show(image, model, question.target, places[0][1], places[0][0])

    @_report_errors(reply.status)
    def click_photo(image: Any, model: str, target: int, names: list[str], event: gradio.SelectData) -> dict[Any, Any]:
        if image is None:
            raise ValueError(NO_IMAGE)
        width, height = view_of_model(load(model), image).size
        patch_methods = [name for name in names if METHODS[name].takes_tokens]
        name = patch_methods[0] if patch_methods else GMAR
        return show(image, model, target, (event.index[0] / width, event.index[1] / height), name)

    reply.maps.select(click_map, [form.image, form.model, reply.drawn], [reply.patch, reply.status])
    inputs = [form.image, form.model, form.target, form.methods]
    reply.photo.select(click_photo, inputs, [reply.patch, reply.status])


def _save_shown(figure: Figure, name: str) -> Path:
    """Save the figure in a folder of its own among the uploads, where Gradio deletes what it has shown."""
    uploads = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio"))
    uploads.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=uploads)) / name
    save_picture(figure, path)
    return path


def _report_errors(status: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a reply so that an error is a line on the page, and nothing else of the page changes."""

    def decorate(reply: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(reply)
        def reply_or_error(*args: Any, **kwargs: Any) -> Any:
            try:
                return reply(*args, **kwargs)
            except torch.OutOfMemoryError:
                return {status: f"{WARNING}out of memory: take fewer methods, or a smaller model"}
            except Exception as error:  # whatever it is, the page stays
                return {status: WARNING + as_text(one_line(error))}

        return reply_or_error

    return decorate


def as_text(line: str) -> str:
    """Return the line for Markdown to show as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~&])", r"\\\1", line)


def _loader(size: int | None, device: str) -> Load:
    """Return a loader of models by name, the built-in one of no name; it keeps the last two."""

    @lru_cache(maxsize=2)
    def load(name: str) -> Classifier:
        return open_source(name.strip() or None, size, device).classifier

    return load


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when it is imported
    try:
        import gradio
    except ImportError as error:
        raise CommandError(
            'app needs Gradio, but it is not installed. Run pip install -c constraints-app.txt -e ".[app]" in a clone.'
        ) from error
    return gradio
