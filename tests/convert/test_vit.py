"""What ViT weights need beyond names: patch weights, distillation tokens, position tables."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from mmreid_jax.convert import vit
from mmreid_jax.errors import UserError


def prepared(entries, **options):
    return vit.layout(**options).prepare(entries)


def naive_resize(table, grid):
    """Linear interpolation of each channel along each column, then along each row."""
    side = int(np.sqrt(table.shape[1] - 1))
    old = table[0, 1:].reshape(side, side, -1)
    places = [(np.arange(length) + 0.5) * side / length - 0.5 for length in grid]
    out = np.zeros((*grid, table.shape[2]))
    for channel in range(table.shape[2]):
        tall = np.stack([np.interp(places[0], np.arange(side), old[:, x, channel]) for x in range(side)], axis=1)
        for row in range(grid[0]):
            out[row, :, channel] = np.interp(places[1], np.arange(side), tall[row])
    return np.concatenate([table[:, :1], out.reshape(1, -1, table.shape[2])], axis=1)


class TestPositionTable:
    @pytest.mark.parametrize("grid", [(1, 1), (4, 4), (8, 2), (2, 8), (5, 7), (16, 9)])
    def test_against_a_naive_loop(self, grid):
        table = np.random.default_rng(1).normal(size=(1, 17, 5))
        np.testing.assert_allclose(vit.resize_position_table(table, grid), naive_resize(table, grid), atol=1e-13)

    def test_constant_stays_constant(self):
        table = np.full((1, 26, 3), 2.5, np.float32)
        np.testing.assert_array_equal(vit.resize_position_table(table, (7, 3)), np.full((1, 22, 3), 2.5, np.float32))

    def test_class_token_row_is_kept_to_the_bit(self):
        table = np.random.default_rng(1).normal(size=(1, 10, 4)).astype(np.float16)
        resized = vit.resize_position_table(table, (2, 5))
        assert resized.dtype == np.float16
        np.testing.assert_array_equal(resized[:, 0], table[:, 0])

    @pytest.mark.parametrize("rows", [0, 1, 3, 12, 129])
    def test_no_square_grid(self, rows):
        with pytest.raises(UserError, match="no square grid"):
            vit.resize_position_table(np.zeros((1, rows, 4)), (2, 2))

    def test_without_a_grid_nothing_is_resized(self):
        table = np.zeros((1, 10, 4))
        entries, notes = prepared({"pos_embed": table})
        assert entries["pos_embed"] is table
        assert notes == []

    def test_turned_grid_of_the_same_count_is_kept(self):
        """As the reference does, which compares shapes alone."""
        table = np.zeros((1, 9, 4))
        entries, _ = prepared({"pos_embed": table}, grid=(4, 2))
        assert entries["pos_embed"] is table


def test_the_row_of_the_class_token_is_repeated_for_more_of_them():
    table = np.random.default_rng(1).normal(size=(1, 5, 3))
    entries, notes = prepared({"pos_embed": table}, class_tokens=2)
    np.testing.assert_array_equal(entries["pos_embed"], table[:, [0, 0, 1, 2, 3, 4]])
    assert notes == ["the class token's row of pos_embed repeated for 2 of them"]
    resized, _ = prepared({"pos_embed": table}, grid=(3, 2), class_tokens=2)
    assert resized["pos_embed"].shape == (1, 8, 3)


# CRC-32 of what PyTorch 2.13 makes on a CPU of tables with (side, rows, columns): bilinear, channels last.
PYTORCH = {
    "float32": {
        (14, 18, 9): 3777197479,
        (14, 24, 12): 252240667,
        (14, 20, 7): 2140127168,
        (16, 12, 9): 3018733610,
        (7, 19, 13): 1333490315,
        (24, 8, 36): 1203407206,
        (14, 1, 1): 1110830862,
    },
    # Of published CLIP weights, whose tables are resized as they are stored.
    "float16": {
        (14, 18, 9): 3290053527,
        (14, 24, 12): 4170880930,
        (14, 20, 7): 3403824984,
        (16, 12, 9): 117943558,
        (7, 19, 13): 4059599405,
        (24, 8, 36): 2238405538,
        (14, 1, 1): 2997217615,
    },
}


@pytest.mark.parametrize(
    ("dtype", "side", "rows", "columns"), [(dtype, *size) for dtype, sizes in PYTORCH.items() for size in sizes]
)
def test_any_grid_is_pytorchs_to_the_bit(dtype, side, rows, columns):
    drawn = np.random.Generator(np.random.PCG64([side])).standard_normal((side * side, 16)).astype(np.float32)
    table = (drawn * np.float32(0.02)).astype(dtype)
    resized = vit.resize_position_table(np.concatenate([table[:1], table])[None], (rows, columns))
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized[0, 0], table[0])
    assert zlib.crc32(resized[0, 1:].tobytes()) == PYTORCH[dtype][side, rows, columns]


class TestDistilled:
    @pytest.fixture
    def table(self):
        return np.arange(11.0).reshape(1, 11, 1)

    def test_row_of_the_distillation_token_goes(self, table):
        entries, notes = prepared({"pos_embed": table, "dist_token": np.zeros((1, 1, 1))})
        np.testing.assert_array_equal(entries["pos_embed"].ravel(), [0, *range(2, 11)])
        assert "distillation" in notes[0]

    def test_by_order(self, table):
        assert prepared({"pos_embed": table}, distilled=True)[0]["pos_embed"].shape == (1, 10, 1)
        both = {"pos_embed": table, "dist_token": np.zeros((1, 1, 1))}
        assert prepared(both, distilled=False)[0]["pos_embed"].shape == (1, 11, 1)

    def test_then_resized(self, table):
        entries, _ = prepared({"pos_embed": table}, distilled=True, grid=(2, 3))
        assert entries["pos_embed"].shape == (1, 7, 1)


class TestPatchWeights:
    def test_flat_patches_are_unfolded(self):
        flat = np.arange(2 * 3 * 16.0).reshape(2, 48)
        entries, notes = prepared({"patch_embed.proj.weight": flat})
        np.testing.assert_array_equal(entries["patch_embed.proj.weight"], flat.reshape(2, 3, 4, 4))
        assert "4x4" in notes[0]

    def test_no_square_patches(self):
        with pytest.raises(UserError, match="no square RGB patches"):
            prepared({"patch_embed.proj.weight": np.zeros((2, 50))})
