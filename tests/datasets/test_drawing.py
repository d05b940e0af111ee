"""Names, counts and subset rules of the drawn data sets, without drawing.

PATHS and COUNTS of the visible-infrared ones are in SINGLE_PATHS and SINGLE_COUNTS.
"""

import collections
import csv
import dataclasses
import gzip
import re
from importlib import resources

import pytest

from mmreid_jax import datasets
from mmreid_jax.datasets import drawing, verify
from mmreid_jax.drawn import drawings
from mmreid_jax.errors import UserError

PATHS = {
    "rgbnt201": r"(train_171|test)/(RGB|NI|TI)/\d{6}_cam[1-4]_[01]_\d{2}\.jpg",
    "rgbnt201_c": r"(train_171|test)/(RGB|NI|TI)/\d{6}_cam[1-4]_[01]_\d{2}\.jpg",
    "rgbnt100": r"rgbir/(bounding_box_train|query|bounding_box_test)/\d{4}_c000[1-8]_\d{3}\.jpg",
    "rgbn300": r"rgbir/(bounding_box_train|query|bounding_box_test)/\d{4}_c000[1-8]_\d{3}\.jpg",
    "msvr310": r"(bounding_box_train|query3|bounding_box_test)/(\d{4})/(vis|ni|th)/\2_s\d{3}_v[0-7]_\d{3}\.jpg",
    "market1501_mm": r"(train|query|gallery)/(RGB|NI|TI)/(\d{4}|-1)_c[1-6]s[1-6]_\d{6}_\d{2}\.jpg",
}
COUNTS = {  # split -> (samples, identities) of the full sets
    "rgbnt201": {"train": (3951, 171), "query": (836, 30), "gallery": (836, 30)},
    "rgbnt201_c": {"train": (3951, 171), "query": (836, 30), "gallery": (836, 30)},
    "rgbnt100": {"train": (8675, 50), "query": (1715, 50), "gallery": (8575, 50)},
    "rgbn300": {"train": (25200, 150), "query": (4985, 150), "gallery": (24925, 150)},
    "msvr310": {"train": (1032, 155), "query": (591, 52), "gallery": (1055, 155)},
    "market1501_mm": {"train": (12936, 751), "query": (3368, 750), "gallery": (19732, 752)},
}
SINGLE_PATHS = {
    "sysu_mm01": r"cam[1-6]/\d{4}/\d{4}\.jpg",
    "regdb": r"(Visible/(\d+)/(fe)?male_(front|back)_v|Thermal/(\d+)/(fe)?male_(front|back)_t)_\d{5}_(\2|\5)\.bmp",
    "llcm": r"(test_)?(vis|nir)/(cam[1-9]/)?(\d{4})/\4_c0[1-9]_s\d{6}_f\d+_\2\.jpg",
}
SINGLE_COUNTS = {
    "sysu_mm01": {"train": (34167, 395), "query": (3803, 96), "gallery": (6775, 96)},
    "regdb": {"train": (4120, 206), "query": (2060, 206), "gallery": (2060, 206)},
    "llcm": {"train": (30921, 713), "query": (7166, 351), "gallery": (8680, 351)},
}
ALL_PATHS, ALL_COUNTS = PATHS | SINGLE_PATHS, COUNTS | SINGLE_COUNTS


def of(samples, split):
    return [sample for sample in samples if split in sample.splits]


@pytest.fixture(scope="module")
def full():
    return {name: drawing.plan(name, full=True) for name in drawing.names()}


def test_the_table_is_covered():
    assert set(ALL_PATHS) == set(ALL_COUNTS) == set(drawing.names())


@pytest.mark.slow_cases("full-rgbn300")
@pytest.mark.parametrize("name", ALL_PATHS)
@pytest.mark.parametrize("size", ["small", "tiny", "full"])
def test_paths_follow_the_grammar(full, name, size):
    samples = {
        "small": lambda: drawing.plan(name),
        "tiny": lambda: drawing.plan(name, identities=2, images_per_identity=2, cameras=2),
        "full": lambda: full[name],
    }[size]()
    for sample in samples:
        for path in drawing.of(name).paths(sample):
            assert re.fullmatch(ALL_PATHS[name], path), path


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("is_full", [False, True])
def test_the_builders_read_the_same_labels(full, name, is_full):
    labels = datasets.get(name).folders.labels
    for sample in full[name] if is_full else drawing.plan(name):
        found = labels(sample.file.removesuffix(".jpg"))
        assert found.identity == sample.identity
        assert found.camera == sample.seen_by
        if name in ("rgbnt201", "rgbnt201_c", "msvr310"):
            assert found.scene == sample.scene


@pytest.mark.parametrize("name", [name for name in PATHS if not datasets.get(name).single])
def test_folders_are_those_of_the_builders(name):
    drawn, read = drawing.of(name), datasets.get(name).folders
    assert drawn.root == read.folder
    assert set(drawn.folders) == set(read.splits)
    for split, folder in read.splits.items():
        assert drawn.folders[split] == "/".join(part for part in (read.inner, folder) if part)


