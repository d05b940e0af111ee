"""What several commands share: the flags of a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmreid_jax.data.records import Records
from mmreid_jax.flags import from_arguments
from mmreid_jax.model import Extractor


def add_model_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The flags that name a trained model."""
    parser.add_argument("--checkpoint", required=required, help="workdir of a run of main.py, or a converted directory")
    parser.epilog = "A converted directory needs --config=FILE; --config.KEY=VALUE changes what does not fit it."
    parser.add_argument("--which", choices=("best", "last"), default="best", help="of its checkpoints")


def open_model(arguments: argparse.Namespace, rest: Sequence[str]) -> Extractor:
    """The model that the flags name; `rest`: arguments that the command did not read, ``--config=FILE`` among them."""
    config = from_arguments(rest)[0] if rest else None
    return Extractor(arguments.checkpoint, arguments.which, config)


def describe(records: Records, absent: Sequence[str], one_modality: bool = False) -> str:
    """One line: what was found in a folder."""
    if one_modality:
        seen = [name for name in records.modalities if name not in absent]
        return f"{records.name}: {len(records)} samples, {', '.join(seen)}"
    missing = f"; no {', '.join(absent)} images, replaced by zeros" if absent else ""
    return f"{records.name}: {len(records)} samples{missing}"
