"""CLIP's weights under OpenAI's and Hugging Face's names: in, out, resized, and refused."""

from __future__ import annotations

import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.commands import convert as command
from mmreid_jax.convert import clip, store
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.models.clip import ResNetTower, TextTower
from mmreid_jax.models.vit import SIZES, VisionTransformer

WIDTH, TEXT_WIDTH, OUT, DEPTH = 32, 24, 16, 2
TEXTS = TextTower(width=TEXT_WIDTH, depth=DEPTH, heads=2, vocabulary=50, length=9, out=OUT)
VIT = VisionTransformer(SIZES["clip_vit_micro"], (32, 32))
RESNET = ResNetTower(out=OUT, heads=4, stages=(1, 1, 1, 1), width=4)
# The entries of CLIPModel(...).state_dict() of transformers 5.23; {i} counts the blocks of a tower.
IN_BLOCK = [
    f"{layer}.{kind}"
    for layer in (
        *(f"self_attn.{part}_proj" for part in ("k", "v", "q", "out")),
        *("layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2"),
    )
    for kind in ("weight", "bias")
]
HUGGING_FACE = [
    "logit_scale",
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    *(f"text_model.encoder.layers.{{i}}.{name}" for name in IN_BLOCK),
    "text_model.final_layer_norm.weight",
    "text_model.final_layer_norm.bias",
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight",
    "vision_model.pre_layrnorm.weight",
    "vision_model.pre_layrnorm.bias",
    *(f"vision_model.encoder.layers.{{i}}.{name}" for name in IN_BLOCK),
    "vision_model.post_layernorm.weight",
    "vision_model.post_layernorm.bias",
    "visual_projection.weight",
    "text_projection.weight",
]


def draw(like):
    """Random arrays of the shapes of a tree."""
    rng = np.random.default_rng(0)
    made = lambda x: rng.standard_normal(x.shape).astype(x.dtype)  # noqa: E731
    return jax.tree.map(made, like)


@pytest.fixture(params=["vit", "resnet"])
def network(request):
    """Variables of a whole small network."""
    return whole(request.param)


def whole(kind):
    key, images = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    if kind == "vit":
        tower = jax.eval_shape(VIT.init, key, images)
    else:
        tower = jax.eval_shape(lambda: RESNET.init(key, images, False))
    texts = jax.eval_shape(TEXTS.init, key, jnp.zeros((1, 9), jnp.int32))
    params = {"visual": tower["params"], "text": texts["params"], "logit_scale": jax.ShapeDtypeStruct((), np.float32)}
    stats = {"batch_stats": {"visual": tower["batch_stats"]}} if "batch_stats" in tower else {}
    return draw({"params": params, **stats})


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_openai_names_and_back(network):
    entries = layouts.export_state(clip.layout(), network)
    facts = {name: np.int64(32) for name in ("input_resolution", "context_length", "vocab_size")}
    variables, report = layouts.import_state(clip.layout(), {**entries, **facts}, network)
    same(variables, network)
    assert set(report.dropped) == set(facts)
    # Without a model to compare with, the file gives the same tree.
    same(layouts.import_state(clip.layout(), entries)[0], network)


def test_hugging_face_names_and_back():
    network = whole("vit")
    entries = layouts.export_state(clip.hugging_face_layout(), network)
    assert sorted(entries) == sorted({name.format(i=i) for name in HUGGING_FACE for i in range(DEPTH)})
    assert entries["text_projection.weight"].shape == (OUT, TEXT_WIDTH)
    assert all(entry.flags.c_contiguous for entry in entries.values())
    old = {"text_model.embeddings.position_ids": np.arange(9)[None]}
    for layout in (clip.hugging_face_layout(), clip.layout()):
        variables, report = layouts.import_state(layout, {**entries, **old}, network)
        same(variables, network)
        assert list(report.dropped) == list(old)
        assert any("Hugging Face" in note for note in report.notes)


