"""File names -> identity, camera and label of RGBNT201 and Market1501-MM against IEEE's readers."""

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data.records import Records
from mmreid_jax.datasets import catalogue, disk
from mmreid_jax.testing import goldens

# Data set of the files -> ours; the split that is read.
DATASETS = {"RGBNT201": "rgbnt201", "market1501_multimodal": "market1501_mm"}
GOLDENS = [golden for golden in map(goldens.load, goldens.cases("ieee")) if set(DATASETS) & set(golden.json)]
CASES = [
    pytest.param(golden, name, id=name) for golden in GOLDENS for name, case in golden.json.items() if name != "note"
]


@pytest.mark.parametrize(("golden", "name"), CASES)
class TestNames:
    __test__ = bool(CASES)

    def table(self, files, dataset, tmp_path, split):
        """The records of a split with these files, read as `prepare` and `catalogue.load` do, without junk."""
        folders = datasets.get(dataset).folders
        for image in folders.images.values():
            folder = tmp_path / folders.folder / folders.splits[split] / image
            folder.mkdir(parents=True)
            for name in files:
                (folder / name).touch()
        samples = disk.list_samples(folders, tmp_path / folders.folder, split)
        samples = [sample for sample in samples if sample.labels.identity != catalogue.JUNK_IDENTITY]
        columns = {key: np.array([getattr(s.labels, key) for s in samples]) for key in disk.NameLabels._fields}
        paths = {sample.file: sample.images for sample in samples}
        table = Records(
            name=dataset,
            file=np.array([sample.file for sample in samples]),
            views={},
            source=None,
            rows=np.arange(len(samples)),
            **columns,
        )
        return table, paths

    def test_nothing_is_left_out(self, golden, name):
        assert name in DATASETS
        assert set(golden.json[name]) == {"files_in_RGB_folder", "train_relabelled", "test_raw_ids"}

    @pytest.mark.parametrize(("split", "key"), [("train", "train_relabelled"), ("query", "test_raw_ids")])
    def test_identity_camera_and_label(self, golden, name, split, key, tmp_path):
        case = golden.json[name]
        table, paths = self.table(case["files_in_RGB_folder"], DATASETS[name], tmp_path, split)
        labels = table.class_index() if split == "train" else table.identity
        found = {
            file: {"pid": label, "cam": camera}
            for file, label, camera in zip(table.file.tolist(), labels.tolist(), table.camera.tolist(), strict=True)
        }
        expected = {item["RGB"]: {"pid": item["pid"], "cam": item["cam"]} for item in case[key]}
        assert found == expected
        for item in case[key]:
            images = paths[item["RGB"]]
            assert [images[modality].name for modality in ("rgb", "nir", "tir")] == [
                item[m] for m in ("RGB", "NI", "TI")
            ]
            assert set(item) == {"RGB", "NI", "TI", "pid", "cam"}
