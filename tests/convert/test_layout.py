"""The name-map engine: what is used, dropped, missing, unexpected, and the way back."""

from __future__ import annotations

import re

import jax
import ml_dtypes
import numpy as np
import pytest

from mmreid_jax.convert import htt, resnet, vit
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.testing import goldens
from tests.convert.states import DEPTH, WIDTH, assert_round_trip, resnet_entries, same_bits


def golden_models():
    """Every model that the golden files describe, once: name -> (seed, [[entry, shape], ...])."""
    found, seen = {}, set()
    for suite in ("htt", "resnet"):
        for path in goldens.cases(suite):
            case = goldens.load(path).json
            # Three blocks show all that twelve do.
            names = [entry for entry in case.get("state_dict", []) if block_of(entry[0]) < 3]
            if names and str(names) not in seen:
                seen.add(str(names))
                found[f"{suite}/{path.stem}"] = (case["seed"], names)
    return found


def block_of(name):
    match = re.search(r"blocks\.(\d+)\.", name)
    return int(match[1]) if match else -1


MODELS = golden_models()


def layout_of(names):
    if "classifier.weight" in names:
        return htt.layout()
    return vit.layout() if "cls_token" in names else resnet.layout(fc="fc.weight" in names)


def entries_of(key):
    seed, names = MODELS[key]
    return dict(goldens.recipe().state_dict(seed, names))


