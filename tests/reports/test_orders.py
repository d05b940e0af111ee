"""The report of a run without labels: its numbers and pictures, the orders that were scored, and no label anywhere."""

import base64
import dataclasses
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mmreid_jax import experiment
from mmreid_jax.reports import orders
from mmreid_jax.scoring import orders as scored_orders
from mmreid_jax.testing import tiny
from mmreid_jax.training.step import Parallel
from tests.visualize.html_reader import Reader

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function (workdir, config changes) -> an experiment on drawn people with two stripes, and fresh variables.

    Half of two stripes' orders are guessed, so right and wrong ones are there without training.
    """
    data = tmp_path_factory.mktemp("data")

    def make(workdir, **changes):
        options = {
            "data__drawn": True,
            "data__data_dir": str(data),
            "data__drawn_identities": 6,
            "data__drawn_images": 6,
            "data__threads": 1,
            "data__cache_gib": 0.0,
            "train__images_per_identity": 2,
            "train__compilation_cache": False,
            "model__stripes": 2,
            "eval__batch_size": 16,
        }
        config = tiny.config("mmgl", **{**options, **changes}).lock()
        opened = experiment.open_experiment(config, workdir)
        # One device: eight take longer to compile for than to run on.
        opened = dataclasses.replace(opened, parallel=Parallel(jax.devices()[:1]))
        return opened, opened.parallel.place_state(made_up_variables(opened.method))

    return make


def made_up_variables(method):
    """Variables as `init` makes them, but for the law of their weights: drawing them there takes long to compile."""
    rng = np.random.default_rng(1)
    starts = {"scale": np.ones, "var": np.ones, "bias": np.zeros, "mean": np.zeros, "count": np.zeros}

    def leaf(path, shape):
        if (name := path[-1].key) in starts:
            return starts[name](shape.shape, shape.dtype)
        return rng.normal(scale=np.prod(shape.shape[:-1]) ** -0.5, size=shape.shape).astype(shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(method.init, jax.random.key(0)))


def page_of(path):
    """Visible text of a page, and its own bytes with those of the figures beside it."""
    figures = {file.name: file.read_bytes() for file in sorted((path.parent / "figures").iterdir())}
    return " ".join(Reader(path.read_text()).text), {**figures, path.name: path.read_bytes()}


def write_log(workdir):
    """The log of a run of two epochs, evaluated before and after."""
    lines = [
        {
            "run": "train",
            "kind": "eval",
            "step": 0,
            "epoch": 0,
            "label": "untrained",
            "exact_rgb": 0.4,
            "exact_nir": 0.5,
        },
        *(
            {"run": "train", "kind": "train", "step": epoch, "epoch": epoch, "loss": 2.0 / epoch, "learning_rate": 0.1}
            | {"perm": 1.0 / epoch, "exact_rgb": 0.5, "pcc": 1.0 / epoch, "pcc_self_weight": 0.9, "norm_gradient": 1.0}
            for epoch in (1, 2)
        ),
        {"run": "train", "kind": "eval", "step": 2, "epoch": 2, "label": "epoch 2", "exact_rgb": 0.7, "exact_nir": 0.8},
    ]
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def kept():
    """What the first test of the file made, for the others."""
    return {}


@pytest.fixture
def whole(made, kept, tmp_path_factory):
    """An experiment with both branches, its variables, its rows, and the report of it."""
    if not kept:
        workdir = tmp_path_factory.mktemp("run")
        opened, variables = made(workdir)
        write_log(workdir)
        scored = scored_orders.Examiner(opened)(variables, "trained")
        rows = [*scored_orders.at_first(workdir), scored]
        kept["whole"] = opened, variables, rows, orders.write(opened, variables, rows)
    return kept["whole"]


@pytest.mark.slow(short=True)
def test_the_report_has_every_picture_and_the_numbers(whole):
    opened, _, rows, path = whole
    text, files = page_of(path)
    assert path == opened.workdir / "report.html"
    pictures = ("order_accuracy", "training_curves", "patch_health", "orders_rgb", "orders_nir")
    pictures += ("neighbours_rgb", "neighbours_nir")
    assert set(files) == {"report.html", *(f"{name}.png" for name in pictures)}
    html = path.read_text()
    for name in pictures[3:]:
        assert base64.b64encode(files[f"{name}.png"]).decode() in html, f"{name} stands on the page"
    for modality in ("rgb", "nir"):
        for kind in ("exact", "stripe", "row", "gap", "mixed"):
            assert f"{100 * rows[-1][f'{kind}_{modality}']:.2f}" in text, f"{kind}_{modality}"
    for words in (
        "MMGL on sysu_mm01 (drawn data)",
        "untrained",
        "trained",
        "guessing",
        "Recovered orders",
        "Soft nearest neighbours",
    ):
        assert words in text, words
    assert "40.0" in text, "the score before training"
    assert "drawn, not photographed" in text
    assert "model.stripes" in text


@pytest.mark.slow(short=True)
def test_headings_speak_of_the_columns(whole):
    """What heads a column of the tables is explained on the page."""
    text, _ = page_of(whole[-1])
    for kind in orders.KINDS:
        assert re.search(rf"\b{kind}: ", text), kind


def test_images_shown_as_right_are_those_scored_as_right(whole):
    _, _, rows, path = whole
    text, _ = page_of(path)
    told = {
        name: (int(a), int(n)) for name, a, n in re.findall(r"(\w+): the whole order is right in (\d+) of (\d+)", text)
    }
    assert set(told) == {"RGB", "NIR"}
    for name, (right, count) in told.items():
        assert right / count == pytest.approx(rows[-1][f"exact_{name.lower()}"], abs=1e-6)
    assert any(0 < right < count for right, count in told.values())


@pytest.mark.slow(short=True)
def test_a_sample_is_shuffled_by_its_row_in_the_table(whole):
    opened, variables, _, _ = whole
    table = opened.splits.query
    explain = orders.explainer(opened, variables)
    rows = np.arange(len(table))
    every, backwards = explain(table, rows), explain(table, rows[::-1])
    assert len(every["orders"]) == len(table)
    np.testing.assert_array_equal(backwards["orders"], every["orders"][::-1])
    np.testing.assert_allclose(backwards["predicted"], every["predicted"][::-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(every["patches"], axis=-1), 1, atol=1e-5)


@pytest.mark.slow(short=True)
def test_no_label_is_read(whole):
    opened, variables, rows, path = whole
    _, before = page_of(path)

    def garbled(table):
        columns = {name: RNG.integers(-99, 99, len(table)).astype(np.int32) for name in ("identity", "camera", "scene")}
        return dataclasses.replace(table, **columns)

    splits = experiment.Splits(*(garbled(getattr(opened.splits, name)) for name in ("train", "query", "gallery")))
    again = orders.write(dataclasses.replace(opened, splits=splits), variables, rows)
    assert page_of(again)[1] == before


def test_a_branch_that_is_not_trained_has_no_picture(whole, monkeypatch, tmp_path):
    opened, variables, _, _ = whole

    def explainer_of(names):
        def explain(table, rows):
            orders = np.tile([1, 0], (len(rows), 1))
            every = {
                "predicted": np.full((len(rows), 2, 2), 0.5),
                "assigned": orders,
                "patches": np.ones((len(rows), 2, 3)),
            }
            return {"orders": orders, **{name: every[name] for name in names}}

        return lambda experiment, variables: explain

    for names, there, absent in (
        (("patches",), "neighbours", "Recovered orders"),
        (("predicted", "assigned"), "orders", "Soft nearest neighbours"),
    ):
        monkeypatch.setattr(orders, "explainer", explainer_of(names))
        row = {"label": "trained"} | ({"exact_rgb": 0.5, "exact_nir": 0.25} if there == "orders" else {})
        alone = dataclasses.replace(opened, workdir=tmp_path / there)
        text, files = page_of(orders.write(alone, variables, [row]))
        assert set(files) == {"report.html", f"{there}_rgb.png", f"{there}_nir.png"}
        assert absent not in text
        assert ("guessing" in text) == ("25.0" in text) == (there == "orders")


def test_half_of_what_is_shown_is_right_where_it_can_be():
    wrong = np.array([0, 2, 0, 3, 0, 5, 2, 0])
    rows = orders.right_and_wrong(wrong, 4)
    assert sorted(wrong[rows].tolist()) == [0, 0, 2, 5]
    assert len(set(rows.tolist())) == 4
    for right in range(9):
        rows = orders.right_and_wrong(np.arange(8)[::-1] * (np.arange(8) >= right) + (np.arange(8) >= right), 4)
        assert len(set(rows.tolist())) == 4
        assert np.sum(rows < right) == min(right, max(2, 4 - (8 - right)))
    assert orders.right_and_wrong(np.array([3]), 4).tolist() == [0]


def test_neighbours_are_found_where_they_stand_in_the_image():
    """Patches lie in the order of shuffled images; weights are shown at the stripes of the image."""
    images, stripes, size = 5, 3, 40
    sides = []
    for name in ("rgb", "nir"):
        drawn = np.stack([RNG.permutation(stripes) for _ in range(images)])
        patches = np.eye(size)[RNG.permutation(size)[: images * stripes]].reshape(images, stripes, size)
        shown = SimpleNamespace(
            modality=name,
            records=range(images),
            outputs={"orders": drawn, "patches": patches},
            image=lambda row: row,
            label=lambda row, name=name: f"{name} {row}",
        )
        sides.append(shown)
    own, other = sides
    row, stripe = 2, 1
    place = own.outputs["orders"][row].tolist().index(stripe)
    # The same patch stands in one image of the other modality, and nearly in one of its own.
    other.outputs["patches"][4, 0] = own.outputs["patches"][row, place]
    own.outputs["patches"][3, 2] = 0.99 * own.outputs["patches"][row, place]
    found = orders.neighbour_example(own, other, row, stripe, 0.05)
    across, within = found.neighbours.values()
    assert [group[0].image for group in (across, within)] == [4, 3]
    assert np.argmax(across[0].weights) == other.outputs["orders"][4, 0]
    assert np.argmax(within[0].weights) == own.outputs["orders"][3, 2]
    assert across[0].weights.sum() > 0.99
    assert all(neighbour.image != row for neighbour in within), "a query does not find itself"
    assert "50 % of the weight would be on itself" in found.note
    assert found.label == "rgb 2, stripe 2 of 3"
