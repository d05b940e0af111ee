"""The name map of Hetero-Center's files."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert.identify import looks_like
from mmreid_jax.errors import UserError
from mmreid_jax.testing import goldens, tiny
from tests.methods.variants import noise


def names_of_files():
    """Names and shapes of the networks in the golden files, with sides of at most two."""
    found = []
    for path in goldens.cases("hc"):
        listed = goldens.load(path).json.get("state_dict", [])
        small = [(name, [min(side, 2) for side in shape]) for name, shape in listed]
        found += [pytest.param(small, id=path.stem)] if small else []
    return found


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("names", names_of_files())
def test_the_authors_files_round_trip(names, dropout):
    """With and without dropout the classifiers have other names; both are read, and what is never used is dropped."""
    entries = dict(goldens.recipe().state_dict(1, names))
    if dropout:
        entries = {
            name.replace(".classifier.1.", ".classifier.2.") if name.startswith("classifier") else name: value
            for name, value in entries.items()
        }
    assert "Hetero-Center" in looks_like({name: value.shape for name, value in entries.items()})
    layout = known.named("hetero_center", dropout=dropout)
    for each in (layout, known.named("hetero_center")):
        variables, report = layouts.import_state(each, entries)
        assert {name.split(".")[-2] for name in report.dropped} == {"fc"}
        assert variables["params"]["embed"]["linear"]["kernel"].shape[0] == 6
    exported = layouts.export_state(layout, variables)
    assert set(exported) == set(entries)
    for name in report.used:
        assert exported[name].dtype == entries[name].dtype
        assert exported[name].tobytes() == entries[name].tobytes(), name
    assert exported["visible_net.visible.fc.weight"].shape[0] == 1000
    third = variables["params"]["classifier"]["bias"][2]
    np.testing.assert_array_equal(third, entries[f"classifier3.classifier.{1 + dropout}.bias"])


def test_parts_are_counted_from_one():
    _, method = tiny.method("hetero_center")
    layout = method.convert_layouts()["hetero_center"]
    variables = noise(method)
    entries = layouts.export_state(layout, variables)
    assert {name.split(".")[0] for name in entries if name.startswith("feature")} == {
        f"feature{k}" for k in range(1, 7)
    }
    back, _ = layouts.import_state(layout, entries, jax.eval_shape(method.init, jax.random.key(0)))
    for wanted, got in zip(jax.tree.leaves(variables), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(got, wanted)
    wrong = {**entries, "feature0.feat_block.0.bias": entries["feature1.feat_block.0.bias"]}
    with pytest.raises(UserError, match=r"feature0\.feat_block\.0\.bias"):
        layouts.import_state(layout, wrong)
    gap = {name: value for name, value in entries.items() if not name.startswith("feature3")}
    with pytest.raises(UserError, match=r"missing.*feature3"):
        layouts.import_state(layout, gap)
