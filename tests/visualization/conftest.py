"""No picture of one test is left for another."""

import pytest
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def no_open_figures():
    pyplot.close("all")
    yield
    pyplot.close("all")
