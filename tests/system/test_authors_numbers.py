"""The commands of every system in docs/authors_numbers.md, with a checkpoint of the authors' names on drawn data."""

from __future__ import annotations

import itertools
import json
import re
import shlex

import jax
import numpy as np
import pytest

from mmreid_jax import datasets, evaluate
from mmreid_jax.commands import convert
from mmreid_jax.convert import known, layout
from mmreid_jax.experiment import open_experiment
from mmreid_jax.flags import from_arguments
from mmreid_jax.methods import base
from mmreid_jax.training import checkpoints, logs
from tests.export.models import weights
from tests.system.test_documented_commands import ROOT, lines_of

PAGE = ROOT / "docs" / "authors_numbers.md"
LINES = lines_of(PAGE)
PAIRS = [(one, other) for one, other in itertools.pairwise(LINES) if " convert " in one and "--eval_only" in other]
# Of each split, and what makes an evaluation quick.
DRAWN = {
    "data.drawn": True,
    "data.drawn_identities": 2,
    "data.drawn_images": 4,
    "eval.batch_size": 4,
    "eval.report": False,
}


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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where the drawn people of all systems lie: each data set is drawn once."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[re.search(r"authors/(\w+)", one)[1] for one, _ in PAIRS])
def test_what_the_first_command_converts_the_second_one_scores(first, second, data, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    # Each of several would get a whole image, were it of padding.
    (first_device, *_) = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: [first_device])
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: [first_device])
    flags = shlex.split(first)[4:]
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    words = [word for word in shlex.split(second)[2:] if word.startswith("--config.")]
    name = re.search(r"configs/\w+\.py", second)[0]
    # Few people; the network, its classifier and its images are of the published size, as the layout is.
    config, _ = from_arguments(
        [f"--config={name}", *words, *(f"--config.{key}={value}" for key, value in DRAWN.items())]
    )
    config.data.data_dir, config.init.checkpoint = str(data), ""
    config.model.num_classes = datasets.get(config.data.dataset).known("train").identities
    monkeypatch.chdir(tmp_path)
    method = open_experiment(config, tmp_path / "looked_at", starts=False).method
    variables = jax.tree_util.tree_map_with_path(moderate, base.shapes(method))

    (own,) = method.convert_layouts().values()
    key, beside = known.WRAPPED.get(options["--layout"], (convert.BARE, ()))
    convert.write_pytorch("authors.pth", layout.export_state(own, variables), key, beside)
    convert.main(["--layout", options["--layout"], "--source", "authors.pth", "--out", options["--out"]])

    config.init.checkpoint = options["--out"]
    evaluate.main(config, tmp_path / "scores")
    scored, _ = checkpoints.load_variables(tmp_path / "scores")
    jax.tree.map(np.testing.assert_array_equal, scored, variables)
    rows = [json.loads(line) for line in (tmp_path / "scores" / logs.SCORES_FILE).read_text().splitlines()]
    assert rows
    # Programs of a dozen large networks together take more memory than each of them does.
    jax.clear_caches()
    for row in rows:
        assert row["checkpoint"] == options["--out"]
        assert row["queries"] > 0
        assert 0 < row["mAP"] <= 1
