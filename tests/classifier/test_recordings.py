"""Videos and sounds as a classifier takes them: by hand-made frames and a tone of known length."""

from PIL import Image
from task_models import make

from captum_gmar.classifier import Classifier
from captum_gmar.classifier.recordings import load_video


def test_frames_evenly_apart(tmp_path):
    frames = [Image.new("RGB", (40, 30), (25 * number,) * 3) for number in range(10)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=80)
    film = Classifier(*make()["film"])
    clip, pixels = load_video(film, tmp_path / "clip.gif")
    assert pixels.shape == (1, 4, 3, 24, 24)
    greys = [round(255 * float(film.photo(frame).mean()) / 25) for frame in pixels[0]]
    assert (greys, clip.frame_count) == ([0, 3, 6, 9], 10)
