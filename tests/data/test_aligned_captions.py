"""Captions of aligned images: IDEA's files, what is wrong with them, and what they lack."""

import json

import pytest

from mmreid_jax.data import aligned_captions
from mmreid_jax.errors import UserError

FILES = {"train": ["1.jpg", "2.jpg"], "query": ["3.jpg"], "gallery": ["3.jpg", "4.jpg"]}


def written(root):
    """Captions of every image in the released form; returns part -> modality -> name -> caption."""
    names = {"train": FILES["train"], "test": FILES["gallery"]}
    texts = {
        part: {modality: {name: f"{modality} of {name}." for name in of_part} for modality in aligned_captions.KINDS}
        for part, of_part in names.items()
    }
    for part, of_modality in texts.items():
        for modality, said in of_modality.items():
            place = root / "text" / f"{part}_{ {'rgb': 'RGB', 'nir': 'NI', 'tir': 'TI'}[modality] }.json"
            place.parent.mkdir(exist_ok=True)
            place.write_text(json.dumps([{"item": name, "description": said[name]} for name in said]))
    return texts


def changed(path, change):
    """Changes the list of a file."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


def test_captions_are_found_by_the_names_of_the_images(tmp_path):
    assert aligned_captions.captioners(tmp_path) == ()
    texts = written(tmp_path)
    assert aligned_captions.captioners(tmp_path) == ("QwenVL",)
    for split, part in (("train", "train"), ("query", "test"), ("gallery", "test")):
        backwards = FILES[split][::-1]
        found = aligned_captions.read(tmp_path, split, backwards)
        assert found == [{modality: texts[part][modality][name] for modality in texts[part]} for name in backwards]


def test_what_is_written_is_what_is_released(tmp_path):
    texts = written(tmp_path)
    released = {path.name: json.loads(path.read_text()) for path in (tmp_path / "text").iterdir()}
    made = aligned_captions.write(tmp_path / "again", texts)
    assert {path.split("/")[1]: json.loads((tmp_path / "again" / path).read_text()) for path in made} == released


def test_missing_and_unknown_images_are_counted(tmp_path):
    written(tmp_path)
    line = "train 2 of 2 images, 0 without, 0 unknown; test 2 of 2 images, 0 without, 0 unknown"
    assert aligned_captions.check(tmp_path, FILES) == [f"captions of {name}: {line}" for name in ("rgb", "nir", "tir")]
    # Four of the authors' descriptions are empty, and many end in blanks.
    texts = [" \n", "fits \n\n"]
    changed(
        tmp_path / "text" / "test_NI.json",
        lambda content: [
            {"item": "other.jpg", "description": "x"},
            *({**entry, "description": text} for entry, text in zip(content, texts, strict=True)),
        ],
    )
    changed(tmp_path / "text" / "train_TI.json", lambda content: content[1:])
    rgb, nir, tir = aligned_captions.check(tmp_path, FILES)
    assert "without, 1" not in rgb
    assert nir.endswith("test 1 of 2 images, 1 without, 1 unknown")
    assert "train 1 of 2 images, 1 without, 0 unknown" in tir
    assert [row["nir"] for row in aligned_captions.read(tmp_path, "gallery", FILES["gallery"])] == ["", "fits"]
    assert [row["tir"] for row in aligned_captions.read(tmp_path, "train", FILES["train"])] == ["", "tir of 2.jpg."]


def test_any_other_word_is_another_fingerprint(tmp_path):
    written(tmp_path)
    before = aligned_captions.fingerprint(tmp_path)
    assert aligned_captions.fingerprint(tmp_path) == before
    changed(tmp_path / "text" / "test_TI.json", lambda content: content[::-1])
    assert aligned_captions.fingerprint(tmp_path) != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; get the texts again, or move .*text away"),
        ("[", "is damaged"),
        ('{"1.jpg": "red"}', "it holds no list"),
        ('[{"item": "1.jpg"}]', "entry 1 is not an item with a description"),
        ('[{"item": "1.jpg", "description": 3}]', "entry 1 is not an item"),
        ('["1.jpg"]', "entry 1 is not an item"),
        ('[{"item": "1.jpg", "description": "\\ud800"}]', "entry 1 has letters that are none in UTF-8"),
        ("[" * 200_000, "is damaged .*nested too deeply"),
        (
            '[{"item": "1.jpg", "description": "red"}, {"item": "1.jpg", "description": "blue"}]',
            "describes 1.jpg twice",
        ),
        ('[{"item": "9.jpg", "description": "red"}]', r"a caption of none of the 2 images of train \(such as 1.jpg\)"),
    ],
)
def test_a_file_that_is_no_good_is_named(tmp_path, content, message):
    written(tmp_path)
    place = tmp_path / "text" / "train_NI.json"
    if content is None:
        place.unlink()
    else:
        place.write_text(content)
    with pytest.raises(UserError, match=rf"train_NI\.json.*{message}"):
        aligned_captions.read(tmp_path, "train", FILES["train"])
