"""Any letters can be written on a canvas."""

import numpy as np
import pytest

from mmreid_jax.visualize.canvas import Canvas


@pytest.mark.parametrize("text", ["図 ü", "caf\udce9", "a\x1b[2Jb\nc", "$x^2", "x" * 5000, ""])
def test_any_name_can_be_written(text, recwarn):
    canvas = Canvas(40, 200)
    canvas.write(100, 5, text)
    assert canvas.picture(name="x", alt="", caption="").png[:4] == b"\x89PNG"
    assert not [each for each in recwarn if "Glyph" in str(each.message)]
    assert np.asarray(canvas.pixels).min() == 255
