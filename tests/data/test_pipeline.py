import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.data import images, pipeline, samplers, tokenizer, transforms
from mmreid_jax.errors import UserError
from tests.data.noise_records import MODALITIES, damage, noise_records

OPTIONS = pipeline.ImageOptions(size=(32, 16), padding=4, flip=0.5)
PLAIN = dataclasses.replace(OPTIONS, random_crop=0.5, brightness=0.2, contrast=0.1).without_augmentation()
SEED = 7


@pytest.fixture
def records(tmp_path):
    return noise_records(tmp_path / "images", counts=(4, 2, 6, 5))


@pytest.fixture
def plan(records):
    return samplers.pk(records.identity, 2, 4, 3, 0)


def train(records, plan, options=OPTIONS, **changed):
    with pipeline.train_batches(records, plan, options, **{"seed": SEED, "threads": 0, **changed}) as batches:
        return list(batches)


def evaluate(records, batch_size, options=OPTIONS, **changed):
    with pipeline.eval_batches(records, options, batch_size, **{"threads": 0, **changed}) as batches:
        return list(batches)


def flat(batch):
    leaves = {}
    for name, value in batch.items():
        leaves.update(
            {f"{name}/{key}": leaf for key, leaf in value.items()} if isinstance(value, dict) else {name: value}
        )
    return leaves


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(map(flat, first), map(flat, second), strict=True):
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def part(batch, start, stop):
    return {
        name: {key: leaf[start:stop] for key, leaf in value.items()} if isinstance(value, dict) else value[start:stop]
        for name, value in batch.items()
    }


class TestTrainingBatch:
    def test_contents(self, records, plan):
        batches = train(records, plan)
        assert len(batches) == len(plan)
        for batch, draw in zip(batches, plan, strict=True):
            rows = draw.indices
            assert list(batch["images"]) == list(batch["erase"]) == list(MODALITIES)
            for modality in MODALITIES:
                assert batch["images"][modality].shape == (8, 32, 16, 3)
                assert batch["images"][modality].dtype == np.uint8
                assert batch["erase"][modality].shape == (8, 4)
                assert batch["erase"][modality].dtype == np.int32
            expected = {
                "identity": records.class_index()[rows],
                "camera": records.camera[rows],
                "scene": records.scene[rows],
                "index": rows,
            }
            for name, values in expected.items():
                np.testing.assert_array_equal(batch[name], values)
                assert batch[name].dtype == np.int32
            assert "valid" not in batch

    def test_pixels_are_those_of_the_transforms(self, records, plan):
        draw = plan[1]
        batch = train(records, plan)[1]
        numbers = transforms.random_numbers(SEED, 1, 8, 3)
        for i, row in enumerate(draw.indices):
            sample = images.decode_sample(records, row, records.encoded([row])[0])
            for m, modality in enumerate(MODALITIES):
                chosen = transforms.draw(transforms.Numbers(numbers[i, m]), (32, 16), padding=4, flip=0.5)
                resized = transforms.resize(sample[modality], (32, 16), "bicubic")
                expected = transforms.apply(resized, chosen, 4)
                np.testing.assert_array_equal(batch["images"][modality][i], expected)
                assert tuple(batch["erase"][modality][i]) == chosen.erase

    def test_options_of_torchreid(self, records, plan):
        options = dataclasses.replace(
            OPTIONS, erasing_form="torchreid", random_crop=0.5, brightness=0.2, contrast=0.15, interpolation="bilinear"
        )
        batch, rows = train(records, plan, options)[1], plan[1].indices
        numbers = transforms.random_numbers(SEED, 1, 8, 3)
        more = transforms.random_numbers(SEED, 1, 8, 3, transforms.NUMBERS_OF_OPTIONS, 2)
        rectangle = transforms.TORCHREID_ERASING
        for i, row in enumerate(rows):
            sample = images.decode_sample(records, row, records.encoded([row])[0])
            for m, modality in enumerate(MODALITIES):
                chosen = transforms.draw(
                    transforms.Numbers(numbers[i, m]), (32, 16), padding=4, flip=0.5, rectangle=rectangle
                )
                changes = transforms.draw_options(
                    transforms.Numbers(more[i, m]), (32, 16), random_crop=0.5, brightness=0.2, contrast=0.15
                )
                resized = transforms.resize(sample[modality], (32, 16), "bilinear")
                expected = transforms.apply(resized, dataclasses.replace(chosen, **changes), 4)
                np.testing.assert_array_equal(batch["images"][modality][i], expected)
                assert tuple(batch["erase"][modality][i]) == chosen.erase

    def test_options_leave_flip_crop_and_rectangle_alone(self, records, plan):
        options = dataclasses.replace(OPTIONS, brightness=0.5)
        for one, other in zip(train(records, plan), train(records, plan, options), strict=True):
            for modality in MODALITIES:
                np.testing.assert_array_equal(one["erase"][modality], other["erase"][modality])
                assert not np.array_equal(one["images"][modality], other["images"][modality])
                # Padding stays black whatever the light.
                black = (one["images"][modality] == 0).all(axis=-1)
                assert not other["images"][modality][black].any()

    def test_without_augmentation_images_are_those_of_the_evaluation(self, records):
        plan = samplers.sequential(len(records), len(records))
        trained, evaluated = train(records, plan, PLAIN)[0], evaluate(records, len(records))[0]
        for modality in MODALITIES:
            np.testing.assert_array_equal(trained["images"][modality], evaluated["images"][modality])
            assert not trained["erase"][modality].any()

    def test_copies_of_an_image_in_a_batch_are_augmented_differently(self, records):
        plan = samplers.pk(records.identity, 4, 4, 1, 0)  # the second identity has two images
        batch = train(records, plan)[0]
        copies = batch["images"]["rgb"][records.identity[batch["index"]] == 20]
        assert len(np.unique(copies.reshape(4, -1), axis=0)) == 4

    def test_seeds_and_steps_differ(self, records):
        plan = samplers.sequential(len(records), len(records))
        twice = samplers.shuffled(len(records), len(records), 2, 0)
        assert not np.array_equal(
            train(records, plan)[0]["images"]["rgb"], train(records, plan, seed=8)[0]["images"]["rgb"]
        )
        first, second = (batch["images"]["rgb"][np.argsort(batch["index"])] for batch in train(records, twice))
        assert not np.array_equal(first, second)