@pytest.mark.parametrize("name", ALL_PATHS)
def test_full_sets_have_the_known_counts(full, name):
    for split, (count, identities) in ALL_COUNTS[name].items():
        inside = of(full[name], split)
        assert len(inside) == count
        assert len({sample.identity for sample in inside}) == identities
        if name != "market1501_mm":  # where the query is a moment of its own
            assert len({next(iter(drawing.of(name).paths(sample))) for sample in inside}) == count


@pytest.mark.parametrize("name", ["rgbnt201", "rgbnt100", "msvr310"])
def test_full_sets_have_exactly_the_public_names(full, name):
    table = resources.files("mmreid_jax.datasets.manifests") / f"{name}.csv.gz"
    public = collections.defaultdict(set)
    for row in csv.DictReader(gzip.decompress(table.read_bytes()).decode().splitlines()):
        public[row["split"]].add(row["file"])
    assert {sample.file for sample in of(full[name], "train")} == public["train"]
    assert {sample.file for sample in of(full[name], "gallery")} == public["test"]
    assert {sample.file for sample in of(full[name], "query")} <= public["test"]


def manifest(name):
    table = resources.files("mmreid_jax.datasets.manifests") / f"{name}.csv.gz"
    return list(csv.DictReader(gzip.decompress(table.read_bytes()).decode().splitlines()))


def test_the_full_sysu_has_the_public_numbers_of_images(full):
    public = {
        (int(row["cam"]), int(row["id"])): row["n_images_in_official_permutation"] for row in manifest("sysu_counts")
    }
    counts = collections.Counter((sample.camera, sample.identity) for sample in full["sysu_mm01"])
    assert all(count == int(public[place]) for place, count in counts.items())
    lists = drawing.of("sysu_mm01").lists(full["sysu_mm01"])
    train, val, test = (
        [int(text) for text in lists[f"exp/{name}_id.txt"].split(",")] for name in ("train", "val", "test")
    )
    assert (len(train), len(val), len(test)) == (296, 99, 96)
    assert sorted(train + val) == [int(row["original_id"]) for row in manifest("sysu_train_counts")]
    assert set(test) == {int(row["id"]) for row in manifest("sysu_official_gallery_first10")}
    assert set(public) - set(counts) == {place for place in public if place[1] not in {*train, *val, *test}}


def test_the_full_regdb_has_the_public_names_and_lists(full):
    layout = drawing.of("regdb")
    assert {path for s in full["regdb"] for path in layout.paths(s)} == {
        row["file"] for row in manifest("regdb_images")
    }
    lists = layout.lists(full["regdb"])
    assert len(lists) == 40
    for trial in range(1, 11):
        for part in ("train", "test"):
            rows = [r for r in manifest("regdb_splits") if (r["trial"], r["split"]) == (str(trial), part)]
            expected = [(row["id"], row["label"]) for row in rows for _ in range(10)]
            for folder in ("visible", "thermal"):
                lines = lists[f"idx/{part}_{folder}_{trial}.txt"].splitlines()
                assert [(line.split("/")[1], line.split()[1]) for line in lines] == expected


def test_the_full_llcm_has_the_public_lists_to_the_letter(full):
    lists = drawing.of("llcm").lists(full["llcm"])
    public = collections.defaultdict(list)
    for row in manifest("llcm"):
        public[f"idx/{row['list']}.txt"].append(f"{row['file']} {row['label']}\n")
    assert {name: text for name, text in lists.items() if name != "idx/test_id.txt"} == {
        name: "".join(lines) for name, lines in public.items()
    }
    assert len(lists["idx/test_id.txt"].split(",")) == 351


@pytest.mark.parametrize("name", SINGLE_PATHS)
def test_small_visible_infrared_sets_can_be_trained_and_evaluated(name):
    """Every identity is seen by both kinds of cameras, and every test image keeps a match after each removal rule."""
    cameras = drawing.of(name).cameras
    for numbers in (
        {},
        *(
            {"identities": 5, "images_per_identity": images, "cameras": c}
            for images in (2, 7)
            for c in range(2, cameras + 1)
        ),
    ):
        samples = drawing.plan(name, **numbers)
        infrared = drawing.of(name).modalities[1]
        train, query, gallery = (of(samples, split) for split in ("train", "query", "gallery"))
        assert {sample.identity for sample in train}.isdisjoint(sample.identity for sample in query)
        assert {sample.identity for sample in query} == {sample.identity for sample in gallery}
        for table, kinds in ((train, {"rgb", infrared}), (query, {"rgb", infrared}), (gallery, {"rgb", infrared})):
            for identity in {sample.identity for sample in table}:
                assert {s.modality for s in samples if s.identity == identity} == kinds
        for one, other in ((query, gallery), (gallery, query)):
            seen = collections.defaultdict(set)
            for sample in other:
                seen[sample.identity].add(sample.camera)
            for sample in one:
                removed = {"sysu_mm01": {2} if sample.camera == 3 else set(), "llcm": {sample.camera}}.get(name, set())
                assert seen[sample.identity] - removed


