"""The beginning of a small transformer: positions that say where a patch is, heads that look beside it."""

import jax
import numpy as np
import pytest

from mmreid_jax.models.vit import SIZES, VisionTransformer
from mmreid_jax.trunks import beginning

GRID = (6, 4)


def test_positions_are_told_apart_and_near_ones_are_alike():
    table = beginning.sines(GRID, 32)
    assert table.shape == (24, 32)
    alike = (table @ table.T).reshape(*GRID, *GRID)
    np.testing.assert_allclose(table.std(), beginning.HEIGHT / np.sqrt(2), rtol=0.2)
    assert (alike.reshape(24, 24).argmax(1) == np.arange(24)).all()
    assert alike[2, 1, 2, 2] > alike[2, 1, 2, 3]
    assert alike[2, 1, 3, 1] > alike[2, 1, 5, 1]


@pytest.mark.parametrize(("head", "side"), enumerate([(0, -1), (0, 1), (-1, 0), (1, 0)]))
def test_heads_look_at_the_neighbour_on_their_side(head, side):
    width, heads = 96, 4
    tokens = beginning.sines(GRID, width) / beginning.HEIGHT
    made = (tokens @ beginning.neighbours(width, heads)).reshape(-1, 2, heads, width // heads)
    scores = (made[:, 0, head] @ made[:, 1, head].T).reshape(*GRID, *GRID)
    row, column = 3, 2
    found = np.unravel_index(scores[row, column].argmax(), GRID)
    assert found == (row + side[0], column + side[1])


@pytest.mark.slow(short=True)
def test_only_kernels_of_blocks_and_positions_change():
    size = SIZES["vit_micro"]
    network = VisionTransformer(size, (32, 16))
    fresh = network.init(jax.random.key(0), np.zeros((1, 32, 16, 3), np.float32))["params"]
    begun = beginning.begun(fresh, size, network.grid)
    assert jax.tree.structure(begun) == jax.tree.structure(fresh)
    same = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.array_equal, fresh, begun))
    changed = {jax.tree_util.keystr(path, simple=True, separator="/") for path, equal in same if not equal}
    kernels = {f"blocks/{layer}/kernel" for layer in ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")}
    assert changed == {"pos_embed", *kernels}
    np.testing.assert_array_equal(begun["pos_embed"][0, 0], fresh["pos_embed"][0, 0])
    values = begun["blocks"]["attn"]["qkv"]["kernel"][:, :, 2 * size.width :]
    np.testing.assert_allclose(values.std(), size.width**-0.5, rtol=0.1)
    hidden = begun["blocks"]["mlp"]["fc2"]["kernel"]
    np.testing.assert_allclose(hidden.std(), (hidden.shape[1] * 2 * size.depth) ** -0.5, rtol=0.1)