class TestSharedChoices:
    def rectangles(self, records, shared):
        plan = samplers.shuffled(len(records), len(records), 8, 0)
        options = dataclasses.replace(OPTIONS, shared=shared)
        return [np.concatenate([b["erase"][m] for b in train(records, plan, options)]) for m in MODALITIES]

    def test_shared(self, records):
        rgb, nir, tir = self.rectangles(records, True)
        np.testing.assert_array_equal(rgb, nir)
        np.testing.assert_array_equal(rgb, tir)

    def test_independent(self, records):
        rgb, nir, tir = (r[:, 2] > 0 for r in self.rectangles(records, False))
        for one, other in ((rgb, nir), (nir, tir), (rgb, tir)):
            assert abs(np.mean(one == other) - 0.5) < 0.18  # four standard errors of 136 coins

    def test_crop_and_flip_too(self, tmp_path):
        records = noise_records(tmp_path, counts=(6,), modalities=("rgb",))
        twins = dataclasses.replace(records, views={"rgb": records.views["rgb"], "nir": records.views["rgb"]})
        plan = samplers.sequential(6, 6)
        shared = train(twins, plan, dataclasses.replace(OPTIONS, shared=True))[0]["images"]
        independent = train(twins, plan)[0]["images"]
        np.testing.assert_array_equal(shared["rgb"], shared["nir"])
        assert not np.array_equal(independent["rgb"], independent["nir"])


class TestSameBatches:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_for_any_number_of_threads(self, records, plan, threads):
        assert_same(train(records, plan), train(records, plan, threads=threads))

    @pytest.mark.slow(short=True)
    def test_for_worker_processes(self, records, plan):
        assert_same(train(records, plan), train(records, plan, threads=1, workers=2))

    @pytest.mark.parametrize("start", [1, 4])
    def test_when_resumed(self, records, plan, start):
        assert_same(train(records, plan)[start:], train(records, plan, start_step=start, threads=1))

    def test_from_the_store(self, records, plan, tmp_path):
        cached = dataclasses.replace(OPTIONS, cache=str(tmp_path / "cache"))
        assert_same(train(records, plan), train(records, plan, cached))
        assert_same(evaluate(records, 5), evaluate(records, 5, cached))
        assert len(list((tmp_path / "cache").glob("*/images.npy"))) == 2  # bicubic and bilinear

    @pytest.mark.parametrize("count", [2, 4])
    def test_for_any_number_of_hosts(self, records, plan, count):
        whole = train(records, plan)
        evaluated = evaluate(records, 8)
        for index in range(count):
            start, stop = index * 8 // count, (index + 1) * 8 // count
            shard = (index, count)
            assert_same([part(batch, start, stop) for batch in whole], train(records, plan, shard=shard))
            assert_same([part(batch, start, stop) for batch in evaluated], evaluate(records, 8, shard=shard))

    def test_at_the_end_of_the_plan_nothing_is_left(self, records, plan):
        assert train(records, plan, start_step=len(plan)) == []


