"""Prefixes, wrappers and several state_dicts in one file: which of them fits a layout."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import store, torch_file
from tests.commands.test_convert import htt_entries, vit_entries
from tests.convert.foreign import FC, LINEAR, pytorch, refused, same, several, under
from tests.convert.opcodes import (
    APPEND,
    EMPTY_LIST,
    dict_of,
    number,
    tensor,
    tuple_of,
    zip_file,
)


@pytest.mark.parametrize(
    "prefix",
    ["model.", "backbone.", "encoder_q.", "base.module.", "module.model.", "net.visual._orig_mod.", "a.b.c.d."],
)
@pytest.mark.parametrize("more", [False, True])
def test_a_prefix_is_found(tmp_path, vit_variables, prefix, more):
    others = {"head.fc.weight": np.ones((5, 4)), "queue": np.ones((4, 9))} if more else {}
    path = pytorch(tmp_path / "f.pth", {**under(prefix), **others})
    found, report = store.open_weights(path, "vit")
    same(found, vit_variables)
    assert any(
        "read what is under" in note or "removed" in note or "without the parts" in note for note in report.notes
    )
    if more:
        assert any("2 other keys are left out" in note for note in report.notes)


def test_wrappers_inside_of_a_network(tmp_path):
    """DataParallel around the trunk alone."""
    names = {key.replace("base.", "base.module.", 1): value for key, value in htt_entries().items()}
    found, report = store.open_weights(pytorch(tmp_path / "f.pth", names), "htt")
    same(found, layouts.import_state(store.known.named("htt"), htt_entries())[0])
    assert "without the parts module of names" in report.notes


def test_two_networks_leave_the_choice(tmp_path, vit_variables):
    twice = {**under("encoder_q."), **under("encoder_k.", {key: -value for key, value in vit_entries().items()})}
    path = pytorch(tmp_path / "f.pth", twice)
    refused(r"several networks that fit, under 'encoder_.\.', 'encoder_.\.'; name one with --prefix",
            store.open_weights, path, "vit")  # fmt: skip
    for prefix in ("encoder_q.", "encoder_q"):
        same(store.open_weights(path, "vit", prefix=prefix)[0], vit_variables)
    refused(r"no name begins with 'encoder_z'; they begin with encoder_q, encoder_k", store.open_weights, path, "vit",
            prefix="encoder_z")  # fmt: skip


def test_what_fits_as_it_is_wins(tmp_path, vit_variables):
    path = pytorch(tmp_path / "f.pth", vit_entries())
    assert store.open_weights(path, "vit")[1].notes == []
    nothing = pytorch(tmp_path / "g.pth", {"model.a": np.ones(3), "model.b": np.ones(3)})
    refused("does not fit the layout 'vit'", store.open_weights, nothing, "vit")


def test_several_state_dicts(tmp_path):
    other = {"conv.weight": np.ones((2, 2), np.float32)}
    expected = layouts.import_state(LINEAR, FC)[0]
    found, report = store.open_weights(several(tmp_path / "f.pth", generator=other, reid=FC), LINEAR)
    same(found, expected)
    assert "found under 'reid'" in report.notes
    negative = {key: -value for key, value in FC.items()}
    path = several(tmp_path / "f.pth", best=FC, current=negative)
    refused(r"several state_dicts that fit \(best, current\); name one with --under", store.open_weights, path, LINEAR)
    same(store.open_weights(path, LINEAR, under="best")[0], expected)
    path = several(tmp_path / "f.pth", a=other, b=other)
    refused(r"several state_dicts \(a, b\), and none fits; name the one", store.open_weights, path, LINEAR)


def test_under_goes_through_lists_and_dots(tmp_path):
    inner = dict_of(**{"epoch.12": dict_of(w=tensor())})
    path = zip_file(tmp_path / "f.pth", EMPTY_LIST + dict_of(nets=inner) + APPEND)
    assert list(torch_file.state_dict(path, "0.nets.epoch.12").entries) == ["w"]
    refused(r"has nothing under '0\.nets\.x'; its keys are epoch\.12", torch_file.state_dict, path, "0.nets.x")
    refused("has nothing under '7'; its keys are numbers from 0 to 0", torch_file.state_dict, path, "7")
    pair = zip_file(tmp_path / "f.pth", tuple_of(dict_of(w=tensor()), number(3)))
    assert torch_file.state_dict(pair).under == "0"
