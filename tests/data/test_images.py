import io

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.data import images
from mmreid_jax.data.records import View
from mmreid_jax.errors import UserError
from tests.data.noise_records import damage, encoded_noise, noise_records

SIDE_BY_SIDE = {"rgb": View("all", (0, 24)), "nir": View("all", (24, 48)), "tir": View("all", (48, 72))}


def with_pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


class TestDecode:
    @pytest.mark.parametrize("subsampling", [0, 1, 2])
    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("size", [(40, 24), (64, 32), (37, 53)])
    def test_jpeg_has_the_values_of_pillow(self, subsampling, progressive, size):
        encoded = encoded_noise(0, *size, quality=80, subsampling=subsampling, progressive=progressive)
        np.testing.assert_array_equal(images.decode(encoded, "x"), with_pillow(encoded))

    @pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
    def test_jpeg_of_other_colour_spaces(self, mode):
        file = io.BytesIO()
        Image.fromarray(with_pillow(encoded_noise(1))).convert(mode).save(file, "JPEG")
        np.testing.assert_array_equal(images.decode(file.getvalue(), "x"), with_pillow(file.getvalue()))

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
    def test_other_formats(self, kind):
        encoded = encoded_noise(2, kind=kind)
        decoded = images.decode(encoded, "x")
        assert decoded.shape == (40, 24, 3)
        np.testing.assert_array_equal(decoded, with_pillow(encoded))

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
    def test_png_of_other_modes_becomes_rgb(self, mode):
        file = io.BytesIO()
        Image.fromarray(with_pillow(encoded_noise(3))).convert(mode).save(file, "PNG")
        assert images.decode(file.getvalue(), "x").shape == (40, 24, 3)

    def test_pillow_alone_gives_the_same(self, monkeypatch):
        encoded = encoded_noise(4)
        fast = images.decode(encoded, "x")
        monkeypatch.setattr(images, "_simplejpeg", lambda: None)
        np.testing.assert_array_equal(images.decode(encoded, "x"), fast)

    @pytest.mark.parametrize(
        "encoded",
        [b"", b"no image at all", encoded_noise(5)[:-20], encoded_noise(5)[:300], encoded_noise(5, kind="PNG")[:300]],
        ids=["empty", "text", "truncated", "header", "png"],
    )
    def test_what_cannot_be_read_is_named(self, encoded):
        with pytest.raises(images.BrokenImage, match=r"image 'rgb' of 0001_cam1\.jpg cannot be read"):
            images.decode(encoded, "image 'rgb' of 0001_cam1.jpg")


class TestTruncated:
    def test_the_part_that_is_there_is_kept(self):
        whole = encoded_noise(6, 64, 64)
        cut = whole[: len(whole) - 200]
        decoded = images.decode(cut, "x", truncated=True)
        assert decoded.shape == (64, 64, 3)
        np.testing.assert_array_equal(decoded[:16], with_pillow(whole)[:16])
        assert not np.array_equal(decoded, with_pillow(whole))

    def test_pillows_switch_is_put_back(self):
        from PIL import ImageFile

        images.decode(encoded_noise(6)[:-20], "x", truncated=True)
        assert not ImageFile.LOAD_TRUNCATED_IMAGES

    def test_without_a_header_it_is_an_error_all_the_same(self):
        with pytest.raises(images.BrokenImage, match="even as a truncated file"):
            images.decode(encoded_noise(6)[:100], "x", truncated=True)


class TestCut:
    def test_columns(self):
        image = np.random.default_rng(0).integers(0, 256, (10, 72, 3), dtype=np.uint8)
        parts = images.cut({"all": image}, SIDE_BY_SIDE, "x")
        assert list(parts) == ["rgb", "nir", "tir"]
        np.testing.assert_array_equal(np.concatenate(list(parts.values()), axis=1), image)

    def test_one_image_may_serve_two_modalities(self):
        views = {"rgb": View("all", (0, 24)), "nir": View("all", (24, 48)), "tir": View("all", (24, 48))}
        parts = images.cut({"all": np.arange(48)[None, :, None] * np.ones((2, 1, 3))}, views, "x")
        np.testing.assert_array_equal(parts["nir"], parts["tir"])

    @pytest.mark.parametrize("width", [48, 71, 73, 96])
    def test_another_width_is_an_error_that_names_file_and_size(self, width):
        message = rf"image 'all' of 0001\.jpg is {width} x 10 pixels .* width of 72"
        with pytest.raises(UserError, match=message):
            images.cut({"all": np.zeros((10, width, 3), np.uint8)}, SIDE_BY_SIDE, "0001.jpg")


def test_a_missing_stored_image_is_named(tmp_path):
    records = noise_records(tmp_path)
    with pytest.raises(UserError, match=r"0002\.jpg of noise/train has no stored image 'tir'; it has rgb, nir"):
        images.decode_sample(records, 2, {"rgb": encoded_noise(0), "nir": encoded_noise(0)})


class TestDecodedImages:
    @pytest.fixture
    def records(self, tmp_path):
        records = noise_records(tmp_path)
        damage(records, 5)
        return records

    def test_error_names_the_file(self, records):
        with pytest.raises(images.BrokenImage, match=r"image 'nir' of 0005\.jpg of noise/train .*'skip'"):
            images.DecodedImages(records, (16, 8), "bicubic").read(np.array([4, 5]))

    def test_skip_marks_it(self, records):
        pixels, readable = images.DecodedImages(records, (16, 8), "bicubic", "skip").read(np.array([4, 5, 6]))
        assert readable.tolist() == [True, False, True]
        assert not pixels[1].any()
        assert pixels[0].any()

    def test_truncated_reads_it(self, records):
        pixels, readable = images.DecodedImages(records, (16, 8), "bicubic", "truncated").read(np.array([5]))
        assert readable.all()
        assert pixels[0, 1].any()


class TestDropBroken:
    def test_leaves_them_out_and_says_which(self, tmp_path, caplog):
        records = noise_records(tmp_path)
        damage(records, 5)
        damage(records, 7, "rgb")
        kept = images.drop_broken(records, threads=2)
        assert kept.file.tolist() == [f"{row:04d}.jpg" for row in range(12) if row not in (5, 7)]
        assert "2 of 12 samples of noise/train cannot be read and are left out: 0005.jpg, 0007.jpg" in caplog.text

    def test_a_sound_table_stays_as_it_is(self, tmp_path, caplog):
        records = noise_records(tmp_path)
        assert images.drop_broken(records) is records
        assert not caplog.records

    def test_nothing_left_is_an_error(self, tmp_path):
        records = noise_records(tmp_path, counts=(2,))
        damage(records, 0)
        damage(records, 1)
        with pytest.raises(UserError, match="none of the 2 samples"):
            images.drop_broken(records)


def test_unknown_policy():
    with pytest.raises(UserError, match="choose one of error, skip, truncated"):
        images.check_policy("ignore")