class TestModelsOfTheGoldens:
    @pytest.mark.parametrize("key", MODELS)
    def test_round_trip(self, key):
        entries = entries_of(key)
        _, report, exported = assert_round_trip(layout_of(entries), entries)
        assert all(name.startswith(("base.fc.", "head.")) for name in report.dropped)
        # HTT's own loader is strict: it gets every key.
        if "classifier.weight" in entries:
            assert set(exported) == set(entries)

    @pytest.mark.parametrize("key", [key for key in MODELS if any("qkv.bias" in name for name, _ in MODELS[key][1])])
    def test_without_qkv_bias(self, key):
        entries = {name: value for name, value in entries_of(key).items() if not name.endswith("qkv.bias")}
        variables, _, _ = assert_round_trip(layout_of(entries), entries)
        assert not any(path.endswith("qkv/bias") for path in layouts.flatten(variables))

    @pytest.mark.parametrize("key", MODELS)
    def test_float64(self, key):
        entries = entries_of(key)
        entries = {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in entries.items()}
        variables, _ = layouts.import_state(layout_of(entries), entries)
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} <= {"float64", "int32"}

    @pytest.mark.parametrize("key", MODELS)
    def test_a_key_too_few(self, key):
        entries = entries_of(key)
        _, report = layouts.import_state(layout_of(entries), entries)
        needed = [name for name in report.used if not name.endswith(("num_batches_tracked", "sie_embed", "qkv.bias"))]
        for name in needed[:: max(1, len(needed) // 9)]:
            less = {other: value for other, value in entries.items() if other != name}
            with pytest.raises(UserError, match=rf"1 key is missing \({re.escape(name)}\)"):
                layouts.import_state(layout_of(entries), less)

    @pytest.mark.parametrize("key", MODELS)
    def test_a_key_too_many(self, key):
        entries = {**entries_of(key), "extra.weight": np.zeros(3)}
        with pytest.raises(UserError, match=r"1 key is unexpected \(extra\.weight\)"):
            layouts.import_state(layout_of(entries), entries)


@pytest.fixture
def like(small):
    return layouts.import_state(vit.layout(), small)[0]


class TestImport:
    def test_blocks_are_stacked_and_transposed(self, small):
        params = layouts.import_state(vit.layout(), small)[0]["params"]
        kernel = params["blocks"]["mlp"]["fc1"]["kernel"]
        assert kernel.shape == (DEPTH, WIDTH, 2 * WIDTH)
        for block in range(DEPTH):
            np.testing.assert_array_equal(kernel[block].T, small[f"blocks.{block}.mlp.fc1.weight"])
        patch = params["patch_embed"]["kernel"]
        np.testing.assert_array_equal(np.einsum("hwio->oihw", patch), small["patch_embed.proj.weight"])

    def test_order_of_keys_is_of_no_account(self, small, like):
        shuffled = dict(reversed(small.items()))
        jax.tree.map(same_bits, layouts.import_state(vit.layout(), shuffled)[0], like)

    def test_result_owns_its_memory(self, small):
        for value in small.values():
            value.flags.writeable = False
        variables, _ = layouts.import_state(vit.layout(), small)
        for leaf in jax.tree.leaves(variables):
            assert leaf.flags.writeable
            assert not any(np.shares_memory(leaf, value) for value in small.values())

    def test_shapes_alone_suffice_as_target(self, small, like):
        target = jax.eval_shape(lambda: like)
        jax.tree.map(same_bits, layouts.import_state(vit.layout(), small, target)[0], like)

    @pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
    def test_target_decides_the_dtype(self, small, like, dtype):
        target = jax.tree.map(lambda x: np.zeros(x.shape, dtype), like)
        found, _ = layouts.import_state(vit.layout(), small, target)
        jax.tree.map(lambda a, b: same_bits(a, b.astype(dtype)), found, like)

    def test_floating_overrules_the_target(self, small, like):
        found, _ = layouts.import_state(vit.layout(), small, like, floating=np.float64)
        jax.tree.map(lambda a, b: same_bits(a, b.astype(np.float64)), found, like)

    def test_gap_between_blocks(self, small):
        small = {name.replace("blocks.1.", "blocks.7."): value for name, value in small.items()}
        with pytest.raises(UserError, match=r"blocks\.1\."):
            layouts.import_state(vit.layout(), small)

    def test_absurd_number_of_a_block(self, small):
        small["blocks.999999999.norm1.weight"] = np.zeros(WIDTH)
        with pytest.raises(UserError, match=r"keys are missing .* and \d+ more"):
            layouts.import_state(vit.layout(), small)

    def test_deeper_file_than_model(self, small, like):
        target = jax.tree_util.tree_map_with_path(
            lambda path, x: x[:2] if "blocks" in jax.tree_util.keystr(path) else x, like
        )
        with pytest.raises(UserError, match=r"12 keys are unexpected \(blocks\.2\."):
            layouts.import_state(vit.layout(), small, target)

    def test_shallower_file_than_model(self, small, like):
        less = {name: value for name, value in small.items() if not name.startswith("blocks.2.")}
        with pytest.raises(UserError, match=r"12 keys are missing .*ViT of 2 blocks, width 6"):
            layouts.import_state(vit.layout(), less, like)

    def test_other_shape_names_both(self, small, like):
        small["blocks.1.mlp.fc1.weight"] = np.zeros((9, WIDTH), np.float32)
        message = rf"blocks\.1\.mlp\.fc1\.weight: \[9, {WIDTH}\] in the file, \[{2 * WIDTH}, {WIDTH}\] in the model"
        with pytest.raises(UserError, match=message):
            layouts.import_state(vit.layout(), small, like)

    def test_ragged_blocks_without_a_model(self, small):
        small["blocks.1.mlp.fc1.weight"] = np.zeros((9, WIDTH), np.float32)
        with pytest.raises(UserError, match="of another shape"):
            layouts.import_state(vit.layout(), small)

    def test_wrong_number_of_axes(self, small):
        small["norm.weight"] = np.zeros((WIDTH, 1), np.float32)
        with pytest.raises(UserError, match=r"norm\.weight: \[6, 1\] in the file, where 1 axes belong"):
            layouts.import_state(vit.layout(), small)

    def test_integers_for_weights(self, small, like):
        small["norm.weight"] = np.ones(WIDTH, np.int64)
        with pytest.raises(UserError, match=r"norm\.weight: int64 in the file, float32 in the model"):
            layouts.import_state(vit.layout(), small, like)

    def test_some_blocks_with_an_optional_entry(self, small):
        del small["blocks.2.attn.qkv.bias"]
        with pytest.raises(UserError, match=r"blocks\.2\.attn\.qkv\.bias"):
            layouts.import_state(vit.layout(), small)

    def test_optional_entry_that_the_model_lacks(self, small, like):
        del like["params"]["blocks"]["attn"]["qkv"]["bias"]
        with pytest.raises(UserError, match=r"3 keys are unexpected \(blocks\.0\.attn\.qkv\.bias"):
            layouts.import_state(vit.layout(), small, like)

    def test_optional_entry_that_the_model_wants(self, small, like):
        less = {name: value for name, value in small.items() if not name.endswith("qkv.bias")}
        with pytest.raises(UserError, match=r"3 keys are missing \(blocks\.0\.attn\.qkv\.bias"):
            layouts.import_state(vit.layout(), less, like)

    def test_leaf_that_no_file_has(self, small, like):
        like["params"]["mystery"] = np.zeros(2)
        with pytest.raises(UserError, match=r"params/mystery \(no vit file holds it\)"):
            layouts.import_state(vit.layout(), small, like)

    def test_empty_file(self, like):
        with pytest.raises(UserError, match="looks like nothing: it holds no arrays"):
            layouts.import_state(vit.layout(), {}, like)
        with pytest.raises(UserError, match="keys are missing"):
            layouts.import_state(vit.layout(), {})


class TestKeepAndDrop:
    def test_kept_leaf_stays(self, small, like):
        start = jax.tree.map(np.zeros_like, like)
        start["params"]["norm"]["scale"] += 7
        found, report = layouts.import_state(vit.layout(), small, start, keep=["params/norm/*"])
        np.testing.assert_array_equal(found["params"]["norm"]["scale"], 7)
        assert set(report.kept) == {"params/norm/scale", "params/norm/bias"}
        assert set(report.dropped) == {"norm.weight", "norm.bias"}

    def test_kept_leaf_may_be_of_another_shape(self, small, like):
        like["params"]["norm"]["scale"] = np.zeros(99)
        found, _ = layouts.import_state(vit.layout(), small, like, keep=["params/norm/scale"])
        assert found["params"]["norm"]["scale"].shape == (99,)

    def test_kept_shape_is_an_error_of_the_caller(self, small, like):
        with pytest.raises(ValueError, match="params/norm/scale"):
            layouts.import_state(vit.layout(), small, jax.eval_shape(lambda: like), keep=["params/norm/scale"])

    def test_dropped_on_request(self, small):
        small["centers"] = np.zeros(3)
        _, report = layouts.import_state(vit.layout(), small, drop={"cent*": "not wanted"})
        assert report.dropped == {"centers": "not wanted"}

    def test_side_information_is_learned_anew(self, small, like):
        like["params"]["sie_embed"] = np.ones((2, 1, WIDTH), np.float32)
        found, report = layouts.import_state(vit.layout(), small, like)
        np.testing.assert_array_equal(found["params"]["sie_embed"], 1)
        assert "params/sie_embed" in report.kept

    def test_table_tells_the_accounts(self, small):
        small["head.weight"] = np.zeros((3, WIDTH))
        _, report = layouts.import_state(vit.layout(), small, source="weights.pth")
        table = report.table()
        assert "weights.pth: layout vit, 43 keys" in table
        assert re.search(r"used +42", table)
        assert re.search(r"dropped +1 +head\.weight: ImageNet classifier", table)


class TestExport:
    def test_leaf_without_a_name(self, like):
        like["params"]["extra"] = np.zeros(2)
        with pytest.raises(UserError, match="params/extra has no name"):
            layouts.export_state(vit.layout(), like)

    def test_incomplete_tree(self, like):
        del like["params"]["norm"]
        with pytest.raises(UserError, match="params/norm/scale, params/norm/bias is missing"):
            layouts.export_state(vit.layout(), like)

    def test_arrays_of_jax(self, small, like):
        exported = layouts.export_state(vit.layout(), jax.tree.map(jax.numpy.asarray, like))
        for name, value in small.items():
            same_bits(exported[name], value)
            assert exported[name].flags.c_contiguous


class TestComposition:
    """How later systems put layouts together."""

    def test_three_resnets_stacked(self):
        one = resnet_entries((1, 1), True)
        three = {f"backbone.{m}.{name}": value + m for m in range(3) for name, value in one.items()}
        layout = layouts.nest(resnet.layout(), "backbone.{m}.", "backbone/")
        variables, _, _ = assert_round_trip(layout, three)
        kernel = variables["params"]["backbone"]["layer1_0"]["conv1"]["kernel"]
        assert kernel.shape == (3, 1, 1, 2, 2)
        np.testing.assert_array_equal(kernel[:, 0, 0, 0, 0], [1, 2, 3])
        assert variables["batch_stats"]["backbone"]["bn1"]["count"].shape == (3,)

    def test_three_resnets_side_by_side(self):
        one = resnet_entries((1,), True)
        three = {f"backbone.{m}.{name}": value + m for m in range(3) for name, value in one.items()}
        parts = [layouts.nest(resnet.layout(), f"backbone.{m}.", f"{kind}/") for m, kind in enumerate("rnt")]
        variables, _, _ = assert_round_trip(layouts.join("three", *parts), three)
        assert set(variables["params"]) == {"r", "n", "t"}

    def test_two_stacked_numbers(self):
        rules = layouts.linear("part.{p}.head.{h}", "heads")
        entries = {}
        for part in range(2):
            for head in range(3):
                entries[f"part.{part}.head.{head}.weight"] = np.full((4, 5), 10 * part + head, np.float32)
                entries[f"part.{part}.head.{head}.bias"] = np.zeros(4, np.float32)
        variables, _, _ = assert_round_trip(layouts.Layout("heads", rules), entries)
        kernel = variables["params"]["heads"]["kernel"]
        assert kernel.shape == (2, 3, 5, 4)
        np.testing.assert_array_equal(kernel[:, :, 0, 0], [[0, 1, 2], [10, 11, 12]])

    def test_dead_trunks_are_copied_on_export(self):
        """Two-stream networks hold whole ResNets of which one part lives."""
        trunk = resnet.layout(stages=(1,))
        stem = layouts.Layout("stem", (*layouts.conv("conv1", "stem/conv1"), *layouts.batch_norm("bn1", "stem/bn1")))
        rest = layouts.Layout("rest", tuple(rule for rule in trunk.rules if rule.source.startswith("layer")))
        layout = layouts.join(
            "two-stream",
            layouts.nest(stem, "visible."),
            layouts.nest(rest, "base.", "base/"),
            layouts.unused(rest, "visible.", "never used", copied_from="base."),
        )
        live = resnet_entries((1,), True)
        entries = {f"visible.{name}": value for name, value in live.items()}
        entries.update({f"base.{n}": v + 1 for n, v in live.items() if n.startswith("layer")})
        variables, report = layouts.import_state(layout, entries)
        assert all(name.startswith("visible.layer") for name in report.dropped)
        exported = layouts.export_state(layout, variables)
        assert set(exported) == set(entries)
        same_bits(exported["visible.layer1.0.conv2.weight"], entries["base.layer1.0.conv2.weight"])

    def test_template_cannot_hold_what_prepares(self):
        with pytest.raises(ValueError, match="vit cannot be nested under a template"):
            layouts.nest(vit.layout(), "backbone.{m}.")

    def test_a_variant_that_fits_is_found(self):
        first = layouts.Layout("new", layouts.linear("head.1", "head"))
        second = layouts.Layout("old", layouts.linear("head.2", "head"))
        both = layouts.Variants("both", (first, second))
        entries = {"head.2.weight": np.ones((2, 3)), "head.2.bias": np.ones(2)}
        variables, report = layouts.import_state(both, entries)
        assert report.layout == "old"
        assert set(layouts.export_state(first, variables)) == {"head.1.weight", "head.1.bias"}