class TestEvaluationBatch:
    @pytest.mark.parametrize("batch_size", [1, 4, 5, 17, 30])
    def test_every_sample_once_in_order(self, records, batch_size):
        batches = evaluate(records, batch_size)
        assert all(len(batch["index"]) == batch_size for batch in batches)
        valid = np.concatenate([batch["valid"] for batch in batches])
        index = np.concatenate([batch["index"] for batch in batches])
        assert valid.dtype == bool
        np.testing.assert_array_equal(index[valid], np.arange(17))
        assert valid[:17].all()
        assert not valid[17:].any()
        assert (index[17:] == 16).all()

    def test_contents(self, records):
        batch = evaluate(records, 20)[0]
        np.testing.assert_array_equal(batch["identity"][:17], records.identity)
        np.testing.assert_array_equal(batch["camera"][:17], records.camera)
        np.testing.assert_array_equal(batch["scene"][:17], records.scene)
        assert "erase" not in batch
        for modality, view in records.views.items():
            stored = records.encoded([3])[0][view.image]
            expected = transforms.resize(images.decode(stored, "x"), (32, 16), "bilinear")
            np.testing.assert_array_equal(batch["images"][modality][3], expected)
            np.testing.assert_array_equal(batch["images"][modality][17:], batch["images"][modality][[16] * 3])


class TestBrokenImages:
    def test_error_names_the_file(self, records, plan):
        damage(records, 6)
        for threads in (0, 1):
            with pytest.raises(UserError, match=r"image 'nir' of 0006\.jpg of noise/train cannot be read"):
                train(records, plan, threads=threads)

    @pytest.mark.parametrize("cache", [False, True])
    def test_skip_shows_another_image_of_the_identity(self, records, plan, tmp_path, caplog, cache):
        damage(records, 6)
        pipeline._warn_once.cache_clear()
        skip = dataclasses.replace(PLAIN, broken="skip", cache=str(tmp_path / "cache") if cache else "")
        batches = train(records, plan, skip)
        assert any(6 in draw.indices for draw in plan)
        for batch, draw in zip(batches, plan, strict=True):
            np.testing.assert_array_equal(batch["index"], np.where(draw.indices == 6, 7, draw.indices))
            np.testing.assert_array_equal(batch["identity"], records.class_index()[draw.indices])
            for i in np.flatnonzero(draw.indices == 6):
                sample = images.decode_sample(records, 7, records.encoded([7])[0])
                expected = transforms.resize(sample["rgb"], (32, 16), "bilinear")
                np.testing.assert_array_equal(batch["images"]["rgb"][i], expected)
        assert caplog.text.count("0006.jpg of noise/train cannot be read; 0007.jpg takes its place") == 1

    def test_skip_goes_on_to_the_next_and_round(self, records):
        damage(records, 11)
        damage(records, 6)
        plan = samplers.sequential(len(records), len(records))
        index = train(records, plan, dataclasses.replace(OPTIONS, broken="skip"))[0]["index"]
        assert (index[11], index[6]) == (7, 7)

    def test_an_identity_without_any_image_is_an_error(self, records):
        damage(records, 4)
        damage(records, 5)
        plan = samplers.sequential(len(records), len(records))
        with pytest.raises(UserError, match="no image of identity 20 of noise/train can be read"):
            train(records, plan, dataclasses.replace(OPTIONS, broken="skip"))

    def test_an_evaluation_wants_them_dropped_before(self, records):
        damage(records, 6)
        skip = dataclasses.replace(OPTIONS, broken="skip")
        with pytest.raises(UserError, match=r"0006\.jpg of noise/train cannot be read; drop broken images"):
            evaluate(records, 4, skip)
        kept = images.drop_broken(records)
        assert sum(batch["valid"].sum() for batch in evaluate(kept, 4, skip)) == 16


