"""Exported files: written whole, compared with the live model first, and only over what this program wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mmreid_jax import owned
from mmreid_jax.errors import UserError
from mmreid_jax.export import checking, onnx_graph
from mmreid_jax.export.checking import Difference
from mmreid_jax.export.network import Network
from mmreid_jax.paths import read_json, whole

OUTPUT = "features"
"""Name of the result of an ONNX file."""
_PLATFORMS = ("cpu", "cuda")


def need_onnx() -> None:
    """Says how to install what ONNX needs.

    Raises:
      UserError: it is not there.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}, which is not installed; pip install 'mmreid_jax[onnx]'") from None


# ----------------------------------------------------------------------------------------------------------------- ONNX


def write_onnx(network: Network, path: Path, count: int) -> Difference:
    """Writes an ONNX file that onnxruntime has compared with the live model.

    Args:
      network: to write.
      path: of the file.
      count: samples to compare.

    Raises:
      UserError: the network has no form in ONNX, or the file makes other features.
    """
    import onnx

    model = onnx_graph.convert(network.features, network.inputs, OUTPUT, network.metadata())
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        onnx.save(model, part)
        del model
        return checking.compare(network, _session(part), count, f"the ONNX file {path}")


def _session(path: Path) -> Any:
    """inputs by name -> features, by onnxruntime."""
    import onnxruntime

    # By its bytes: onnxruntime opens no name that is not UTF-8.
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda batch: session.run([OUTPUT], dict(batch))[0]


def is_our_onnx(path: Path) -> bool:
    """Whether a file is an ONNX file that this program wrote."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False).producer_name == owned.PROGRAM
    except (OSError, DecodeError, ValueError):
        return False


# ------------------------------------------------------------------------------------------------------------ StableHLO


def beside(path: Path) -> Path:
    """The JSON file that says what a StableHLO file takes."""
    return path.with_suffix(".json")


def write_stablehlo(network: Network, path: Path, count: int) -> Difference:
    """Writes a program for `jax.export.deserialize`, and what it takes beside it.

    Args:
      network: to write.
      path: of the file.
      count: samples to compare.

    Raises:
      UserError: the file makes other features.
    """
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    arguments = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in network.inputs.values()]
    with jax.default_matmul_precision("highest"):
        made = export.export(jax.jit(network.features), platforms=_PLATFORMS)(*arguments)
    described = {
        name: {"shape": ["batch", *shape], "dtype": str(dtype)} for name, (shape, dtype) in network.inputs.items()
    }
    facts = {"written_by": owned.PROGRAM, "inputs": described, "platforms": _PLATFORMS, **network.metadata()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Both or none; the description has its name first, for it says whose the program is.
    with whole(path) as part, whole(beside(path)) as description:
        description.write_text(json.dumps(facts, indent=2) + "\n")
        part.write_bytes(made.serialize())
        program = export.deserialize(bytearray(part.read_bytes()))
        run = jax.jit(program.call)
        return checking.compare(network, lambda some: run(*some.values()), count, f"the StableHLO file {path}")


def is_described(path: Path) -> bool:
    """Whether a JSON file is one that stands beside a StableHLO file of this program."""
    try:
        facts = read_json(path)
        return isinstance(facts, Mapping) and facts["written_by"] == owned.PROGRAM and "inputs" in facts
    except (OSError, ValueError, LookupError):
        return False


def check_targets(kind: str, path: Path, overwrite: bool) -> None:
    """Says whether a file may be written, before there is one.

    Args:
      kind: ``onnx`` or ``stablehlo``.
      path: of the file.
      overwrite: whether one of this program's may be replaced.

    Raises:
      UserError: there is one that may not be replaced.
    """
    if kind == "onnx":
        owned.check_file(path, is_our_onnx, "ONNX file", overwrite)
        return
    owned.check_file(beside(path), is_described, "description of a StableHLO file", overwrite)
    owned.check_file(path, lambda file: is_described(beside(file)), "StableHLO file", overwrite)
