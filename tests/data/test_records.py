"""Tables of records."""

import dataclasses

import numpy as np

from tests.data.noise_records import noise_records


def test_rows_of_one_modality(tmp_path):
    records = noise_records(tmp_path)
    modality = np.where(np.arange(len(records)) % 2, "nir", "rgb")
    view = records.views["nir"]
    mixed = dataclasses.replace(records, views={"rgb": view, "nir": view}, modality=modality)
    chosen = mixed.of_modality("nir")
    assert chosen.modalities == ("nir",)
    assert chosen.modality is None
    np.testing.assert_array_equal(chosen.file, records.file[1::2])
    aligned = records.of_modality("rgb")
    assert aligned.modalities == ("rgb",)
    assert len(aligned) == len(records)
