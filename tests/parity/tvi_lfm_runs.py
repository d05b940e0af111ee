"""Cases of TVI-LFM set up with the program's own method and checkpoint reader, and how they are compared."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

# float64: scalars to this part of themselves, outputs of a network to that part of the largest value (at least 1),
# gradients, parameters and statistics to the last part of the root mean square.
SCALAR64, OUTPUT64, GRADIENT64 = 1e-6, 1e-6, 1e-5
# float32: ten times the noise of one run is allowed, and at least this part of the largest value.
LEAST32 = 1e-4
# The Euclidean norm of the error of a network's gradient may be this part of its own: ReLUs whose sign float32 turns
# over are others on every machine. float64 is the judge.
GRADIENT32 = 0.05


def sliced(value, count):
    """The slice that a file stores of an array: every so many-th value, about `count` of them."""
    flat = np.asarray(value).reshape(-1)
    return flat[:: math.ceil(flat.size / count)].copy()


def check(key, actual, expected, case, dtype, loose=LEAST32, before=None):
    """Asserts that a quantity differs from the stored one by no more than its tolerance.

    Args:
      key: of the file.
      actual: computed here.
      expected: stored.
      case: json of the file.
      dtype: of the run.
      loose: float32: part of its own norm by which a gradient or a later parameter may be off.
      before: of a parameter after some steps: what it was before them; then its move counts.
    """
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{key}: {actual.shape}, {expected.shape}"
    if expected.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected, err_msg=key)
        return
    expected = expected.astype(np.float64)
    error = actual.astype(np.float64) - expected
    assert np.isfinite(error).all(), f"{key} is not finite"
    far, scale = float(np.abs(error).max()), float(np.abs(expected).max())
    learnt = any(part.startswith(("grad", "param", "stat")) for part in key.split("/"))
    if jnp.dtype(dtype) == jnp.float64:
        allowed = OUTPUT64 * max(1.0, scale)
        if expected.ndim == 0:
            allowed = SCALAR64 * scale
        elif learnt:
            allowed = GRADIENT64 * float(np.sqrt(np.mean(expected**2)))
        assert far <= allowed, f"{key}: error {far:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"
        return
    noise = case["noise_float32_vs_float64"].get(key, {}).get("max_abs_gap", 0.0)
    allowed = max(10 * noise if math.isfinite(noise) else 0.0, LEAST32 * scale)
    moved = expected if before is None else expected - before
    norm, whole = float(np.linalg.norm(error)), float(np.linalg.norm(moved))
    fine = far <= allowed or (learnt and norm <= loose * whole)
    assert fine, f"{key}: error {far:.3g}, allowed {allowed:.3g}; norm of the error {norm:.3g} of {whole:.3g}"
