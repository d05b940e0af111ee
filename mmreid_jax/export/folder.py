"""Writes a trained model as a folder to pass on; `mmreid_jax.load` and ``--checkpoint`` open it again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax import __version__, owned
from mmreid_jax.convert import safetensors_file, shared
from mmreid_jax.convert.layout import flatten
from mmreid_jax.errors import UserError
from mmreid_jax.model import Extractor
from mmreid_jax.paths import reason_of

WHAT = "folder of an exported model"


def check_target(folder: Path, overwrite: bool) -> None:
    """Says whether a folder may be written, before there is one; see `owned.check_directory`."""
    owned.check_directory(folder, overwrite, WHAT, shared.listed)


def write(
    extractor: Extractor, folder: Path, scores: Mapping[str, float], version: str, overwrite: bool = False
) -> int:
    """Writes the folder; it appears whole or not at all.

    Args:
      extractor: the model.
      folder: to make.
      scores: of the checkpoint, by name, between 0 and 1; empty where it was not evaluated.
      version: of the records of the data set.
      overwrite: replace a folder of this program's.

    Returns:
      Numbers in the arrays.

    Raises:
      UserError: there is a folder already, or the disk does not take it.
    """
    import dataclasses

    check_target(folder, overwrite)
    # Not `ascontiguousarray`, which makes a row of a single number.
    arrays = {name: np.asarray(value, order="C") for name, value in flatten(extractor.variables).items()}
    facts: dict[str, Any] = {
        "written_by": owned.PROGRAM,
        "version": __version__,
        "library_name": owned.PROGRAM,
        "config": json.loads(extractor.config.to_json_best_effort()),
        "facts": dataclasses.asdict(extractor.method.facts),
        "feature": extractor.feature,
        "dimension": extractor.width,
        "dataset_version": version,
        "scores": dict(scores),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({reason_of(error)}); choose another place") from None
    try:
        safetensors_file.save_safetensors(beside / shared.WEIGHTS, arrays, {"format": "flax"})
        (beside / shared.CONFIG).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (beside / shared.CARD).write_text(card(facts), encoding="utf-8")
        beside.chmod(0o755)
        owned.replace_directory(beside, folder, overwrite, WHAT, shared.listed)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({reason_of(error)}); choose another place") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sum(array.size for array in arrays.values())


def card(facts: Mapping[str, Any]) -> str:
    """The card of a model, Markdown with the header that model hubs read.

    Args:
      facts: what ``config.json`` says.
    """
    config, scores = facts["config"], facts["scores"]
    dataset = config["data"]["dataset"]
    own = dataset.startswith("own:")
    rows = "\n".join(f"| {name} | {100 * value:.1f} |" for name, value in scores.items())
    table = f"| score | % |\n|---|---|\n{rows}\n" if rows else "This checkpoint was not evaluated.\n"
    licence = (
        "The weights were learned from images of their owner's; who passes them on asks that owner."
        if own
        else f"The weights were learned from {dataset}, which is given out under an agreement of its own. Most "
        "agreements allow research alone, and some say whether models may be passed on: read the one that you have "
        "signed."
    )
    return f"""---
library_name: {facts["library_name"]}
license: other
tags:
- re-identification
- {config["method"]}
- jax
---

# {config["method"]} on {dataset}

Multi-modal re-identification: sees {", ".join(facts["facts"]["modalities"])}; the feature `{facts["feature"]}` has
{facts["dimension"]} numbers.

```python
import mmreid_jax

model = mmreid_jax.load("this/folder")
features = model.embed({{"{facts["facts"]["modalities"][0]}": ["crop.jpg"]}})
```

## Scores

{table}
By the protocol `{config["eval"]["protocol"] or "usual"}` of {dataset}, records of version
{facts["dataset_version"]}, seed {config["seed"]}.

## Licence

The code of mmreid_jax is under the MIT licence. {licence}

Written by mmreid_jax {facts["version"]}.
"""
