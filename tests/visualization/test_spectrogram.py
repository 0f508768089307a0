"""A spectrogram's axes, and what lies over it."""

import numpy as np
import pytest
from pictures import assert_nothing_overlaps

from captum_gmar.visualization import visualize_spectrogram


def test_time_and_frequency():
    relevance = np.zeros((3, 7))
    relevance[0, 6] = 1  # the lowest frequency, at the end
    figure, (sound, overlay) = visualize_spectrogram(
        relevance, np.random.default_rng(0).random((200, 64)), sampling_rate=8000, title="a tone", use_pyplot=False
    )
    assert (overlay.get_xlabel(), overlay.get_xlim()) == ("time in seconds", (0, 2))
    assert [text.get_text() for text in sound.get_yticklabels()] == ["125", "250", "500", "1000", "2000", "4000"]
    assert sound.get_yticks()[-1] == pytest.approx(64)  # half the sampling rate is the upper edge
    below, above = (np.asarray(panel.images[0].get_array()).astype(int) for panel in (sound, overlay))
    redness = above[..., 0] - above[..., 2]
    height, width = redness.shape
    rows, columns = (redness > 100).nonzero()
    assert (rows.min(), rows.max()) == pytest.approx((height * 2 / 3, height - 1), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((width * 6 / 7, width - 1), abs=1)
    assert (below[..., 0] == below[..., 2]).all()
    assert overlay.images[0].get_extent() == sound.images[0].get_extent()
    assert_nothing_overlaps(figure)
    assert figure.get_suptitle() == "a tone"


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(rows, columns\), and the spectrogram \(time, bins\)"):
        visualize_spectrogram(np.zeros(3), np.zeros((4, 5)), use_pyplot=False)
