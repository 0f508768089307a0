"""Layouts of image tokens against models and processors that get numbered pictures."""

import string
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf
from answering import letter_tokenizer
from installed import HAS_TRANSFORMERS_5
from PIL import Image
from text_models import ANSWER, IMAGE_TOKEN, text_model

from captum_gmar import AnswerEvidence
from captum_gmar.vlm.decoder_pass import decoder_layers
from captum_gmar.vlm.image_tokens import PicturePrompt
from captum_gmar.vlm.layouts import picture_tokens
from captum_gmar.vlm.prompts import picture_sizes

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        *(("llava", [(4, 4), (4, 4)]), ("qwen2_vl", [(2, 3)]), ("pixtral", [(4, 6)]), ("mistral3", [(2, 3)])),
        *(("gemma3", [(2, 2)]), ("vit_gpt2", [(4, 4)]), ("git", [(4, 4)])),
        *(("florence2", [(2, 2)]), ("llava_next", [(8, 8)]), ("llava_onevision", [(8, 8)])),
        *(("internvl", [(2, 2), (2, 2)]), ("smolvlm", [(4, 6)]), ("idefics3", [(4, 6)])),
    ],
)
def test_grids_of_image_tokens(name, shapes):
    model, inputs = text_model(name)
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    assert [tuple(picture.columns.shape) for picture in result.pictures] == shapes
    assert [tuple(result.picture_relevance(i).shape[1:]) for i in range(len(shapes))] == shapes
    shares = result.shares()
    torch.testing.assert_close(sum(shares.values()), torch.ones(len(ANSWER), dtype=torch.float64))
    assert min(share.min() for share in shares.values()) >= 0
    if name == "llava":
        relevance = result.relevance[:, (inputs["input_ids"][0] == IMAGE_TOKEN).nonzero().flatten()]
        torch.testing.assert_close(torch.cat([result.picture_relevance(i).flatten(1) for i in range(2)], 1), relevance)
    assert result.answer_relevance.triu().abs().max() == 0


def token_places(model, inputs):
    """Return tile, row and column (S, 3) of each token of the decoder's sequence, else -1.

    A hook replaces the vision tower's features by these numbers, and another reads them from the decoder's input.
    """
    got = []
    inner = model.model
    connector = inner.connector if hasattr(inner, "connector") else inner.multi_modal_projector

    def number(module, args, output):
        side = int(output.shape[1] ** 0.5)
        tile, row, column = torch.meshgrid(*map(torch.arange, (len(output), side, side)), indexing="ij")
        numbered = torch.full_like(output, -1)
        numbered[..., :3] = torch.stack([tile, row, column], -1).flatten(1, 2)
        return numbered

    hooks = [
        connector.register_forward_hook(number),
        decoder_layers(model)[0].register_forward_pre_hook(lambda module, args: got.append(args[0][0, :, :3])),
    ]
    with torch.no_grad():
        model(**inputs, use_cache=False)
    for hook in hooks:
        hook.remove()
    return got[0].round().long()