class TestConcatenate:
    def test_rows_follow_each_other(self, tmp_path):
        query = noise_records(tmp_path / "a", counts=(2, 2), name="noise/query").select([3, 0, 2])
        gallery = noise_records(tmp_path / "b", counts=(1, 3), seed=1, name="noise/gallery")
        both = pipeline.concatenate([query, gallery, query], "noise/query+gallery")
        assert len(both) == 10
        tables = [query] * 3 + [gallery] * 4 + [query] * 3
        rows = [0, 1, 2, 0, 1, 2, 3, 0, 1, 2]
        order = np.random.default_rng(0).permutation(10)
        for i, encoded in zip(order, both.encoded(order), strict=True):
            assert encoded == tables[i].encoded([rows[i]])[0]
            assert both.identity[i] == tables[i].identity[rows[i]]
            assert both.file[i] == tables[i].file[rows[i]]

    def test_tables_must_hold_the_same_modalities(self, tmp_path):
        first = noise_records(tmp_path / "a")
        second = noise_records(tmp_path / "b", modalities=("rgb", "nir"), name="noise/pairs")
        with pytest.raises(UserError, match="noise/pairs and noise/train store their modalities differently"):
            pipeline.concatenate([first, second], "both")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (256,)}, r"size is \(256,\)"),
        ({"size": (0, 128)}, r"size is \(0, 128\)"),
        ({"padding": -1}, "padding is -1"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"erasing": -0.1}, "erasing is -0.1"),
        ({"random_crop": 2.0}, "random_crop is 2.0"),
        ({"contrast": -1.0}, "contrast is -1.0"),
        ({"erasing_form": "colour"}, "erasing_form is 'colour'; choose one of timm, torchreid"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'"),
        ({"broken": "ignore"}, "unknown policy 'ignore'"),
    ],
)
def test_options_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        pipeline.ImageOptions(**{"size": (256, 128), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": (0, 3)}, "batch 8 cannot be split among 3 processes; choose a multiple of 3"),
        ({"shard": (2, 2)}, "part 2 of 2"),
        ({"threads": -1}, "-1 threads"),
    ],
)
def test_arguments_that_make_no_sense(records, plan, changes, message):
    with pytest.raises(UserError, match=message):
        train(records, plan, **changes)


@pytest.mark.slow(short=True)
def test_processes_end_quietly_and_errors_keep_their_sentence(tmp_path):
    """With workers: an iterator left half-way, one never closed, one run to its end, and a broken image."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path

            from noise_records import damage, noise_records

            from mmreid_jax.data import pipeline, samplers
            from mmreid_jax.errors import UserError

            if __name__ == "__main__":
                records = noise_records(Path(sys.argv[1]) / "images")
                plan = samplers.pk(records.identity, 2, 2, 4, 0)
                arguments = (records, plan, pipeline.ImageOptions((32, 16)))
                with pipeline.train_batches(*arguments, seed=0, workers=1) as batches:
                    kept = list(batches)
                damage(records, 3)
                try:
                    with pipeline.train_batches(*arguments, seed=0, workers=1) as batches:
                        list(batches)
                except UserError as error:
                    print(error)
                with pipeline.eval_batches(records.select(range(3)), arguments[2], 1, workers=1) as batches:
                    next(batches)
                left = pipeline.eval_batches(records.select(range(3)), arguments[2], 1, workers=1)
                next(left)
            """
        )
    )
    here = Path(__file__).parent
    path = ":".join([str(here), str(here.parents[1])])
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": path, "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("image 'nir' of 0003.jpg of noise/train cannot be read")


