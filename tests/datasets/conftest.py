"""Fixtures that several files of this folder share."""

import collections

import pytest

from mmreid_jax.datasets import disk, drawing


@pytest.fixture
def true_tree(tmp_path, monkeypatch):
    """Data set -> its folder as it seems to the builder: all true names, though only the lists are written."""

    def tree(dataset):
        layout = drawing.of(dataset)
        samples = drawing.plan(dataset, full=True)
        folders = collections.defaultdict(list)
        for sample in samples:
            for path in layout.paths(sample):
                folder, _, name = path.rpartition("/")
                folders[str(tmp_path / folder)].append(name)
        monkeypatch.setattr(disk, "names_in", lambda folder: sorted(folders.get(str(folder), ())))
        for path, text in layout.lists(samples).items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return tree