@pytest.mark.parametrize(
    ("name", "size", "tokens", "tiles"),
    [
        ("llava_next", (64, 64), 16 + 64 + 8, (2, 2)),
        ("llava_next", (64, 40), 16 + 8 * 6 + 8, (2, 2)),
        ("llava_next", (20, 60), 16 + 2 * 8 + 2, (1, 2)),
        ("llava_onevision", (64, 64), 16 + 64 + 8, (2, 2)),
        ("llava_onevision", (60, 30), 16 + 8 * 4 + 8, (2, 1)),
        ("smolvlm", None, None, (2, 3)),
        ("idefics3", None, None, (2, 3)),
    ],
)
def test_tiles_are_put_together_to_the_picture(name, size, tokens, tiles):
    model, inputs = text_model(name)
    if size is not None:
        ids = torch.tensor([[1, 5, *[IMAGE_TOKEN] * tokens, 6]])
        inputs = {**inputs, "input_ids": ids, "image_sizes": torch.tensor([size])}
    (picture,) = AnswerEvidence(model).attribute(inputs, target=ANSWER).pictures
    places, side = token_places(model, inputs), picture.overview.shape[0]
    last = name in ("smolvlm", "idefics3")
    overview = tiles[0] * tiles[1] if last else 0
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    assert torch.equal(places[picture.overview], torch.stack([torch.full_like(row, overview), row, column], -1))
    tile, row, column = places[picture.columns].unbind(-1)
    tile = tile - int(not last)
    rows, columns = side * (tile // tiles[1]) + row, side * (tile % tiles[1]) + column
    first_row, first_column = (side * count - shown for count, shown in zip(tiles, tile.shape, strict=True))
    assert torch.equal(rows, (torch.arange(len(rows)) + first_row // 2)[:, None].expand_as(rows))
    assert torch.equal(columns, (torch.arange(columns.shape[1]) + first_column // 2).expand_as(columns))


TILE, CELL = 32, 16  # pixels


def lit(size, row, column):
    """Return a black picture (height, width) with a white cell."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255
    return Image.fromarray(pixels)


def brightest(tiles):
    """Return the tile of (tiles, 3, height, width) with the brightest cell, and the cell's row and column."""
    cells = tiles.mean(1).unfold(1, CELL, CELL).unfold(2, CELL, CELL).mean((-1, -2))
    side = cells.shape[-1]
    tile, cell = divmod(int(cells.argmax()), side * side)
    return tile, *divmod(cell, side)


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (32, 96), (64, 64), (32, 32)])
def test_internvl_s_layout_is_that_of_its_processor(size):
    processor = tf.GotOcr2ImageProcessor(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=6
    )
    rows, columns = (pixels // CELL for pixels in size)
    for row, column in ((0, 0), (rows - 1, columns // 2), (rows // 2, columns - 1)):
        picture = lit(size, row, column)
        pixels = processor(picture, return_tensors="pt")["pixel_values"]
        ids = torch.tensor([[1, *[IMAGE_TOKEN] * 4 * len(pixels), 5]])
        config = SimpleNamespace(model_type="internvl", image_token_id=IMAGE_TOKEN, image_seq_length=4)
        arguments = {"pixel_values": pixels, "input_ids": ids}
        prompt = PicturePrompt(SimpleNamespace(config=config), arguments, ids.shape[1], picture_sizes(picture))
        (tokens,) = picture_tokens(prompt)
        assert tokens.columns.shape == (rows, columns)
        tile, tile_row, tile_column = brightest(pixels[: len(pixels) - (len(pixels) > 1)])
        assert tokens.columns[row, column] == 1 + 4 * tile + 2 * tile_row + tile_column
        assert sorted(tokens.positions.tolist()) == list(range(1, 1 + 4 * len(pixels)))
        assert (picture_tokens(prompt._replace(sizes=None)) is None) == (len(pixels) > 1)


def tokenizer_with(*marks):
    """Return a tokenizer of letters and signs, with one token for each mark."""
    signs = ["<unk>", *string.ascii_letters, *string.digits, *string.punctuation, *" \n"]
    tokenizer = letter_tokenizer({sign: number for number, sign in enumerate(signs)}, pad_token="<unk>")
    tokenizer.add_tokens(list(marks), special_tokens=True)
    return tokenizer


def idefics_processor(name):
    """Return the processor of a model with tiles of 2 × 2 tokens, and its config."""
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
    tokenizer = tokenizer_with(*marks, *(f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)))
    for kind, mark in zip(("fake_image", "image", "global_image", "end_of_utterance"), marks, strict=True):
        setattr(tokenizer, f"{kind}_token", mark)
    tile = {"max_image_size": {"longest_edge": TILE}}
    images = getattr(tf, f"{name}ImageProcessor")(size={"longest_edge": 3 * TILE}, **tile)
    parts = {"image_processor": images, "tokenizer": tokenizer, "image_seq_len": 4}
    if name == "SmolVLM":
        for package in ("torchvision", "num2words"):
            pytest.importorskip(package)
        parts["video_processor"] = tf.SmolVLMVideoProcessor(size={"longest_edge": TILE}, num_frames=4, fps=2, **tile)
    vision = SimpleNamespace(image_size=TILE, patch_size=CELL // 2)
    ids = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "scale_factor": 2}
    return getattr(tf, f"{name}Processor")(**parts), SimpleNamespace(model_type="idefics3", vision_config=vision, **ids)


def qwen_processor(name):
    """Return the processor of a model with tokens of 2 × 2 patches, and its config."""
    pytest.importorskip("torchvision")
    tokenizer = tokenizer_with("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    sizes = {"patch_size": CELL // 2, "merge_size": 2, "temporal_patch_size": 2}
    images = tf.Qwen2VLImageProcessor(**sizes, size={"shortest_edge": 64, "longest_edge": 96**2})
    videos = {**sizes, "size": {"shortest_edge": 64, "longest_edge": 8 * 96**2}, "cap_pixels_per_frame": False}
    video_class = tf.Qwen3VLVideoProcessor if name == "Qwen3VL" else tf.Qwen2VLVideoProcessor
    parts = {"image_processor": images, "tokenizer": tokenizer, "video_processor": video_class(**videos)}
    ids = {
        kind: tokenizer.convert_tokens_to_ids(f"<|{kind[:5]}_pad|>") for kind in ("image_token_id", "video_token_id")
    }
    config = SimpleNamespace(model_type="qwen2_vl", vision_config=SimpleNamespace(spatial_merge_size=2), **ids)
    return getattr(tf, f"{name}Processor")(**parts), config


def tokens_of(processor, config, arguments):
    length = arguments["input_ids"].shape[1]
    prompt = PicturePrompt(SimpleNamespace(config=config), arguments, length, None, processor.tokenizer)
    return picture_tokens(prompt)


@pytest.mark.parametrize("name", ["Idefics3", "SmolVLM", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL"])
def test_two_pictures_of_a_processor(name):
    """The token of a white cell is the one whose pixels are white."""
    idefics = name in ("Idefics3", "SmolVLM")
    processor, config = (idefics_processor if idefics else qwen_processor)(name)
    mark = "<image>" if idefics else "<|vision_start|><|image_pad|><|vision_end|>"
    sizes = [(64, 96), (96, 64)]
    for lit_one, row, column in [(0, 0, 0), (0, 3, 5), (0, 2, 1), (1, 0, 3), (1, 5, 0), (1, 4, 2)]:
        pictures = [
            lit(size, row, column) if number == lit_one else lit(size, 9, 9) for number, size in enumerate(sizes)
        ]
        batch = [pictures] if idefics else pictures
        arguments = processor(text=f"a {mark} b {mark} c", images=batch, return_tensors="pt")
        found = tokens_of(processor, config, arguments)
        assert [tuple(tokens.columns.shape) for tokens in found] == [(4, 6), (6, 4)]
        positions = (arguments["input_ids"][0] == config.image_token_id).nonzero().flatten()
        if idefics:
            tiles = arguments["pixel_values"][0].unflatten(0, (2, 7))[:, :-1].flatten(0, 1)  # without the overviews
            tile, tile_row, tile_column = brightest(tiles)
            expected = positions[4 * (tile + tile // 6) + 2 * tile_row + tile_column]
        else:
            expected = positions[arguments["pixel_values"].mean(1).unflatten(0, (-1, 4)).mean(1).argmax()]
        assert found[lit_one].columns[row, column] == expected


@pytest.mark.parametrize("name", ["SmolVLM", "Qwen2_5_VL", "Qwen3VL"])
def test_a_video_of_a_processor(name):
    """Frames of four seconds, two a second, one of which is white: its tokens and its second."""
    idefics = name == "SmolVLM"
    processor, config = (idefics_processor if idefics else qwen_processor)(name)
    mark = "<video>" if idefics else "<|vision_start|><|video_pad|><|vision_end|>"
    frames = np.zeros((8, TILE, TILE, 3), np.uint8)
    frames[4:6] = 255
    seconds = {"fps": 2.0, "total_num_frames": 8, "duration": 4.0, "frames_indices": list(range(8))}
    options = {"video_metadata": [seconds], "do_sample_frames": idefics, "return_tensors": "pt"}
    arguments = processor(text=f"a {mark} b", videos=[frames], **options)
    (tokens,) = tokens_of(processor, config, arguments)
    assert tokens.columns.shape == (4, 2, 2)
    kind = config.image_token_id if idefics else config.video_token_id
    positions = (arguments["input_ids"][0] == kind).nonzero().flatten()
    pixels = arguments["pixel_values"][0] if idefics else arguments["pixel_values_videos"]
    white = pixels.flatten(1).mean(1).unflatten(0, (4, -1)).mean(1).argmax()
    assert torch.equal(tokens.columns[white].flatten(), positions.view(4, 4)[white])
    assert abs(tokens.moments[white] - 2) <= 0.5, tokens.moments


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (96, 32), (64, 128), (128, 64), (32, 16)])
def test_mllama_s_layout_is_that_of_its_processor(size):
    processor = tf.MllamaImageProcessor(size={"height": TILE, "width": TILE}, max_image_tiles=4)
    vision = tf.MllamaVisionConfig(image_size=TILE, patch_size=CELL, max_num_tiles=4)
    config = SimpleNamespace(model_type="mllama", vision_config=vision)
    cells = (pixels // CELL for pixels in size)
    for row, column in np.ndindex(*cells):
        picture = lit(size, row, column)
        arguments = processor(picture, return_tensors="pt")
        prompt = PicturePrompt(SimpleNamespace(config=config), arguments, 4 * 5, picture_sizes(picture))
        (tokens,) = picture_tokens(prompt)
        mask = arguments["aspect_ratio_mask"][0, 0] == 1
        tile, tile_row, tile_column = brightest(arguments["pixel_values"][0, 0][mask])
        rows, columns = tokens.columns.shape
        places = int((row + 0.5) * CELL / size[0] * rows), int((column + 0.5) * CELL / size[1] * columns)
        assert tokens.columns[places] == 5 * tile + 1 + 2 * tile_row + tile_column
        assert tokens.is_encoded
    assert picture_tokens(prompt._replace(sizes=None)) is None


def test_sizes_of_pictures():
    array = np.zeros((20, 30, 3), np.uint8)
    same = Image.fromarray(array), array, array[..., 0], torch.zeros(3, 20, 30)
    assert picture_sizes(same) == [(20, 30)] * 4
    assert picture_sizes([array, "photo.jpg"]) is None
    assert picture_sizes(None) == []


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen25_vl", "qwen3_vl"])
def test_videos_have_frames_rows_and_columns(name):
    model, inputs = text_model(name)
    model.config.video_token_id = 91
    frames = [[91] * 6] * 2 if name != "qwen3_vl" else [[92, *[91] * 6, 93]] * 2  # marks around frames
    ids = torch.tensor([[1, *[token for frame in frames for token in frame], 6]])
    pixels = torch.cat([inputs["pixel_values"], 0.5 * inputs["pixel_values"]])
    video = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": 2 * (ids == 91).int()}
    video |= {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[2, 4, 6]])}
    result = AnswerEvidence(model).attribute(video, target=ANSWER)
    maps = result.picture_relevance()
    assert maps.shape == (len(ANSWER), 2, 2, 3)
    torch.testing.assert_close(maps.flatten(1), result.relevance[:, (ids[0] == 91).nonzero().flatten()])
    torch.testing.assert_close(result.shares()["pictures"], maps.abs().sum((1, 2, 3)))


@pytest.mark.parametrize(("name", "newline"), [("llava_next_video", 0), ("llava_onevision", 1)])
def test_two_videos_of_square_frames(name, newline):
    model, _ = text_model(name)
    video = [91] * (3 * 4 + newline)
    pixels = torch.rand(2, 3, 3, 32, 32).double()
    inputs = {"input_ids": torch.tensor([[1, *video, 6, *video, 5]]), "pixel_values_videos": pixels}
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    places = token_places(model, inputs)
    if newline:  # features are numbered before their pooling: a token is the mean of 2 × 2
        places[:, 1:] //= 2
    expected = torch.cartesian_prod(*map(torch.arange, (6, 2, 2))).view(2, 3, 2, 2, 3)
    for picture, frames in zip(result.pictures, expected, strict=True):
        assert torch.equal(places[picture.columns], frames)
    with pytest.raises(ValueError, match=r"moments\(\) requires a video whose processor says its time"):
        result.moments()


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "smolvlm"])
def test_pictures_of_one_prompt_are_those_of_each_by_itself(name):
    model, inputs = text_model(name)
    ids = inputs["input_ids"][:, 2:] if name == "smolvlm" else inputs["input_ids"]
    two = {"input_ids": torch.cat([inputs["input_ids"], ids], 1)}
    stacked = 1 if name == "smolvlm" else 0
    for key in ("pixel_values", "pixel_attention_mask"):
        if key in inputs:
            two[key] = torch.cat([inputs[key]] * 2, stacked)
    for key in ("image_grid_thw", "image_sizes"):
        if key in inputs:
            two[key] = torch.cat([inputs[key]] * 2)
    (alone,) = picture_tokens(PicturePrompt(model, inputs, inputs["input_ids"].shape[1]))
    first, second = picture_tokens(PicturePrompt(model, two, two["input_ids"].shape[1]))
    for part in ("columns", "overview"):
        place, other, later = (getattr(picture, part) for picture in (alone, first, second))
        assert (place is None) == (part == "overview" and name == "qwen2_vl")
        if place is not None:
            assert torch.equal(other, place)
            assert torch.equal(later, place + ids.shape[1])


class Characters:
    """Tokenizer whose token n is the character n + 32."""

    def decode(self, ids):
        return "".join(chr(number + 32) for number in ids)


def characters(text):
    return [ord(character) - 32 for character in text]


def test_times_of_frames_are_those_that_qwen_returns_or_writes():
    model, inputs = text_model("qwen25_vl")
    video = {"pixel_values_videos": inputs["pixel_values"].repeat(3, 1), "video_grid_thw": torch.tensor([[3, 4, 6]])}
    ids = torch.tensor([[1, 92, *[91] * 18, 6]])
    video |= {"input_ids": ids, "mm_token_type_ids": 2 * (ids == 91).int()}
    result = AnswerEvidence(model).attribute({**video, "second_per_grid_ts": [0.5]}, target=ANSWER)
    assert result.moments().tolist() == [0, 0.5, 1]
    assert result.picture_relevance().shape == (len(ANSWER), 3, 2, 3)
    model, _ = text_model("qwen3_vl")
    frames = [[*characters(f"<{time} seconds>"), 92, *[91] * 6, 93] for time in ("0.2", "1.2", "12.2")]
    ids = torch.tensor([[1, *characters("at 7: <"), *[token for frame in frames for token in frame], 6]])
    video |= {"input_ids": ids, "mm_token_type_ids": 2 * (ids == 91).int()}
    result = AnswerEvidence(model, Characters()).attribute(video, target=ANSWER)
    torch.testing.assert_close(result.moments(), torch.tensor([0.2, 1.2, 12.2]))


def test_smolvlm_s_frames_after_their_times_are_one_video():
    model, _ = text_model("smolvlm")
    times = ("00:00", "00:09", "01:05")
    frame = [80, 81, *[IMAGE_TOKEN] * 4, 80]
    inputs = {"pixel_values": torch.rand(1, 3, 3, 32, 32).double()}
    inputs["pixel_attention_mask"] = torch.ones(1, 3, 32, 32, dtype=torch.long)
    ids = [1, *(token for time in times for token in (*characters(f"Frame from {time}:"), *frame)), 6]
    inputs["input_ids"] = torch.tensor([ids])
    evidence = AnswerEvidence(model, Characters())
    result = evidence.attribute(inputs, target=ANSWER)
    maps = result.picture_relevance()
    assert maps.shape == (len(ANSWER), 3, 2, 2)
    of_frames = (torch.tensor(ids) == IMAGE_TOKEN).nonzero().flatten()
    torch.testing.assert_close(maps.flatten(1), result.relevance[:, of_frames])
    assert result.moments().tolist() == [0, 9, 65]
    inputs["input_ids"] = torch.tensor([[1, *(token for n in (1, 2, 3) for token in (*characters(f"{n}: "), *frame))]])
    pictures = evidence.attribute(inputs, target=ANSWER).pictures
    assert [tuple(picture.columns.shape) for picture in pictures] == [(2, 2)] * 3


def test_a_word_of_a_page_holds_the_patch_under_its_box():
    model, inputs = text_model("udop")
    entered = []
    hooks = [
        model.encoder.embed_patches.register_forward_hook(
            lambda module, args, output: (
                torch.zeros_like(output).index_fill(2, torch.tensor([0]), 1000) * torch.arange(1, 17)[:, None]
            )
        ),
        model.encoder.block[0].register_forward_pre_hook(lambda module, args: entered.append(args[0][0, :, 0])),
    ]
    with torch.no_grad():
        model(**inputs, decoder_input_ids=torch.tensor([[2]]))
    for hook in hooks:
        hook.remove()
    patches = (entered[0] / 1000).round().long() - 1  # of each token of the encoder; -1 for none
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    expected = torch.zeros(len(ANSWER), 16, dtype=torch.float64)
    expected.index_add_(1, patches[patches >= 0], result.encoded_relevance[:, patches >= 0])
    torch.testing.assert_close(result.picture_relevance().flatten(1), expected)
    assert patches[:5].tolist() == [-1, 4, 5, 4, -1]
    torch.testing.assert_close(result.shares()["pictures"], result.encoded_relevance[:, patches >= 0].abs().sum(1))


def test_patches_that_a_hierarchical_encoder_merges():
    torch.manual_seed(0)
    swin = {"image_size": (32, 64), "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
    text = {**{"d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "decoder_attention_heads": 2}, "vocab_size": 99}
    decoder = tf.MBartConfig(**text, decoder_ffn_dim=16, is_decoder=True, add_cross_attention=True)
    encoder = tf.DonutSwinConfig(**swin, window_size=2)
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = tf.VisionEncoderDecoderModel(config=config).eval()
    task = {"pixel_values": torch.rand(1, 3, 32, 64), "decoder_input_ids": torch.tensor([[2, 50]])}
    result = AnswerEvidence(model).attribute(task, target=ANSWER)
    assert result.picture_relevance().shape == (len(ANSWER), 4, 8)
    torch.testing.assert_close(result.picture_relevance().flatten(1), result.encoded_relevance)
    assert result.prompt_length == 2
