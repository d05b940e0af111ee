"""The card and the contact sheet."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.disk import NameLabels, Sample
from mmreid_jax.datasets.own import card
from mmreid_jax.datasets.own.arrange import Arranged
from tests.datasets import trees
from tests.datasets.own import made


def arranged(samples, **more):
    options = {"modalities": ("rgb",), "aligned": True, "cameras": ("1", "2"), "split": "given", "captions": False}
    return Arranged(samples, **{**options, "identities": {}, "notes": (), **more})


def samples(root, cameras=2):
    listed = []
    for person in (1, 2, 3):
        for camera in range(cameras):
            path = root / f"{person}_{camera}.png"
            trees.write_image(path, (20 + camera, 50))
            listed.append(Sample(path.name, NameLabels(person, camera, 0), {"rgb": path}))
    return {"train": listed[:4], "query": listed[4:5], "gallery": listed[5:]}


def test_the_card_counts_what_is_written(tmp_path):
    there = samples(tmp_path)
    text = card.text(made.description(), arranged(there, notes=("a note",)), there)
    assert "| train | 4 | 2 |\n| query | 1 | 1 |\n| gallery | 1 | 1 |\n" in text
    assert "* cameras (number in the records: name): 0: 1, 1: 2" in text
    assert "* a note" in text
    assert "--config.data.dataset=own:mine" in text


def test_the_sheet_has_a_row_for_each_identity_and_a_column_for_each_camera(tmp_path):
    sheet = Image.open(io.BytesIO(card.contact_sheet(made.description(), samples(tmp_path))))
    height, width = card._SIZE
    assert sheet.size[1] - 40 == 3 * (height + 4)
    assert sheet.size[0] - 74 == 2 * (width + 12)


def test_without_cameras_it_shows_several_images_of_each(tmp_path):
    there = samples(tmp_path, cameras=3)
    there = {
        split: [Sample(s.file, s.labels._replace(camera=0), s.images) for s in listed]
        for split, listed in there.items()
    }
    sheet = Image.open(io.BytesIO(card.contact_sheet(made.description(cameras=()), there)))
    assert sheet.size[0] - 74 == 3 * (card._SIZE[1] + 12)


def test_an_image_that_cannot_be_decoded_is_grey(tmp_path):
    there = samples(tmp_path)
    for listed in there.values():
        for sample in listed:
            sample.images["rgb"].write_bytes(b"no image")
    pixels = np.asarray(Image.open(io.BytesIO(card.contact_sheet(made.description(), there))))
    assert (pixels[60, 100] == 128).all()


def test_names_of_identities_are_kept(tmp_path):
    there = samples(tmp_path)
    files = card.files(made.description(), arranged(there, identities={"anna": 1, 'b, "c"': 2}), there)
    assert files[catalogue.IDENTITIES] == b'identity,name\r\n1,anna\r\n2,"b, ""c"""\r\n'
    assert set(files) == {"own.json", catalogue.CARD, catalogue.SHEET, catalogue.IDENTITIES}
    assert catalogue.IDENTITIES not in card.files(made.description(), arranged(there), there)