def test_trials_of_regdb_are_the_same_images_in_other_splits():
    first, third = drawing.plan("regdb"), drawing.plan("regdb/trial_3")
    assert first == drawing.plan("regdb/trial_1")
    assert [dataclasses.replace(sample, splits=()) for sample in first] == [
        dataclasses.replace(sample, splits=()) for sample in third
    ]
    assert of(first, "train") != of(third, "train")
    for samples in (first, third):
        assert {split: len(of(samples, split)) for split in ("train", "query", "gallery")} == {
            "train": 480,
            "query": 240,
            "gallery": 240,
        }


@pytest.mark.parametrize("name", SINGLE_PATHS)
def test_no_two_samples_are_the_same_shot(full, name):
    """Visible and infrared images are different moments, although drawn by the same physics."""
    for samples in (full[name], drawing.plan(name)):
        moments = {(s.identity, s.place or s.camera, s.scene, s.frame) for s in samples}
        assert len(moments) == len(samples)


def test_a_full_tree_of_names_passes_the_verification(full, tmp_path):
    """The files are empty: names alone are compared."""
    layout = drawing.of("msvr310")
    for sample in full["msvr310"]:
        for path in layout.paths(sample):
            target = tmp_path / layout.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    assert verify.check("msvr310", tmp_path).verdict == "complete"


def test_rgbnt100_queries_are_spread_evenly_over_the_gallery(full):
    per_group = collections.Counter((sample.identity, sample.camera) for sample in of(full["rgbnt100"], "query"))
    gallery = collections.Counter((sample.identity, sample.camera) for sample in of(full["rgbnt100"], "gallery"))
    assert all(per_group[group] == count / 5 for group, count in gallery.items())


@pytest.mark.parametrize("images", [4, 5, 10])
def test_small_vehicle_sets_have_queries_from_all_cameras(images):
    samples = drawing.plan("rgbnt100", identities=10, images_per_identity=images, cameras=4)
    queries = of(samples, "query")
    assert {sample.camera for sample in queries} == {1, 2, 3, 4}
    assert set(collections.Counter(sample.identity for sample in queries).values()) == {max(1, images // 5)}


def test_msvr310_queries_are_all_samples_of_identities_with_several_scenes(full):
    for samples in (full["msvr310"], drawing.plan("msvr310")):
        scenes = collections.defaultdict(set)
        for sample in of(samples, "gallery"):
            scenes[sample.identity].add(sample.scene)
        for sample in of(samples, "gallery"):
            assert ("query" in sample.splits) == (len(scenes[sample.identity]) > 1)


def test_market_has_junk_and_distractors_in_the_gallery_alone(full):
    for samples in (full["market1501_mm"], drawing.plan("market1501_mm")):
        nobody = [sample for sample in samples if sample.identity <= 0]
        assert {sample.identity for sample in nobody} == {drawings.JUNK, drawings.DISTRACTOR}
        assert {sample.splits for sample in nobody} == {("gallery",)}
    kinds = collections.Counter(sample.identity for sample in full["market1501_mm"])
    assert (kinds[drawings.JUNK], kinds[drawings.DISTRACTOR]) == (3819, 2798)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("numbers", [{}, {"identities": 3, "images_per_identity": 4, "cameras": 3}])
def test_small_sets_can_be_evaluated(name, numbers):
    samples = drawing.plan(name, **numbers)
    train, gallery, query = (of(samples, split) for split in ("train", "gallery", "query"))
    assert not {sample.identity for sample in train} & {sample.identity for sample in gallery}

    def place(sample):
        return sample.scene if name == "msvr310" else sample.camera

    seen = collections.defaultdict(set)
    for sample in gallery:
        seen[sample.identity].add(place(sample))
    assert query
    for sample in query:
        assert seen[sample.identity] - {place(sample)}, sample.file
    if name != "market1501_mm":
        assert {sample.file for sample in query} <= {sample.file for sample in gallery}


def test_the_numbers_are_obeyed():
    samples = drawing.plan("rgbnt201", identities=5, images_per_identity=7, cameras=3)
    counts = collections.Counter((sample.trained_on, sample.identity) for sample in samples)
    assert set(counts.values()) == {7}
    assert sum(trained for trained, _ in counts) == 5
    assert len(counts) == 10
    assert {sample.camera for sample in samples} == {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "rgbnt102"}, "there is no data set 'rgbnt102'"),
        ({"dataset": "llcm/trial_1"}, "llcm has no parts"),
        ({"dataset": "regdb/trial_11"}, "there is no data set"),
        ({"dataset": "regdb", "cameras": 3}, "cameras is 3"),
        ({"dataset": "rgbnt201", "cameras": 5}, "cameras is 5"),
        ({"dataset": "rgbnt201", "cameras": 1}, "cameras is 1"),
        ({"dataset": "rgbnt100", "identities": 301}, "identities is 301"),
        ({"dataset": "rgbnt100", "images_per_identity": 1}, "images_per_identity is 1"),
        ({"dataset": "rgbnt100", "full": True, "identities": 5}, "full set"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        drawing.plan(**arguments)
