"""Contact sheets of drawn data sets."""

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.datasets import drawing
from mmreid_jax.errors import UserError
from tests.drawn.sets import SMALL


class TestContactSheet:
    @pytest.mark.parametrize(("name", "columns"), [("sysu_mm01", 6), ("llcm", 4), ("regdb", 2)])
    def test_shows_cameras_of_both_kinds(self, tmp_path, name, columns):
        numbers = {"identities": 2, "images_per_identity": 12}
        drawing.draw(name, tmp_path, **numbers, image_size=(64, 64))
        picture = drawing.contact_sheet(name, tmp_path, tmp_path / "all.png", identities=2)
        with Image.open(picture) as sheet:
            # A column for each visible and each infrared camera, a row for each identity.
            pixels = np.asarray(sheet.convert("RGB"), int)[40:]
            assert 64 * columns < sheet.width < 64 * columns + 200
            assert 2 * 64 < pixels.shape[0] < 2 * 64 + 20
            blocks = [pixels[:, 74 + i * 76 : 74 + i * 76 + 64] for i in range(columns)]
            grey = [np.ptp(block, axis=2).mean() < 5 for block in blocks]
            assert grey == sorted(grey)
            assert 0 < sum(grey) < columns

    @pytest.mark.parametrize("name", ["rgbnt201", "rgbn300", "msvr310"])
    def test_shows_identities_by_cameras_by_modalities(self, tmp_path, name):
        drawing.draw(name, tmp_path, **SMALL)
        picture = drawing.contact_sheet(name, tmp_path, tmp_path / "sheet" / "all.png", identities=2, cameras=2)
        modalities = len(drawing.of(name).modalities)
        height, width = drawing.of(name).image_size
        with Image.open(picture) as sheet:
            assert sheet.width > 2 * modalities * width
            assert sheet.height > 2 * height

    def test_accepts_the_folder_of_the_data_set(self, tmp_path):
        root = drawing.draw("rgbnt201", tmp_path, **SMALL, image_size=(32, 16)).root
        one = drawing.contact_sheet("rgbnt201", tmp_path, tmp_path / "one.png", split="gallery")
        two = drawing.contact_sheet("rgbnt201", root, tmp_path / "two.png", split="gallery")
        assert one.read_bytes() == two.read_bytes()

    def test_needs_a_drawn_set(self, tmp_path):
        with pytest.raises(UserError, match="holds no drawn rgbnt201"):
            drawing.contact_sheet("rgbnt201", tmp_path, tmp_path / "sheet.png")
