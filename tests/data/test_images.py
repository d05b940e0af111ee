import contextlib
import io
import pickle
import struct
import subprocess
import tracemalloc
import zlib
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmreid_jax.data import images
from mmreid_jax.data.records import View, check_value_range
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


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(values):
    """A PNG file of 16-bit values [h, w, channels], which Pillow cannot write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(x)) + t + x + struct.pack(">I", zlib.crc32(t + x)) for t, x in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(values, kind):
    """An uncompressed TIFF file of values [h, w, channels]; `kind`: its number for unsigned, signed, float."""
    height, width, channels = values.shape
    bits, pixels = 8 * values.dtype.itemsize, values.tobytes()
    place = 8 + len(pixels)
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels == 1 else place + 2 + 9 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (279, 4, 1, len(pixels)),
        (339, 3, 1, kind) if channels == 1 else (284, 3, 1, 1),
    ]
    table = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, place) + pixels + table + struct.pack("<3H", bits, bits, bits)


def by_hand(values, low, high):
    return np.round(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


RNG = np.random.default_rng(11)
THERMAL = RNG.integers(29_000, 31_500, (9, 7, 1)).astype(np.uint16)


class TestMoreThanEightBits:
    @pytest.mark.parametrize(
        ("encoded", "values"),
        [
            (png(THERMAL), THERMAL),
            (png(np.repeat(THERMAL, 3, 2) + np.arange(3, dtype=np.uint16)), np.repeat(THERMAL, 3, 2) + np.arange(3)),
            (png(THERMAL // 30), THERMAL // 30),
            (saved(Image.fromarray(THERMAL[..., 0]), "TIFF"), THERMAL),
            (saved(Image.fromarray(THERMAL[..., 0].astype(">u2")), "TIFF"), THERMAL),
            (saved(Image.fromarray(THERMAL[..., 0].astype(np.int32)), "PPM"), THERMAL),
            (tiff(THERMAL.astype("<i4") - 30_000, 2), THERMAL.astype(int) - 30_000),
            (tiff(THERMAL.astype("<i2") - 30_000, 2), THERMAL.astype(int) - 30_000),
            (tiff(THERMAL.astype("<u4") * 100_000, 1), THERMAL.astype(float) * 100_000),
            (tiff(THERMAL.astype("<f4") / 31_500, 3), THERMAL / 31_500),
            (tiff(RNG.integers(0, 4096, (9, 7, 3)).astype("<u2"), 1), None),
        ],
        ids=["png", "colour", "12-bit", "tiff", "big-endian", "pgm", "i4", "i2", "u4", "f4", "tiff-colour"],
    )
    def test_each_image_is_scaled_by_its_percentiles(self, encoded, values, monkeypatch):
        if values is None:
            values = np.frombuffer(encoded[8 : 8 + 9 * 7 * 6], "<u2").reshape(9, 7, 3)
        decoded = images.decode(encoded, "x")
        low, high = np.percentile(values, (1, 99))
        expected = np.broadcast_to(by_hand(values, low, high), (9, 7, 3))
        # Of a float32 file a value may lie on the other side of a half.
        assert np.abs(decoded.astype(int) - expected).max() <= (values.dtype.kind == "f")
        assert decoded.min() == 0
        assert decoded.max() == 255

    @pytest.mark.parametrize(("low", "high"), [(28_000.0, 32_000.0), (0.0, 65_535.0), (29_500.0, 30_000.0)])
    def test_a_range_may_be_named(self, low, high):
        decoded = images.decode(png(THERMAL), "x", value_range=(low, high))
        np.testing.assert_array_equal(decoded, np.repeat(by_hand(THERMAL, low, high), 3, 2))

    def test_an_image_of_8_bits_does_not_mind_the_range(self):
        encoded = encoded_noise(2, kind="PNG")
        np.testing.assert_array_equal(images.decode(encoded, "x", value_range=(0, 1)), with_pillow(encoded))

    def test_the_same_picture_in_8_and_16_bits(self):
        grey = np.random.default_rng(3).integers(0, 256, (20, 10, 1)).astype(np.uint16)
        decoded = images.decode(png(257 * grey), "x", value_range=(0, 65_535))
        np.testing.assert_array_equal(decoded, np.repeat(grey, 3, 2))

    def test_opacity_beside_16_bits(self):
        for channels in (2, 4):
            values = np.full((4, 5, channels), 30_000, np.uint16)
            values[:, 2:, :-1] = 40_000
            values[..., -1] = 65_535
            values[0, :, -1] = 0
            decoded = images.decode(png(values), "x", value_range=(30_000, 40_000))
            assert not decoded[0].any()
            assert (decoded[1:, 2:] == 255).all()
            assert not decoded[1:, :2].any()

    @pytest.mark.parametrize("value", [0, 7, 65_535])
    def test_a_picture_of_one_value_is_black(self, value):
        assert not images.decode(png(np.full((4, 4, 1), value, np.uint16)), "x").any()

    def test_nearly_one_value_is_stretched_from_its_extremes(self):
        values = np.full((20, 20, 1), 300, np.uint16)
        values[0, 0] = 400
        decoded = images.decode(png(values), "x")
        assert decoded[0, 0, 0] == 255
        assert decoded.sum() == 3 * 255

    def test_what_is_no_number_is_lowest(self):
        values = np.linspace(1, 2, 100, dtype="<f4").reshape(10, 10, 1)
        values[0, 0], values[9, 9] = np.nan, np.inf
        decoded = images.decode(tiff(values, 3), "x", value_range=(1.0, 2.0))
        assert decoded[0, 0, 0] == 0
        assert decoded[9, 9, 0] == 255
        with pytest.raises(images.BrokenImage, match="none of its values is finite"):
            images.decode(tiff(np.full((4, 4, 1), np.nan, "<f4"), 3), "x")

    def test_it_is_said_once(self, caplog, monkeypatch):
        monkeypatch.setattr(images, "_told_ranges", set())
        for name in "ab":
            images.decode(png(THERMAL), name)
        assert len(caplog.records) == 1
        assert "a has values of more than 8 bits" in caplog.text
        assert "--value_range" in caplog.text
        images.decode(encoded_noise(1), "x")
        images.decode(png(THERMAL), "c", value_range=(1.0, 2.0))
        assert "c has values of more than 8 bits: in all such images 1.0 to 2.0 become 0 to 255" in caplog.text

    @pytest.mark.parametrize("wrong", [(1,), (2, 1), (0, float("nan")), (1, 1), (1, 2, 3)])
    def test_a_wrong_range(self, wrong):
        with pytest.raises(UserError, match="value_range is"):
            check_value_range(wrong)


class TestColourSpaces:
    """Every kind of image has a treatment that the module states."""

    colours = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "PPM"])
    def test_grey_is_repeated(self, kind):
        encoded = saved(Image.fromarray(self.colours[..., 0]), kind)
        decoded = images.decode(encoded, "x")
        expected = np.asarray(Image.open(io.BytesIO(encoded)))
        np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, 2))

    def test_bilevel_is_black_and_white(self):
        bits = self.colours[..., 0] > 127
        np.testing.assert_array_equal(images.decode(saved(Image.fromarray(bits)), "x")[..., 1], 255 * bits)

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
    def test_palettes_are_looked_up(self, kind):
        few = Image.fromarray(self.colours // 128 * 255)
        decoded = images.decode(saved(few.convert("P", palette=Image.Palette.ADAPTIVE, colors=8), kind), "x")
        np.testing.assert_array_equal(decoded, np.asarray(few))

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    def test_transparent_is_black_and_opaque_is_what_it_is(self, kind):
        image = np.dstack([self.colours, np.full((6, 8), 255, np.uint8)])
        image[:2, :, 3] = 0
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        decoded = images.decode(saved(Image.fromarray(image), kind, **options), "x")
        assert not decoded[:2].any()
        np.testing.assert_array_equal(decoded[2:], self.colours[2:])

    def test_half_transparent_is_half_as_light(self):
        image = np.dstack([self.colours, np.full((6, 8), 128, np.uint8)])
        decoded = images.decode(saved(Image.fromarray(image)), "x")
        np.testing.assert_allclose(decoded, self.colours * (128 / 255), atol=0.51)

    def test_a_transparent_entry_of_a_palette_and_of_grey(self):
        indices = np.array([[0, 1], [1, 0]], np.uint8)
        picture = Image.fromarray(indices, "P")
        picture.putpalette([200, 10, 20, 30, 40, 50])
        decoded = images.decode(saved(picture, transparency=0), "x")
        assert decoded.tolist() == [[[0, 0, 0], [30, 40, 50]], [[30, 40, 50], [0, 0, 0]]]
        decoded = images.decode(saved(Image.fromarray(indices + 9), transparency=9), "x")
        assert decoded[..., 0].tolist() == [[0, 10], [10, 0]]

    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    def test_cmyk_is_converted_as_by_pillow(self, kind):
        encoded = saved(Image.fromarray(self.colours).convert("CMYK"), kind)
        np.testing.assert_array_equal(images.decode(encoded, "x"), with_pillow(encoded))

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_of_an_animation_the_first_picture_is_taken(self, kind):
        frames = [Image.new("RGB", (8, 6), (value, value, value)) for value in (10, 200, 90)]
        options = {"lossless": True} if kind == "WEBP" else {}
        encoded = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(encoded)).n_frames == 3
        assert (images.decode(encoded, "x") == 10).all()


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("fast", [True, False])
    def test_photographs_stand_upright(self, orientation, kind, fast, monkeypatch):
        if not fast:
            monkeypatch.setattr(images, "_simplejpeg", lambda: None)
        exif = Image.Exif()
        exif[0x0112] = orientation
        encoded = saved(Image.open(io.BytesIO(encoded_noise(8))), kind, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))
        decoded = images.decode(encoded, "x")
        assert decoded.shape == ((24, 40, 3) if orientation > 4 else (40, 24, 3))
        np.testing.assert_array_equal(decoded, expected)

    @pytest.mark.parametrize("orientation", [0, 9, 4000])
    def test_nonsense_turns_nothing(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        encoded = saved(Image.open(io.BytesIO(encoded_noise(8))), "PNG", exif=exif)
        assert images.decode(encoded, "x").shape == (40, 24, 3)

    def test_damaged_metadata_do_not_make_a_picture_unreadable(self):
        whole = encoded_noise(8)
        body = b"Exif\0\0" + bytes(range(40))
        encoded = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]
        np.testing.assert_array_equal(images.decode(encoded, "x"), with_pillow(whole))


def claiming(height, width, kind):
    """A file of few bytes that claims to be of that size."""
    if kind == "JPEG":
        whole = encoded_noise(1)
        place = whole.index(b"\xff\xc0")
        return whole[: place + 5] + struct.pack(">HH", height, width) + whole[place + 9 :]
    if kind == "PNG":
        whole = png(np.zeros((2, 2, 3), np.uint16))
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    if kind == "PPM":
        return f"P6 {width} {height} 255\n".encode()
    if kind == "BMP":
        return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    whole = encoded_noise(1, kind="GIF")
    return whole[:6] + struct.pack("<HH", width, height) + whole[10:]


class TestHostile:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "GIF"])
    @pytest.mark.parametrize("truncated", [False, True])
    @pytest.mark.parametrize("fast", [True, False])
    def test_what_claims_too_much_takes_no_memory(self, kind, truncated, fast, monkeypatch):
        if not fast:
            monkeypatch.setattr(images, "_simplejpeg", lambda: None)
        encoded = claiming(65_500, 65_500, kind)
        assert len(encoded) < 4000
        tracemalloc.start()
        with pytest.raises(images.BrokenImage, match="pixels"):
            images.decode(encoded, "x", truncated=truncated)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()
        with pytest.raises(images.BrokenImage, match="pixels"):
            images.check_header(encoded, "x")

    def test_the_limit_is_for_pixels_and_not_for_a_side(self):
        strip = saved(Image.new("L", (30_000, 2)))
        assert images.decode(strip, "x").shape == (2, 30_000, 3)
        assert images.check_header(strip, "x") == (2, 30_000)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF"])
    @pytest.mark.parametrize("truncated", [False, True])
    def test_whatever_bytes_are_changed_nothing_but_broken_comes_out(self, kind, truncated):
        whole = np.frombuffer(encoded_noise(3, kind=kind), np.uint8)
        rng = np.random.default_rng(0)
        for _ in range(15):
            changed = whole.copy()
            changed[rng.integers(0, min(len(whole), 200), 3)] = rng.integers(0, 256, 3)
            with contextlib.suppress(images.BrokenImage):
                assert images.decode(changed.tobytes(), "x", truncated=truncated).dtype == np.uint8

    @pytest.mark.parametrize("error", [NotImplementedError, MemoryError, KeyError, AssertionError, ZeroDivisionError])
    def test_any_error_of_the_decoder_is_a_broken_image(self, error, monkeypatch):
        monkeypatch.setattr(images, "decode_with_pillow", mock.Mock(side_effect=error("bad\x1b[2J")))
        for truncated in (False, True):
            with pytest.raises(images.BrokenImage, match=rf"x cannot be read.*\({error.__name__}|bad.x1b"):
                images.decode(b"something", "x", truncated=truncated)

    def test_no_other_program_is_started(self, monkeypatch):
        monkeypatch.setattr(subprocess, "Popen", mock.Mock(side_effect=AssertionError("started")))
        postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
        with pytest.raises(images.BrokenImage, match="no image of a known format"):
            images.decode(postscript, "x")

    def test_an_error_keeps_its_reason_on_its_way_between_processes(self):
        with pytest.raises(images.BrokenImage) as caught:
            images.decode(b"", "x")
        sent = pickle.loads(pickle.dumps(caught.value))
        assert (str(sent), sent.reason) == ("x cannot be read (the file is empty); get it again", "the file is empty")


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
        with pytest.raises(images.BrokenImage, match=r"image 'nir' of 0005\.jpg of noise/train .*broken_images=skip"):
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
    with pytest.raises(UserError, match="choose one of error, stop, skip, truncated"):
        images.check_policy("ignore")
