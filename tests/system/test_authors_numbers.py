"""The commands of every system in docs/authors_numbers.md, with a checkpoint of the authors' names on drawn data."""

from __future__ import annotations

import itertools
import re
import shlex

import jax
import numpy as np
import pytest

from mmreid_jax import validation
from mmreid_jax.commands import convert
from mmreid_jax.convert import known, layout
from mmreid_jax.experiment import facts_of
from mmreid_jax.flags import from_arguments
from mmreid_jax.methods import base
from tests.export.models import weights
from tests.system.test_documented_commands import ROOT, lines_of, tiny_changes

PAGE = ROOT / "docs" / "authors_numbers.md"
LINES = lines_of(PAGE)
PAIRS = [(one, other) for one, other in itertools.pairwise(LINES) if " convert " in one and "--eval_only" in other]


def moderate(path, leaf):
    """Weights that fifty layers do not let overflow."""
    return (weights(path, leaf) * (0.3 if leaf.ndim == 4 else 1)).astype(leaf.dtype)


def test_every_published_system_has_its_commands():
    names = [re.search(r"configs/\w+\.py", line)[0] for _, line in PAIRS]
    methods = {from_arguments([f"--config={name}"])[0].method for name in names}
    assert methods == set(base.names()) - {"mmgl"}
    for one, other in PAIRS:
        assert re.search(r"--out (\S+)", one)[1] == re.search(r"init\.checkpoint=(\S+)", other)[1]
        assert "--config.parity=released" in other


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[re.search(r"authors/(\w+)", one)[1] for one, _ in PAIRS])
def test_what_the_first_command_converts_the_second_one_loads(first, second, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags = shlex.split(first)[4:]
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    words = [word for word in shlex.split(second)[2:] if word.startswith("--config")]
    name = re.search(r"configs/\w+\.py", second)[0]
    changes = tiny_changes(f"python main.py --config {name}", str(tmp_path / "data"))
    # The network and its images are of the published size, as the layout is.
    changes = [each for each in changes if not each.startswith(("--config.model.", "--config.data.image_size"))]
    config, _ = from_arguments([f"--config={name}", *(word for word in words if word != "--config"), *changes])
    monkeypatch.chdir(tmp_path)
    config.init.checkpoint = ""
    method = base.build(validation.complete(config), facts_of(config, config.data.drawn_identities)[0])
    variables = jax.tree_util.tree_map_with_path(moderate, base.shapes(method))

    (own,) = method.convert_layouts().values()
    key, beside = known.WRAPPED.get(options["--layout"], (convert.BARE, ()))
    convert.write_pytorch("authors.pth", layout.export_state(own, variables), key, beside)
    convert.main(["--layout", options["--layout"], "--source", "authors.pth", "--out", options["--out"]])

    config.init.checkpoint = str(tmp_path / options["--out"])
    loaded, _ = base.load_trained(method, config.init.checkpoint, "best")
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
