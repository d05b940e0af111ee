"""The name map of HTT's files: classes, centres, side information, and files of another family."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mmreid_jax.convert import htt, known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from tests.convert.states import WIDTH, same_bits


@pytest.fixture
def htt_small(small):
    entries = {f"base.{name}": value for name, value in small.items()}
    entries.update({"base.fc.weight": np.ones((1000, WIDTH), np.float32), "base.fc.bias": np.ones(1000, np.float32)})
    entries["classifier.weight"] = np.ones((5, 3 * WIDTH), np.float32)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        entries[f"bottleneck.{leaf}"] = np.full(3 * WIDTH, 2, np.float32)
    entries["bottleneck.num_batches_tracked"] = np.array(4, np.int64)
    return entries


class TestHtt:
    def test_tree(self, htt_small):
        variables, _ = layouts.import_state(htt.layout(), htt_small)
        assert set(variables) == {"params", "batch_stats"}
        assert set(variables["params"]) == {"backbone", "classifier", "bottleneck"}
        count = variables["batch_stats"]["bottleneck"]["count"]
        assert count == 4
        assert count.dtype == np.int32

    def test_strict_loaders_get_every_key(self, htt_small):
        variables, _ = layouts.import_state(htt.layout(), htt_small)
        exported = layouts.export_state(htt.layout(), variables)
        assert set(exported) == set(htt_small)
        assert not exported["base.fc.weight"].any()
        assert exported["base.fc.weight"].shape == (1000, WIDTH)
        same_bits(exported["bottleneck.num_batches_tracked"], htt_small["bottleneck.num_batches_tracked"])

    def test_old_files_count_no_batches(self, htt_small):
        del htt_small["bottleneck.num_batches_tracked"]
        variables, report = layouts.import_state(htt.layout(), htt_small)
        same_bits(variables["batch_stats"]["bottleneck"]["count"], np.array(0, np.int32))
        assert list(report.filled) == ["batch_stats/bottleneck/count"]
        again, _ = layouts.import_state(htt.layout("vit"), htt_small, variables)
        jax.tree.map(same_bits, again, variables)

    def test_other_number_of_classes(self, htt_small):
        variables, _ = layouts.import_state(htt.layout(), htt_small)
        variables["params"]["classifier"]["kernel"] = np.zeros((3 * WIDTH, 9), np.float32)
        with pytest.raises(UserError, match=r"classifier\.weight: \[5, 18\] in the file, \[9, 18\] in the model"):
            layouts.import_state(htt.layout(), htt_small, variables)
        found, _ = layouts.import_state(htt.layout(), htt_small, variables, keep=["params/classifier/kernel"])
        assert found["params"]["classifier"]["kernel"].shape == (18, 9)

    def test_centres_are_ours_alone(self, htt_small):
        variables, _ = layouts.import_state(htt.layout(), htt_small)
        variables["params"]["centers"] = np.ones((5, 18), np.float32)
        found, _ = layouts.import_state(htt.layout(), htt_small, variables)
        np.testing.assert_array_equal(found["params"]["centers"], 1)
        assert set(layouts.export_state(htt.layout(), found)) == set(htt_small)

    def test_side_information_must_be_there(self, htt_small):
        variables, _ = layouts.import_state(htt.layout(), htt_small)
        variables["params"]["backbone"]["sie_embed"] = np.ones((2, 1, WIDTH), np.float32)
        with pytest.raises(UserError, match=r"base\.sie_embed"):
            layouts.import_state(htt.layout(), htt_small, variables)

    def test_unknown_backbone(self):
        with pytest.raises(UserError, match="choose vit or resnet"):
            htt.layout("swin")

    @pytest.mark.parametrize(
        ("layout", "words"), [("vit", "trained HTT network on a ViT of 3 blocks"), ("resnet50", "HTT")]
    )
    def test_wrong_layout_names_what_the_file_is(self, htt_small, layout, words):
        with pytest.raises(UserError, match=words):
            layouts.import_state(known.named(layout), htt_small)

    def test_backbone_alone_is_no_htt_network(self, small):
        with pytest.raises(UserError, match=r"'htt'.*looks like a timm ViT of 3 blocks, width 6"):
            layouts.import_state(htt.layout(), small)
