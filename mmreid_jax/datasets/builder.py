"""The TFDS builder of any data set: its records hold the images byte for byte, and the labels.

`builder_of` makes the builder of a data set by its description alone; the packages in ``tfds_builders`` give those of
this library to users of TFDS.
"""

from __future__ import annotations

import json
import pathlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mmreid_jax.data import aligned_captions
from mmreid_jax.datasets.base import Dataset
from mmreid_jax.datasets.disk import SOURCE_FILE, Sample, describe_source, find_root, list_samples, usable


class ImagesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of the data set `DATASET`, in the order in which its folders list the samples.

    With a captioner the records of a visible-infrared data set also hold its texts, see `captions.ImageText`, those of
    aligned images a caption for each modality.

    Attributes:
      DATASET: the data set; of several parts, each is a config.
      captioner: whose texts the records hold, "" for none.
      progress: wraps the list of samples of a split while it is written, for a progress bar.
      left_out: path of an image file that cannot be used -> why; samples with such an image are not written.
    """

    DATASET: ClassVar[Dataset]

    captioner: str = ""
    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = staticmethod(iter)
    left_out: Mapping[pathlib.Path, str] = types.MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        """Gives TFDS what it wants to know of a data set."""
        dataset = cls.DATASET
        cls.VERSION = tfds.core.Version(dataset.version)
        cls.RELEASE_NOTES = dict(dataset.release_notes)
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = dataset.folders.instructions
        cls.BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name=part, description="A split of the identities.") for part in dataset.parts
        ]
        super().__init_subclass__(**options)

    def __init__(self, *, captioner: str = "", **options: Any) -> None:
        """A builder of records with the texts of `captioner`, "" for none; `options` are those of TFDS."""
        self.captioner = captioner  # first, because TFDS asks for the features at once
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DATASET.description,
            citation=self.DATASET.citation,
            features=tfds.features.FeaturesDict(_features(self.DATASET, self.captioner)),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config.name if self.builder_config else ""
        folders = (self.DATASET.of_part(config) if config else self.DATASET).folders
        root = find_root(folders, dl_manager.manual_dir)
        samples = {split: usable(list_samples(folders, root, split), self.left_out) for split in folders.splits}
        every = [sample for listed in samples.values() for sample in listed]
        source = describe_source(folders, root, every, self.captioner)
        if self.left_out:
            source["left_out"] = {path.relative_to(root).as_posix(): why for path, why in self.left_out.items()}
        if self.captioner:
            source["text_checks"] = folders.check_texts(root, samples)
            samples = {
                split: folders.with_texts(root, self.captioner, split, listed) for split, listed in samples.items()
            }
        # At this time data_path is the unfinished folder, so records and source become visible in one rename.
        (pathlib.Path(self.data_path) / SOURCE_FILE).write_text(json.dumps(source, indent=1))
        for name, content in self.DATASET.beside(samples).items() if self.DATASET.beside else ():
            (pathlib.Path(self.data_path) / name).write_bytes(content)
        return {split: self._generate_examples(listed) for split, listed in samples.items()}

    def _generate_examples(self, samples: Sequence[Sample]) -> Iterator[tuple[int, dict[str, Any]]]:
        single = self.DATASET.single
        for key, sample in enumerate(self.progress(samples)):
            example = {"file": sample.file, **sample.labels._asdict(), **sample.images}
            yield key, example | (_of_single(sample) if single else _of_aligned(sample))


def builder_of(dataset: Dataset) -> type[ImagesBuilder]:
    """The builder of a data set, whoever has described it."""
    options: Any = {"skip_registration": True}
    return type("Builder", (ImagesBuilder,), {"DATASET": dataset, "name": dataset.name}, **options)


def _features(dataset: Dataset, captioner: str) -> dict[str, Any]:
    """What a record holds."""
    text, number = tfds.features.Text(), tfds.features.Scalar(np.int32)
    features: dict[str, Any] = {"identity": number, "camera": number, "scene": number, "file": text}
    if not dataset.single:
        encoding = "jpeg" if dataset.folders.jpeg_only else None
        image = tfds.features.Image(shape=(None, None, 3), encoding_format=encoding)
        features |= dict.fromkeys(dataset.folders.images, image)
        return features | dict.fromkeys(
            map(aligned_captions.feature, aligned_captions.KINDS if captioner else ()), text
        )
    features |= {"image": tfds.features.Image(shape=(None, None, 3)), "label": number, "modality": text}
    if captioner:
        features |= {"caption": text, "rephrased": text, "visible_captions": tfds.features.Sequence(text)}
    return features


def _of_single(sample: Sample) -> dict[str, Any]:
    """What a record of a single image holds beside image and labels."""
    example: dict[str, Any] = {"label": sample.label, "modality": sample.modality}
    if sample.text is not None:
        text = sample.text
        example |= {"caption": text.caption, "rephrased": text.rephrased, "visible_captions": list(text.visible)}
    return example


def _of_aligned(sample: Sample) -> dict[str, str]:
    """What a record of aligned images holds beside these and the labels."""
    return {aligned_captions.feature(modality): text for modality, text in sample.texts.items()}
