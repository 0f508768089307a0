"""The work of ``captum-gmar explain`` on models that detect, segment, classify videos or sounds, or answer in words."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED
from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.attr.token_evidence import TokenEvidence
from captum_gmar.classifier import Classifier, find_class, find_object, find_region
from captum_gmar.classifier.loading import quiet
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.classifier.recordings import FRAME, load_sound, load_video
from captum_gmar.cli.explain_settings import PromptSettings, TaskSettings
from captum_gmar.cli.image_report import claim, most_likely_lines, seen_lines, seen_sound_lines, share_text
from captum_gmar.cli.paths import PictureFile
from captum_gmar.cli.terminal import print_text, report
from captum_gmar.files.images import read_image
from captum_gmar.files.names import readable_name
from captum_gmar.files.videos import save_film
from captum_gmar.files.writing import save_picture, write_page
from captum_gmar.inspection._html import model_name
from captum_gmar.inspection.answer_page import AnswerPage
from captum_gmar.visualization import compose_film, visualize_attribution, visualize_spectrogram, visualize_video
from captum_gmar.vlm.evidence import AnswerEvidence

METHOD = METHODS[RECOMMENDED]
SECONDS_A_WORD = 0.7  # of a film of an answer
METHOD_LINE = f"  method     {METHOD.name}"
Save: TypeAlias = Callable[[PictureFile], None]
Explained: TypeAlias = tuple[list[str], Save]
"""The printed lines of an input, and the function that writes its picture."""


def explain_inputs(explain: Callable[[Path], Explained], pictures: Mapping[Path, PictureFile]) -> tuple[int, int]:
    """Explain each input and write its file; return how many were explained and how many failed."""
    failed = 0
    for path, picture in pictures.items():
        try:
            lines, save = explain(path)
            picture.path.parent.mkdir(parents=True, exist_ok=True)
            save(picture)
        except OSError as error:
            failed += 1
            report(error)
        except FAILURES as error:
            failed += 1
            report(f"{readable_name(path)}: {error}")
        else:
            print_text("\n".join([readable_name(path), *lines, f"  {picture.kind:<9}  {readable_name(picture.path)}"]))
    return len(pictures) - failed, failed


def _explain_objects(detector: Classifier, path: Path, settings: TaskSettings) -> Explained:
    image, label = read_image(path), _class_of(settings.target, detector)
    detected = find_object(detector, image, label=label, box=settings.box, threshold=settings.threshold)
    detection = detected.detection
    evidence = TokenEvidence(detector.model, forward_func=detected.logits)
    relevance = evidence.relevance(detected.pixels, target=detection.target)
    name = f"{detector.labels[detection.label]} (class {detection.label})"
    what = f"{name}, probability {100 * detection.probability:.1f}%"
    corners = ", ".join(f"{corner:.0f}" for corner in detection.box)
    lines = [f"  explained  {what}", f"  query      {detection.query}, which sees it in the box {corners}"]
    view, title = detector.view(image, detected.pixels[0]), f"{what}, query {detection.query}"
    save = _map_saver(view, relevance, _picture_texts(path, title), box=detection.box)
    return [*lines, *seen_lines(detector, image), METHOD_LINE], save


def _explain_region(segmenter: Classifier, path: Path, settings: TaskSettings) -> Explained:
    image, label = read_image(path), _class_of(settings.target, segmenter)
    mask = None if settings.mask is None else read_image(settings.mask, keeps_mode=True)
    region = find_region(segmenter, image, label=label, mask=mask, point=settings.point)
    relevance = TokenEvidence(segmenter.model, forward_func=region.mean_logit).relevance(region.pixels)
    what = f"{segmenter.labels[region.label]} (class {region.label})"
    where = f"over {share_text(float(region.region.float().mean()))} of the image"
    view = segmenter.view(image, region.pixels[0])
    save = _map_saver(view, relevance, _picture_texts(path, f"{what}, {where}"), region=region.region)
    return [f"  explained  {what}, its mean logit {where}", *seen_lines(segmenter, image), METHOD_LINE], save


def _map_saver(view: PhotoView, relevance: Tensor, texts: dict[str, Any], **outline: Any) -> Save:
    def save(picture: PictureFile) -> None:
        figure, _ = visualize_attribution(100 * relevance[0], view.photo, crop=view.crop, **texts, **outline)
        save_picture(figure, *picture)

    return save


def _explain_video(classifier: Classifier, path: Path, settings: TaskSettings) -> Explained:
    clip, pixels = load_video(classifier, path)
    lines, what, relevance = _explain_class(classifier, pixels, settings)
    crop = classifier.view(clip.frames[0], pixels[0, 0]).crop
    frames = [classifier.photo(frame) for frame in pixels[0]] if crop is None else clip.frames
    count = len(clip.frames)
    if count < clip.frame_count:
        lines.append(f"  seen       {count} of {clip.frame_count} frames, evenly apart")

    def save(picture: PictureFile) -> None:
        if picture.kind == "film":
            moments = [f"{number * clip.seconds:.1f} of {count * clip.seconds:.1f} s" for number in range(count)]
            label = _picture_texts(path, what, "tube")["label"]
            said = [what] * len(relevance)
            film = compose_film(100 * relevance, frames, said, moments=moments, label=label, crop=crop)
            save_film(film, picture.path, clip.seconds, picture.note)
        else:
            figure, _ = visualize_video(100 * relevance, frames, crop=crop, **_picture_texts(path, what, "tube"))
            save_picture(figure, *picture)

    return [*lines, *seen_lines(classifier, clip.frames[0])], save


def _explain_sound(classifier: Classifier, path: Path, settings: TaskSettings) -> Explained:
    sound, spectrogram, seconds = load_sound(classifier, path)
    lines, what, relevance = _explain_class(classifier, spectrogram, settings)
    rate = classifier.processor.sampling_rate
    lines += seen_sound_lines(sound, seconds)

    def save(picture: PictureFile) -> None:
        axes = {"sampling_rate": rate, "seconds": FRAME}
        figure, _ = visualize_spectrogram(100 * relevance, spectrogram[0], **axes, **_picture_texts(path, what))
        save_picture(figure, *picture)

    return lines, save


def _explain_class(classifier: Classifier, inputs: Tensor, settings: TaskSettings) -> tuple[list[str], str, Tensor]:
    """Return the lines about a class, its name with its score, and the relevance of one input's places."""
    contrast = _class_of(settings.contrast, classifier, "contrast")
    target = _class_of(settings.target, classifier)

    def choose(logits: Tensor) -> Tensor:
        chosen = int(logits.argmax()) if target is None else target
        if target is None and chosen == contrast:
            raise ValueError("its most likely class must differ from --contrast, but is the same. Pass --target.")
        return torch.tensor([[chosen]])

    maps = TokenEvidence(classifier.model).explain(inputs, choose, contrast=contrast)
    logits, chosen = maps.logits[0], int(maps.targets[0, 0])
    what = claim(logits, classifier, chosen)
    lines = [*most_likely_lines(logits, classifier), f"  explained  {what}"]
    if contrast is not None:
        lines.append(f"  contrast   {claim(logits, classifier, contrast)}")
        what = f"{what}, rather than {classifier.labels[contrast]}"
    return [*lines, METHOD_LINE], what, maps.relevance[0, 0]