def test_both_spellings_hold_the_same_weights():
    network = whole("vit")
    openai = layouts.export_state(clip.layout(), network)
    theirs = layouts.export_state(clip.hugging_face_layout(), network)
    same(clip.to_hugging_face(openai), theirs)
    same(clip.from_hugging_face(theirs), openai)
    joined = openai["visual.transformer.resblocks.1.attn.in_proj_weight"]
    parts = [theirs[f"vision_model.encoder.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"]
    np.testing.assert_array_equal(joined, np.concatenate(parts))


@pytest.mark.parametrize("hugging_face", [False, True])
def test_one_tower_of_a_whole_file(hugging_face):
    network = whole("vit")
    entries = layouts.export_state(clip.hugging_face_layout() if hugging_face else clip.layout(), network)
    texts, report = layouts.import_state(clip.text_only(), entries)
    same(texts["params"], network["params"]["text"])
    assert set(report.dropped) == {name for name in clip.from_hugging_face(entries) if "visual" in name} | {
        "logit_scale"
    }
    images, _ = layouts.import_state(clip.image_only(), entries)
    same(images["params"], network["params"]["visual"])
    plain, _ = layouts.import_state(clip.image_only(projected=False), entries)
    assert set(images["params"]) - set(plain["params"]) == {"proj"}


def test_towers_of_hugging_face_alone():
    network = whole("vit")
    entries = layouts.export_state(clip.hugging_face_layout(), network)
    texts = {name: value for name, value in entries.items() if name.startswith("text_")}
    same(layouts.import_state(clip.text_only(), texts)[0]["params"], network["params"]["text"])
    images = {name: value for name, value in entries.items() if name.startswith("vis")}
    same(layouts.import_state(clip.image_only(), images)[0]["params"], network["params"]["visual"])


def test_positions_fit_the_images():
    entries = layouts.export_state(clip.layout(), whole("vit"))
    variables, report = layouts.import_state(clip.image_only(grid=(8, 4)), entries)
    assert variables["params"]["pos_embed"].shape == (1, 33, WIDTH)
    np.testing.assert_array_equal(variables["params"]["pos_embed"][0, 0], entries["visual.positional_embedding"][0])
    assert any("4x4 to 8x4" in note for note in report.notes)


def test_projection_of_texts_is_stretched():
    entries = layouts.export_state(clip.layout(), whole("vit"))
    variables, report = layouts.import_state(clip.text_only(out=2 * OUT), entries)
    stretched, projection = variables["params"]["proj"], entries["text_projection"]
    assert stretched.shape == (TEXT_WIDTH, 2 * OUT)
    # Channel j lies at (j + 1/2)/2 - 1/2 of the old ones; the outermost are those at the edges.
    between = 0.75 * projection[:, :-1] + 0.25 * projection[:, 1:]
    np.testing.assert_allclose(stretched[:, 1:-1:2], between, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(stretched[:, 0], projection[:, 0].astype(np.float16))
    np.testing.assert_array_equal(stretched, stretched.astype(np.float16))
    assert any("stretched" in note for note in report.notes)
    same_width, report = layouts.import_state(clip.text_only(out=OUT), entries)
    np.testing.assert_array_equal(same_width["params"]["proj"], projection)


def few_words(tokens=(7, 0, 30), size=50):
    """A text tower's entries with the embedding of a few tokens alone, and the whole ones."""
    whole_file = layouts.export_state(clip.layout(), whole("vit"))
    entries = dict(whole_file, **{clip.TOKENS: np.array(tokens, np.int32), "vocab_size": np.array(size, np.int32)})
    entries["token_embedding.weight"] = whole_file["token_embedding.weight"][[7, 0, 30]]
    return entries, whole_file


def test_a_tower_of_few_words_holds_their_rows_alone():
    entries, whole_file = few_words()
    variables, report = layouts.import_state(clip.text_only(), entries)
    table = variables["params"]["token_embed"]
    np.testing.assert_array_equal(table[[7, 0, 30]], whole_file["token_embedding.weight"][[7, 0, 30]])
    assert table.shape == (50, TEXT_WIDTH)
    assert np.flatnonzero(table.any(1)).tolist() == [0, 7, 30]
    assert "3 of 50 tokens have an embedding" in report.notes


@pytest.mark.parametrize(("tokens", "size", "line"), [((1, 2), 50, "as many rows"), ((7, 0, 30), 30, "beyond the 30")])
def test_words_that_do_not_fit_their_rows_are_an_error(tokens, size, line):
    with pytest.raises(UserError, match=line):
        layouts.import_state(clip.text_only(), few_words(tokens, size)[0])


def test_tables_of_a_pooling_are_stretched():
    entries = layouts.export_state(clip.layout(), whole("resnet"))
    entries = {name.removeprefix("visual."): value for name, value in entries.items() if name.startswith("visual.")}
    variables, report = layouts.import_state(clip.resnet_layout(places=6, out=24), entries)
    pooling = variables["params"]["attnpool"]
    assert pooling["pos_embed"].shape == (7, 128)
    assert pooling["proj"]["kernel"].shape == (128, 24)
    assert pooling["proj"]["bias"].shape == (24,)
    assert len(report.notes) == 3


def test_missing_thirds_are_an_error():
    entries = layouts.export_state(clip.hugging_face_layout(), whole("vit"))
    gone = "text_model.encoder.layers.1.self_attn.q_proj.weight"
    with pytest.raises(UserError, match=re.escape(f"lacks {gone}")):
        layouts.import_state(clip.text_only(), {name: value for name, value in entries.items() if name != gone})


def test_unknown_names_are_an_error():
    entries = layouts.export_state(clip.hugging_face_layout(), whole("vit"))
    with pytest.raises(UserError, match=r"1 key is unexpected \(text_model\.extra\)"):
        layouts.import_state(clip.layout(), {**entries, "text_model.extra": np.zeros(3)})


@pytest.mark.parametrize("name", ["clip", "clip_hf"])
def test_command_converts_resizes_and_exports(name, tmp_path):
    network = whole("vit")
    source, back = str(tmp_path / "source.safetensors"), str(tmp_path / "back.safetensors")
    command.write_safetensors(source, layouts.export_state(clip.hugging_face_layout(), network))
    command.convert(source, name, str(tmp_path / "whole"))
    command.export(str(tmp_path / "whole"), back, "clip_hf")
    same(store.open_weights(back, "clip")[0], network)
    command.convert(source, name, str(tmp_path / "resized"), size=(64, 32))
    resized, _ = store.load(tmp_path / "resized")
    assert resized["params"]["visual"]["pos_embed"].shape == (1, 33, WIDTH)


def test_layouts_that_write_other_names_are_no_parts():
    with pytest.raises(ValueError, match="clip_hf cannot be part"):
        layouts.nest(clip.hugging_face_layout(), "model.")


# CRC-32 of what PyTorch 2.13 makes on a CPU of tables with (length, new length), as a line: bilinear, channels last.
PYTORCH = {
    "float32": {
        (50, 37): 3363740130,
        (50, 85): 331343358,
        (50, 129): 3307669500,
        (64, 150): 2785982412,
        (64, 20): 3764480260,
    },
    "float16": {
        (50, 37): 1030475779,
        (50, 85): 474435649,
        (50, 129): 1053222149,
        (64, 150): 2982424589,
        (64, 20): 1564562183,
    },
}


@pytest.mark.parametrize(
    ("dtype", "old", "new"), [(dtype, *size) for dtype, sizes in PYTORCH.items() for size in sizes]
)
def test_a_line_of_any_length_is_pytorchs_to_the_bit(dtype, old, new):
    drawn = np.random.Generator(np.random.PCG64([old])).standard_normal((old, 16)).astype(np.float32)
    stretched = clip.stretch((drawn * np.float32(0.02)).astype(dtype), new)
    assert stretched.dtype == dtype
    assert zlib.crc32(stretched.tobytes()) == PYTORCH[dtype][old, new]
