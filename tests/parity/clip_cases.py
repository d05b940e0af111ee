"""What the cases of the suite ``clip`` have in common: weights, slices and tolerances, as its README says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmreid_jax.testing import goldens

# Of the README: float64 runs agree with the stored values, which are rounded to float32, to this part of the larger of
# 1 and the largest value; gradients and statistics to this part of their root mean square; scalars relatively.
ARRAYS, GRADIENTS, SCALARS = 1e-6, 1e-5, 1e-6
# And float32 runs to ten times the difference of the reference's own float32 and float64 runs; but gradients in float32
# are the same as a whole: the Euclidean norm of the error is at most this part of the gradient's. The judge is float64.
NOISE, GRADIENT_FLOAT32 = 10, 0.05


def of_kind(kind: Callable[[dict[str, Any]], bool]) -> list[Any]:
    """The case files of which `kind` of the json is true."""
    return [path for path in goldens.cases("clip") if kind(goldens.load(path).json)]


def parts(case: dict[str, Any]) -> set[str]:
    """First parts of the names of the weights of a case: ``transformer``, ``visual``, ..."""
    return {name.partition(".")[0] for name, _ in case.get("state_dict", ())}


def entries(case: dict[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch state_dict of a case."""
    made = dict(goldens.recipe().state_dict(case["seed"], case["state_dict"]))
    for name, value in case.get("overrides", {}).items():
        made[name] = np.float32(value)
    return {name: np.asarray(value) for name, value in made.items()}


def images(case: dict[str, Any], count: int, dtype: Any) -> Any:
    """The images [count, H, W, 3] of a case."""
    pixels = goldens.recipe().array(case["seed"], "image", (count, 3, *case["config"]["image_size"]))
    return jnp.asarray(np.moveaxis(pixels, 1, -1), dtype)


def cotangent(case: dict[str, Any], like: np.ndarray, dtype: Any) -> Any:
    """What the output is weighed with, for a loss."""
    return jnp.asarray(goldens.recipe().array(case["seed"], "cotangent", like.shape), dtype)


def cut(value: Any, size: int) -> np.ndarray:
    """At most `size` evenly spaced values of an array."""
    flat = np.asarray(value).reshape(-1)
    return flat[:: -(-flat.size // size)]


def of_gradients(gradients: dict[str, np.ndarray]) -> dict[str, Any]:
    """Outputs ``grad/<name>`` and ``gradnorm/<name>`` of gradients by PyTorch name."""
    out: dict[str, Any] = {}
    for name, value in gradients.items():
        out[f"grad/{name}"] = cut(value, 512)
        out[f"gradnorm/{name}"] = np.linalg.norm(np.asarray(value, np.float64))
    return out


def compare(golden: goldens.Case, dtype: Any, outputs: dict[str, Any], inputs: tuple[str, ...] = ("tokens",)) -> None:
    """Compares every stored array but the inputs; one that nothing computes is a failure."""
    wrong = []
    for key, expected in golden.arrays.items():
        if key in inputs:
            continue
        assert key in outputs, f"nothing computes {key}"
        actual = np.asarray(outputs[key]).reshape(-1) if expected.ndim == 1 else np.asarray(outputs[key])
        if expected.dtype.kind in "iu":
            np.testing.assert_array_equal(actual, expected, err_msg=key)
            continue
        assert actual.shape == expected.shape, key
        whole = dtype == jnp.float32 and key.startswith("grad")
        measure = np.linalg.norm if whole else lambda x: np.abs(x).max()
        error = float(measure(np.ravel(actual.astype(np.float64) - expected)))
        allowed = GRADIENT_FLOAT32 * float(measure(expected)) if whole else tolerance(golden, dtype, key, expected)
        wrong += [f"{key}: error {error:.3g}, allowed {allowed:.3g}"] if not error <= allowed else []
    assert not wrong, "; ".join(wrong)


def tolerance(golden: goldens.Case, dtype: Any, key: str, expected: np.ndarray) -> float:
    """The allowed error of a stored array."""
    if dtype == jnp.float32:
        return NOISE * golden.json["noise_float32_vs_float64"][key]["max_abs_gap"]
    if expected.ndim == 0:
        return SCALARS * abs(float(expected))
    if key.startswith(("grad/", "after/")):
        return GRADIENTS * float(np.sqrt(np.square(expected.astype(np.float64)).mean()))
    return ARRAYS * max(1.0, float(np.abs(expected).max()))
