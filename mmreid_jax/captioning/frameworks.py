"""PyTorch and transformers, imported when something needs them, and the folders of their models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of


def load() -> tuple[Any, Any]:
    """The modules ``torch`` and ``transformers``, which may not look for models on a network.

    Raises:
      UserError: one of them is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch
        import transformers
    except ImportError as error:
        missing = error.name or str(error)
        raise UserError(
            f"{missing} is not installed, and captioning needs PyTorch and transformers: pip install -e '.[caption]'"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def model_folder(path: str | Path) -> Path:
    """The folder of a model in the form that transformers saves.

    Raises:
      UserError: there is none.
    """
    folder = path_of(path)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the folder of a model on this disk, nothing is downloaded")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; give the folder that a model of transformers was saved in")
    return folder


@contextlib.contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """What transformers raises on a damaged or unfit folder becomes one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise UserError(f"cannot read {what} from {folder} ({cause}); save or copy the model again") from None


def device_of(torch: Any, name: str) -> Any:
    """The torch device ``cpu``, ``cuda`` or ``auto`` (a GPU if there is one).

    Raises:
      UserError: there is no GPU for ``cuda``.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no GPU; use --device cpu")
    return torch.device(name)
