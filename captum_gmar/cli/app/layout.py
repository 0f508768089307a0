"""The layout of the page of ``captum-gmar app``: the form on the left, the reply on the right."""

from functools import partial
from typing import Any, NamedTuple

from captum_gmar.attr.catalogue import EXPLAINED, METHODS
from captum_gmar.visualization._style import SIGNS

FIRST_SCENE = 600_025
STYLE = """
#table td, #table th { overflow-wrap: normal; word-break: normal; }
#table { overflow-x: auto; }
.stale img { opacity: .3; }
#maps label, #measured label, #patch label, #photo label { position: static; }
@media (max-width: 640px) {
    :is(#maps, #measured) :is(button, .image-container, .image-frame) { overflow-x: auto; justify-content: flex-start; }
    :is(#maps, #measured) img { width: 60rem; max-width: none; margin: 0; }
}
"""
NOTHING_YET = (
    "Drop a photo, or take the scene. Then choose a class and press Explain. Each method draws a map of the patches "
    f"that speak for the class or against it ({SIGNS}). Click a patch to see what fed it."
)
MAPS, STALE_MAPS = "Maps; click a patch to see what fed it", "Maps of what was asked before: press Explain"
CHOSEN = (*EXPLAINED, "gmar++", "rollout")


class Form(NamedTuple):
    """The components that ask, all of Gradio's."""

    image: Any  # kept for a visitor, not seen
    upload: Any
    thumbnail: Any
    seed: Any
    take_scene: Any
    model: Any
    target: Any
    contrast: Any
    methods: Any
    explain: Any


class Reply(NamedTuple):
    """The components that tell, all of Gradio's."""

    status: Any
    maps: Any
    patch: Any
    measured: Any
    table: Any
    files: Any
    photo: Any
    drawn: Any  # the question that the maps answer and their places, kept for a visitor, not seen


def lay_out(gradio: Any, model: str) -> tuple[Form, Reply]:
    """Put all components on the page that is being made; ``model`` is in its field."""
    gradio.Markdown("# Which patches fed this prediction?")
    with gradio.Row():
        with gradio.Column(scale=1, min_width=280):
            form = _form(gradio, model)
        with gradio.Column(scale=3, min_width=320):
            reply = _reply(gradio)
    return form, reply


def _form(gradio: Any, model: str) -> Form:
    named = "Model: a name or folder; empty for the built-in"
    return Form(
        image=gradio.State(None),
        upload=gradio.File(label="Drop a photo", file_count="single", type="filepath", elem_id="upload"),
        thumbnail=gradio.Image(label="Photo", interactive=False, height=180, visible=False, elem_id="thumbnail"),
        seed=gradio.Number(FIRST_SCENE, label="… or the built-in scene of this number", precision=0, elem_id="seed"),
        take_scene=gradio.Button("Take the scene", elem_id="scene"),
        model=gradio.Textbox(model, label=named, elem_id="model"),
        target=gradio.Dropdown([], label="Class", elem_id="target"),
        contrast=gradio.Dropdown([], label="Rather than", elem_id="contrast"),
        methods=gradio.Dropdown(
            list(METHODS), value=list(CHOSEN), multiselect=True, label="Methods", elem_id="methods"
        ),
        explain=gradio.Button("Explain", variant="primary", elem_id="explain"),
    )


def _reply(gradio: Any) -> Reply:
    picture = partial(gradio.Image, interactive=False, format="png", buttons=["download", "fullscreen"], visible=False)
    return Reply(
        status=gradio.Markdown(NOTHING_YET, elem_id="status"),
        maps=picture(label=MAPS, elem_id="maps"),
        patch=picture(label="What fed the patch", elem_id="patch"),
        measured=picture(label="How faithful each map is", elem_id="measured"),
        table=gradio.Markdown(elem_id="table"),
        files=gradio.File(
            label="Picture and arrays", interactive=False, file_count="multiple", elem_id="files", visible=False
        ),
        photo=picture(label="What the model sees; click a patch to see what fed it", elem_id="photo"),
        drawn=gradio.State(None),
    )
