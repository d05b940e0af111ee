"""Layouts that are asked for by name."""

from __future__ import annotations

import pytest

from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError


class TestKnown:
    @pytest.mark.parametrize("name", known.LAYOUTS)
    def test_every_name_builds(self, name):
        assert isinstance(known.named(name), layouts.Layout | layouts.Variants)

    def test_nearest_name(self):
        with pytest.raises(UserError, match=r"'resnet5'.*perhaps 'resnet50'"):
            known.named("resnet5")