class TestOneModalityASample:
    """Visible-infrared training data: each modality of a sample is another row."""

    @pytest.fixture
    def mixed(self, records):
        view = records.views["nir"]
        modality = np.where(np.arange(len(records)) % 2, "tir", "rgb")
        return dataclasses.replace(records, views={"rgb": view, "tir": view}, modality=modality)

    @pytest.fixture
    def pairs(self, mixed):
        rng = np.random.default_rng(0)
        orders = [rng.permuted(np.arange(len(mixed) // 2 * 2).reshape(-1, 2), axis=0)[:8] for _ in range(2)]
        return samplers.Plan(4, orders.__getitem__, np.array([2, 4]))

    def test_every_modality_has_its_own_row(self, mixed, pairs):
        for batch, draw in zip(train(mixed, pairs), pairs, strict=True):
            numbers = transforms.random_numbers(SEED, draw.step, 4, 2)
            assert list(batch["images"]) == ["rgb", "tir"]
            np.testing.assert_array_equal(batch["identity"], mixed.class_index()[draw.indices[:, 0]])
            np.testing.assert_array_equal(batch["index"], draw.indices[:, 0])
            for (i, m), row in np.ndenumerate(draw.indices):
                name = ("rgb", "tir")[m]
                stored = images.decode_sample(mixed, row, mixed.encoded([row])[0])[name]
                chosen = transforms.draw(transforms.Numbers(numbers[i, m]), (32, 16), padding=4, flip=0.5)
                expected = transforms.apply(transforms.resize(stored, (32, 16), "bicubic"), chosen, 4)
                np.testing.assert_array_equal(batch["images"][name][i], expected)
                assert tuple(batch["erase"][name][i]) == chosen.erase

    def test_parts_of_a_batch(self, mixed, pairs):
        whole = train(mixed, pairs)
        for index in range(2):
            own = train(mixed, pairs, shard=(index, 2))
            assert_same(own, [part(batch, 2 * index, 2 * index + 2) for batch in whole])

    def test_labels_of_the_data_set(self, mixed, pairs):
        label = np.random.default_rng(1).permutation(len(mixed)).astype(np.int32)
        batch = train(dataclasses.replace(mixed, label=label), pairs)[0]
        np.testing.assert_array_equal(batch["identity"], label[pairs[0].indices[:, 0]])

    def test_a_broken_image_gives_way_to_one_of_its_modality(self, mixed, pairs, tmp_path):
        row = int(pairs[0].indices[0, 1])
        damage(mixed, row, "nir")
        batch = train(mixed, pairs, dataclasses.replace(OPTIONS, broken="skip", erasing=0.0, padding=0, flip=0.0))[0]
        same = np.flatnonzero((mixed.identity == mixed.identity[row]) & (mixed.modality == "tir"))
        readable = [
            transforms.resize(
                images.decode_sample(mixed, r, mixed.encoded([r])[0])["tir"], (32, 16), "bicubic"
            ).tobytes()
            for r in same
            if r != row
        ]
        assert batch["images"]["tir"][0].tobytes() in readable


class TestSecondViews:
    def test_they_are_augmented_by_numbers_of_their_own(self, records, plan):
        options = dataclasses.replace(OPTIONS, second_views=("nir", "rgb"))
        batch, rows = train(records, plan, options)[1], plan[1].indices
        numbers = transforms.random_numbers(SEED, 1, 8, 5)
        assert list(batch["images"]) == list(batch["erase"]) == [*MODALITIES, "nir_2", "rgb_2"]
        for i, row in enumerate(rows):
            sample = images.decode_sample(records, row, records.encoded([row])[0])
            for m, name in enumerate((*MODALITIES, "nir", "rgb")):
                chosen = transforms.draw(transforms.Numbers(numbers[i, m]), (32, 16), padding=4, flip=0.5)
                expected = transforms.apply(transforms.resize(sample[name], (32, 16), "bicubic"), chosen, 4)
                np.testing.assert_array_equal(batch["images"][name if m < 3 else f"{name}_2"][i], expected)

    def test_evaluation_has_none(self, records):
        batch = evaluate(records, 4, dataclasses.replace(OPTIONS, second_views=("rgb",)))[0]
        assert list(batch["images"]) == list(MODALITIES)

    def test_unknown_modality(self, records, plan):
        with pytest.raises(UserError, match="second_views names 'sonar'"):
            train(records, plan, dataclasses.replace(OPTIONS, second_views=("sonar",)))


class TestViews:
    """Options of single views leave everything else as it was."""

    def test_greyscale_of_one_view(self, records, plan):
        plain, grey = train(records, plan), train(records, plan, dataclasses.replace(OPTIONS, grey_of=(("rgb", 0.5),)))
        turned = []
        for before, batch in zip(plain, grey, strict=True):
            for name in ("nir", "tir"):
                np.testing.assert_array_equal(batch["images"][name], before["images"][name])
            for name in MODALITIES:
                np.testing.assert_array_equal(batch["erase"][name], before["erase"][name])
            numbers = transforms.random_numbers(SEED, len(turned), 8, 3, 1, 4)[:, 0, 0]
            turned.append(numbers < 0.5)
            for i, now in enumerate(turned[-1]):
                image = before["images"]["rgb"][i]
                np.testing.assert_array_equal(batch["images"]["rgb"][i], transforms.grey(image) if now else image)
        assert 0 < np.mean(turned) < 1

    def test_greyscale_is_pillow_s(self):
        image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
        chosen = transforms.Augmentation(False, 0, 0, transforms.NO_RECTANGLE, grey=True)
        expected = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
        np.testing.assert_array_equal(transforms.apply(image, chosen, 0), expected)

    def test_erasing_of_one_view(self, records, plan):
        options = dataclasses.replace(OPTIONS, second_views=("rgb",), erasing=1.0, erasing_of=(("nir", 0.0),))
        always = train(records, plan, dataclasses.replace(options, erasing_of=()))
        for before, batch in zip(always, train(records, plan, options), strict=True):
            assert np.all(batch["erase"]["nir"] == 0)
            for name in ("rgb", "tir", "rgb_2"):
                np.testing.assert_array_equal(batch["erase"][name], before["erase"][name])
                assert np.all(batch["erase"][name][:, 2] > 0)
            assert_same([{"images": batch["images"]}], [{"images": before["images"]}])

    @pytest.mark.parametrize("key", ["erasing_of", "grey_of"])
    def test_mistakes(self, records, plan, key):
        with pytest.raises(UserError, match=f"{key} names 'rgb_2'"):
            train(records, plan, dataclasses.replace(OPTIONS, **{key: (("rgb_2", 0.5),)}))
        with pytest.raises(UserError, match=f"{key} of rgb is 2"):
            dataclasses.replace(OPTIONS, **{key: (("rgb", 2),)})

    def test_none_without_augmentation(self):
        options = dataclasses.replace(OPTIONS, erasing_of=(("rgb", 1.0),), grey_of=(("rgb", 1.0),), rephrased=0.5)
        assert options.without_augmentation() == OPTIONS.without_augmentation()


class TestCaptions:
    @pytest.fixture
    def spoken(self, records):
        view, rows = records.views["nir"], range(len(records))
        texts = {kind: np.array([f"{kind} number {row}" for row in rows], object) for kind in ("caption", "rephrased")}
        modality = np.where(np.arange(len(records)) % 2, "nir", "rgb")
        return dataclasses.replace(records, views={"rgb": view, "nir": view}, modality=modality, captions=texts)

    @pytest.fixture
    def pairs(self, spoken):
        orders = [np.random.default_rng(e).integers(0, len(spoken) // 2, (8, 2)) * 2 + [0, 1] for e in range(2)]
        return samplers.Plan(4, orders.__getitem__, np.array([2, 4]))

    def test_training_draws_between_caption_and_rephrasing(self, spoken, pairs):
        options = dataclasses.replace(OPTIONS, rephrased=0.5, second_views=("rgb",))
        chosen = []
        for batch, draw in zip(train(spoken, pairs, options), pairs, strict=True):
            assert list(batch["tokens"]) == ["rgb", "nir"]
            chance = transforms.random_numbers(SEED, draw.step, 4, 2, 1, 3)[..., 0]
            chosen.append(chance < 0.5)
            for m, name in enumerate(("rgb", "nir")):
                assert (batch["tokens"][name].shape, batch["tokens"][name].dtype) == ((4, tokenizer.LENGTH), np.int32)
                for i, row in enumerate(draw.indices[:, m]):
                    text = spoken.captions["rephrased" if chosen[-1][i, m] else "caption"][row]
                    np.testing.assert_array_equal(batch["tokens"][name][i], tokenizer.tokenize([text])[0])
        # The two texts of a sample are drawn independently of each other.
        assert len({tuple(pair) for pair in np.concatenate(chosen).tolist()}) == 4

    @pytest.mark.parametrize(("share", "kind"), [(0.0, "caption"), (1.0, "rephrased")])
    def test_never_and_always(self, spoken, pairs, share, kind):
        batch = train(spoken, pairs, dataclasses.replace(OPTIONS, rephrased=share))[0]
        expected = tokenizer.tokenize(spoken.captions[kind][pairs[0].indices[:, 1]].tolist())
        np.testing.assert_array_equal(batch["tokens"]["nir"], expected)

    def test_captions_change_nothing_else(self, spoken, pairs):
        options = dataclasses.replace(OPTIONS, rephrased=0.5)
        silent = train(dataclasses.replace(spoken, captions=None), pairs, options)
        for batch in (found := train(spoken, pairs, options)):
            del batch["tokens"]
        assert_same(found, silent)

    @pytest.mark.parametrize("changed", [{"start_step": 2}, {"threads": 2}, {"shard": (1, 2)}])
    def test_the_same_from_anywhere(self, spoken, pairs, changed):
        options = dataclasses.replace(OPTIONS, rephrased=0.5)
        whole = train(spoken, pairs, options)
        expected = [part(batch, 2, 4) for batch in whole] if "shard" in changed else whole
        assert_same(train(spoken, pairs, options, **changed), expected[changed.get("start_step", 0) :])

    def test_a_stand_in_brings_its_own_caption(self, spoken, pairs):
        row = int(pairs[0].indices[0, 1])
        damage(spoken, row, "nir")
        batch = train(spoken, pairs, dataclasses.replace(OPTIONS, broken="skip"))[0]
        same = (spoken.identity == spoken.identity[row]) & (spoken.modality == "nir")
        others = [r for r in np.flatnonzero(same) if r != row]
        allowed = tokenizer.tokenize(spoken.captions["caption"][others].tolist()).tolist()
        assert batch["tokens"]["nir"][0].tolist() in allowed

    def test_evaluation(self, records):
        texts = {name: np.array([f"{name} {row}" for row in range(len(records))], object) for name in ("rgb", "nir")}
        table = dataclasses.replace(records.of_modality("nir"), captions=texts)
        batches = evaluate(table, 4)
        for name, column in texts.items():
            found = np.concatenate([batch["tokens"][name][batch["valid"]] for batch in batches])
            np.testing.assert_array_equal(found, tokenizer.tokenize(column.tolist()))
            np.testing.assert_array_equal(batches[-1]["tokens"][name][-1], tokenizer.tokenize(column[-1:])[0])
        assert "tokens" not in evaluate(records, 4)[0]

    def test_aligned_images_have_one_each(self, records, plan):
        said = {name: np.array([f"{name} {row}" for row in range(len(records))], object) for name in MODALITIES}
        table = dataclasses.replace(records, captions=said)
        batches = train(table, plan, dataclasses.replace(OPTIONS, rephrased=0.5)) + evaluate(table, 4)
        for batch in batches:
            assert list(batch["tokens"]) == list(MODALITIES)
            for name, tokens in batch["tokens"].items():
                np.testing.assert_array_equal(tokens, tokenizer.tokenize(said[name][batch["index"]].tolist()))

    def test_captions_stay_with_their_rows(self, spoken):
        infrared = spoken.of_modality("nir")
        np.testing.assert_array_equal(infrared.captions["caption"], spoken.captions["caption"][1::2])
        chosen = infrared.select([2, 0])
        np.testing.assert_array_equal(chosen.captions["rephrased"], spoken.captions["rephrased"][[5, 1]])
        assert spoken.select([]).captions["caption"].shape == (0,)


@pytest.mark.slow
def test_workers_without_a_main_guard_end_in_one_line(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, tempfile\n"
        "from absl import flags\n"
        "from mmreid_jax.data import pipeline, samplers\n"
        "from mmreid_jax.errors import run_command\n"
        "from tests.data.noise_records import noise_records\n"
        "flags.FLAGS.mark_as_parsed()\n"
        "records = noise_records(pathlib.Path(tempfile.mkdtemp()))\n"
        "plan = samplers.pk(records.identity, 2, 2, 1, 0)\n"
        "options = pipeline.ImageOptions((8, 8))\n"
        "run_command(lambda: next(pipeline.train_batches(records, plan, options, seed=0, threads=1, workers=1)))\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "error: config.data.workers needs a main module that can be imported" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: a worker process of the input pipeline has died")
