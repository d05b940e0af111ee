"""The name map of ResNets of any depth, as torchvision has them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmreid_jax.convert import known, resnet
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from tests.convert.states import assert_round_trip, resnet_entries


class TestResNet:
    @pytest.mark.parametrize("bottleneck", [True, False])
    @pytest.mark.parametrize("stages", [(3, 4, 6, 3), (2, 2, 2, 2), (1, 1)])
    def test_any_depth(self, stages, bottleneck):
        entries = resnet_entries(stages, bottleneck)
        assert_round_trip(resnet.layout(), entries)
        assert_round_trip(resnet.layout(stages=stages, bottleneck=bottleneck), entries)

    def test_whole_resnet50_is_required_by_its_name(self):
        entries = resnet_entries((3, 4, 6, 3), True)
        less = {name: value for name, value in entries.items() if not name.startswith("layer4.2.")}
        layouts.import_state(known.named("resnet"), less)
        with pytest.raises(UserError, match=r"layer4\.2\.conv1\.weight"):
            layouts.import_state(known.named("resnet50"), less)

    @pytest.mark.parametrize("missing", ["layer1.0.downsample.0.weight", "layer2.0.bn3.bias", "layer1.0.conv3.weight"])
    def test_optional_parts_come_whole(self, missing):
        """Without a model to compare with, too."""
        entries = resnet_entries((1, 1), True)
        del entries[missing]
        with pytest.raises(UserError, match=rf"1 key is missing \({re.escape(missing)}\)"):
            layouts.import_state(resnet.layout(), entries)

    def test_imagenet_classifier_is_dropped(self):
        entries = {**resnet_entries((1,), True), "fc.weight": np.ones((9, 2)), "fc.bias": np.ones(9)}
        _, report = layouts.import_state(resnet.layout(), entries)
        assert set(report.dropped) == {"fc.weight", "fc.bias"}