def _class_of(name: str | None, classifier: Classifier, option: str = "target") -> int | None:
    return None if name is None else find_class(name, classifier.labels, option)


def _picture_texts(path: Path, what: str, unit: str = "place") -> dict[str, Any]:
    title = f"{readable_name(path.name)}: {what}, explained by {METHOD.name}"
    label = METHOD.label.replace("per patch", f"per {unit}")
    return {"title": title, "label": label, "note": METHOD.caveat, "use_pyplot": False}


def _explain_answer(
    source: tuple[AnswerEvidence, Callable[[Path], Image.Image] | None], path: Path, settings: PromptSettings
) -> Explained:
    """Ask the model about an image, or a sound where it reads no images, and explain every word."""
    evidence, read = source
    picture, sound = (read(path), None) if read else (None, path)
    with quiet():
        attribution = evidence.attribute(*settings, images=picture, sound=sound, with_gains=True)
    answer, contrast, heard = "".join(attribution.tokens).strip(), attribution.contrast, attribution.sound
    lines = [f"  answer     {answer}", *([] if contrast is None else [f"  contrast   {contrast}"])]
    if heard is not None:
        lines += seen_sound_lines(heard, len(heard.samples) / heard.sampling_rate)

    def save(file: PictureFile) -> None:
        if picture is not None and file.kind == "film":
            words = attribution.words()
            said = [" ".join(words.tokens[: count + 1]) for count in range(len(words.tokens))]
            maps, label = 100 * words.picture_relevance().float(), "share of the word's evidence per patch, %"
            film = compose_film(maps, picture, said, moments=words.tokens, label=label)
            save_film(film, file.path, SECONDS_A_WORD, file.note)
        else:
            page = AnswerPage(attribution, picture or (), settings.prompt, model_name(evidence.model))
            write_page(file.path, page.html, file.note)

    return lines, save


EXPLAIN: dict[str, Callable[[Any, Path, Any], Explained]] = {
    "DETECTION": _explain_objects,
    "SEGMENTATION": _explain_region,
    "VIDEO": _explain_video,
    "SOUND": _explain_sound,
    "SPEECH": _explain_answer,
    "PROMPT": _explain_answer,
}
