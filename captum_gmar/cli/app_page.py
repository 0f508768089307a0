"""The page of ``captum-gmar app``, in Gradio: what stands where, and what asks which answer."""

import os
import tempfile
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import torch

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.classifier import Classifier
from captum_gmar.cli.app_answers import MOST_BYTES, answer, fed, likely, read_upload, scene_image
from captum_gmar.cli.sources import open_source
from captum_gmar.cli.terminal import CommandError, one_line
from captum_gmar.files.writing import save_arrays, save_picture

CHOSEN = ("attention-evidence", "gmar-l1", "rollout")
FIRST_SCENE = 600_025
NO_OTHER_CLASS = "– no other class –"
KEPT_SECONDS = 600  # uploads and pictures, before they are deleted
WARNING = "⚠ "


def serve(model: str | None, size: int | None, device: str, host: str, port: int | None) -> None:
    """Shows the page at this address, and the address, until it is interrupted."""
    with tempfile.TemporaryDirectory(prefix="captum-gmar-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads, which go with it
        page = make_page(model, size, device)
        page.queue(max_size=16, default_concurrency_limit=1).launch(**launching(), server_name=host, server_port=port)


def launching() -> dict[str, Any]:
    """What Gradio is told: nothing from a network, no upload beyond the limit, no trace of errors."""
    gradio = _gradio()
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {"theme": theme, "max_file_size": MOST_BYTES, "show_error": False, "share": False, "footer_links": []}


def make_page(model: str | None = None, size: int | None = None, device: str = "auto") -> Any:
    """The page, a ``gradio.Blocks``: ``make_page().launch(**launching())`` is a Space of the Hugging Face hub.

    Raises:
        CommandError: if Gradio is not installed.
        OSError, ValueError: if the model cannot be had.
    """
    gradio = _gradio()
    open_model = _opener(size, device)
    open_model(model or "")  # an error before there is a page
    with gradio.Blocks(title="captum_gmar", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gradio.Markdown("# Which patches fed this prediction?")
        image = gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                upload = gradio.File(label="Drop a photo", file_count="single", type="filepath", elem_id="upload")
                seed = gradio.Number(
                    FIRST_SCENE, label="… or the built-in scene of this number", precision=0, elem_id="seed"
                )
                take = gradio.Button("Take the scene", elem_id="scene")
                name = gradio.Textbox(
                    model or "", label="Model: a name or folder; empty for the built-in", elem_id="model"
                )
                target = gradio.Dropdown([], label="Class", elem_id="target")
                contrast = gradio.Dropdown([], label="Rather than", elem_id="contrast")
                methods = gradio.CheckboxGroup(list(METHODS), value=list(CHOSEN), label="Methods", elem_id="methods")
                explain = gradio.Button("Explain", variant="primary", elem_id="explain")
            with gradio.Column(scale=3, min_width=320):
                status = gradio.Markdown("Drop a photo, or take the scene.", elem_id="status")
                maps = gradio.Image(label="Maps", interactive=False, format="png", elem_id="maps")
                table = gradio.Markdown(elem_id="table")
                files = gradio.File(
                    label="Picture and arrays", interactive=False, file_count="multiple", elem_id="files"
                )
                photo = gradio.Image(
                    label="The photo: click a patch to see what fed it", interactive=False, type="pil", elem_id="photo"
                )
                patch = gradio.Image(
                    label="What fed it", interactive=False, type="filepath", format="png", elem_id="patch"
                )

        def show(picture: Any, model_name: str) -> dict[Any, Any]:
            classes = likely(open_model(model_name), picture)
            choices = [(text if share is None else f"{text}, {share:.1%}", index) for text, index, share in classes]
            first = choices[0][1]
            return {
                image: picture,
                photo: picture,
                target: gradio.Dropdown(choices=choices, value=first),
                contrast: gradio.Dropdown(choices=[(NO_OTHER_CLASS, -1), *choices], value=-1),
                status: f"The model says: {choices[0][0]}.",
            }

        @_told(status)
        def drop(path: str | None, model_name: str) -> dict[Any, Any]:
            return show(read_upload(Path(path)), model_name) if path else {status: "Drop a photo, or take the scene."}

        @_told(status)
        def take_scene(number: float, model_name: str) -> dict[Any, Any]:
            return show(scene_image(int(number)), model_name)

        @_told(status)
        def change_model(picture: Any, model_name: str) -> dict[Any, Any]:
            return (
                show(picture, model_name)
                if picture is not None
                else {status: f"{open_model(model_name) and 'Loaded.'}"}
            )

        @_told(status)
        def ask(
            picture: Any,
            model_name: str,
            index: int,
            other: int,
            names: list[str],
            progress: Any = gradio.Progress(),  # noqa: B008
        ) -> dict[Any, Any]:
            if picture is None:
                raise ValueError("there must be an image. Got none yet: drop a photo, or take the scene.")
            held = None if other in (None, -1) else other
            progress(0.0, "making maps")
            given = answer(open_model(model_name), picture, index, held, names, lambda *step: progress(*step))
            folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
            save_picture(given.figure, folder / "maps.png")
            save_arrays(folder / "maps.npz", {each: map.cpu().numpy() for each, map in given.relevance.items()})
            places = [str(folder / each) for each in ("maps.png", "maps.npz")]
            return {maps: places[0], table: given.table, files: places, status: "Done."}

        @_told(status)
        def click(
            picture: Any,
            model_name: str,
            index: int,
            event: gradio.SelectData,  # type: ignore[name-defined]
        ) -> dict[Any, Any]:
            width, height = picture.size
            figure = fed(open_model(model_name), picture, index, (event.index[0] / width, event.index[1] / height))
            folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
            save_picture(figure, folder / "patch.png")
            return {patch: str(folder / "patch.png"), status: "Done."}

        shown = [image, photo, target, contrast, status]
        upload.upload(drop, [upload, name], shown)
        take.click(take_scene, [seed, name], shown)
        name.submit(change_model, [image, name], shown)
        explain.click(ask, [image, name, target, contrast, methods], [maps, table, files, status])
        photo.select(click, [image, name, target], [patch, status])
    return page


def _told(status: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Every error is a line on the page, and nothing else of the page changes."""

    def decorate(asked: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(asked)
        def answered(*args: Any, **kwargs: Any) -> Any:
            try:
                return asked(*args, **kwargs)
            except torch.OutOfMemoryError:
                return {status: f"{WARNING}out of memory: take fewer methods, or a smaller model"}
            except Exception as error:  # whatever it is, the page stays
                return {status: WARNING + one_line(error)}

        return answered

    return decorate


def _opener(size: int | None, device: str) -> Callable[[str], Classifier]:
    """Loads a model of a name, the built-in one of none; the last two are kept."""

    @lru_cache(maxsize=2)
    def open_model(name: str) -> Classifier:
        return open_source(name.strip() or None, size, device).classifier

    return open_model


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when it is imported
    try:
        import gradio
    except ImportError as error:
        raise CommandError('app needs Gradio, which is not installed. In a clone: pip install -e ".[app]"') from error
    return gradio
