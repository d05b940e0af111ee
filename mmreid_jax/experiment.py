"""What the loops share: the data, the method and the devices that a config describes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax import validation
from mmreid_jax.data import captions, images, pipeline
from mmreid_jax.data.records import Records, check_value_range
from mmreid_jax.datasets import catalogue, drawing, prepare, subset
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.on_device import DeviceTable, OnDevice
from mmreid_jax.paths import path_of
from mmreid_jax.training import compilation, distributed, inputs
from mmreid_jax.training.step import Parallel


@dataclasses.dataclass(frozen=True)
class Splits:
    """The three tables of a data set.

    Attributes:
      train: training samples.
      query: samples to look for.
      gallery: samples to find them among; the very object `query` where both are the same samples. Visible-infrared
        data have all test images of one modality here, of the other there; the protocol says which look for which.
    """

    train: Records
    query: Records
    gallery: Records

    def sides(self, query: Sequence[str], gallery: Sequence[str]) -> tuple[Records, Records]:
        """The tables that hold these modalities of the queries and of the gallery.

        Raises:
          UserError: there are none.
        """
        for tables in ((self.query, self.gallery), (self.gallery, self.query)):
            wanted = zip((query, gallery), tables, strict=True)
            if all(set(names) <= set(table.modalities) for names, table in wanted):
                return tables
        raise UserError(
            f"{', '.join(query)} cannot search {', '.join(gallery)}: {self.query.name} has "
            f"{', '.join(self.query.modalities)}, {self.gallery.name} {', '.join(self.gallery.modalities)}"
        )

    def facts(self) -> base.DataFacts:
        """What a method must know of the training data."""
        return base.DataFacts(
            identities=len(self.train.identities),
            cameras=int(self.train.camera.max()) + 1,
            views=len(np.unique(self.train.scene)),
            modalities=self.train.modalities,
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One config, ready to run.

    Attributes:
      config: of the experiment.
      workdir: absolute; checkpoints, logs and the report go there.
      splits: the data.
      method: the system.
      parallel: the devices.
      on_device: the tables whose images lie there.
    """

    config: Any
    workdir: Path
    splits: Splits
    method: Any
    parallel: Parallel
    on_device: OnDevice = dataclasses.field(default_factory=OnDevice)

    @property
    def drawn(self) -> bool:
        """Whether any of the data are drawn, by the config or before they were prepared."""
        tables = (self.splits.train, self.splits.query, self.splits.gallery)
        return bool(self.config.data.drawn) or any(table.drawn for table in tables)

    @property
    def data_name(self) -> str:
        """Name of the data set, for titles and tables: who reads scores must see at once that data were drawn."""
        return f"{self.config.data.dataset}{' (drawn data)' if self.drawn else ''}"

    @property
    def normalization(self) -> inputs.Normalization:
        """Of the images."""
        return normalization(self.config.data)

    @property
    def image_options(self) -> pipeline.ImageOptions:
        """How the pipeline prepares images."""
        return image_options(self.config.data)

    @property
    def shard(self) -> tuple[int, int]:
        """(index, count) of this process: the part of every batch that it loads."""
        return jax.process_index(), jax.process_count()

    def fresh_variables(self) -> base.Variables:
        """Variables that training begins with, on the host."""
        fresh = self.method.init(jax.random.key(self.config.seed))
        return jax.tree.map(np.asarray, self.method.start(fresh))

    def trained_variables(self) -> tuple[base.Variables, dict[str, Any]]:
        """Variables and meta data of ``config.init.checkpoint``, on the host.

        Raises:
          UserError: none is named, or it is not a checkpoint of this method.
        """
        chosen = self.config.init
        if not chosen.checkpoint:
            raise UserError(
                "no trained model is named; add --config.init.checkpoint=DIR, a run's workdir or a directory made by "
                "python -m mmreid_jax convert"
            )
        return base.load_trained(self.method, chosen.checkpoint, chosen.which)

    def held(self, records: Records, options: pipeline.ImageOptions, *, training: bool) -> DeviceTable:
        """The table where its images lie on the devices; an empty one where they do not."""
        return self.on_device.open(self.parallel, records, options, training=training)

    def evaluation_batches(self, records: Records, keep: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """All samples in order, in placed batches that spread evenly over the devices; `keep`: see `place_batch`.

        Rows after the table's last sample fill up the last batch.
        """
        config, images = self.config, self.image_options
        size = -(-config.eval.batch_size // self.parallel.size) * self.parallel.size
        table = self.held(records, images, training=False)
        with pipeline.eval_batches(
            records,
            images,
            size,
            threads=config.data.threads,
            workers=config.data.workers,
            shard=self.shard,
            held=table.host,
        ) as batches:
            for batch in batches:
                yield self.parallel.place_batch(batch, table.arrays, keep)


def open_experiment(
    config: Any, workdir: Path, method: base.Method | None = None, *, starts: bool = True
) -> Experiment:
    """Checks the config, finds and prepares the data, builds the method and looks for devices.

    Args:
      config: of the experiment; keys that earlier versions had not are filled in.
      workdir: absolute.
      method: one that is there already; None: that of the config, built for its data.
      starts: whether training starts from the weights that ``config.init`` names.

    Raises:
      UserError: something in the config or the data does not fit.
    """
    config = validation.complete(config)
    # A method that is there already has its weights.
    for note in validation.check(config, starts=starts and method is None, trained=method is None):
        if distributed.is_main():
            print(f"note: {note}", flush=True)
    compile_cache(config)
    compilation.choose(config.train.compiler)
    held = OnDevice(config.data.on_device, config.data.threads)
    splits = load_splits(config.data)
    return Experiment(config, workdir, splits, method or base.build(config, splits.facts()), Parallel(), held)


def compile_cache(config: Any) -> None:
    """Keeps compiled steps on disk, so that the second run of a config starts at once."""
    if config.train.compilation_cache:
        folder = path_of(config.data.data_dir).absolute() / "cache" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def normalization(data: Any) -> inputs.Normalization:
    """How the section ``config.data`` turns pixels into numbers."""
    usual = "mean" if data.erasing_form == "torchreid" else "noise"
    return inputs.Normalization(tuple(data.mean), tuple(data.std), tuple(data.erasing_fill) or usual)


def image_options(data: Any, cache: bool = True) -> pipeline.ImageOptions:
    """The section ``config.data`` as options of the pipeline; without `cache` nothing decoded is kept on disk."""
    folder = str(path_of(data.data_dir).absolute() / "cache") if cache and data.cache_gib else ""
    return pipeline.ImageOptions.of(data, folder)


def text_options(data: Any) -> captions.TextOptions | None:
    """Which captions the section ``config.data`` asks for; None for none."""
    if not data.text:
        return None
    return captions.TextOptions(data.captioner, data.rephrased, data.caption_draw, data.caption_seed)


def composite_of(data: Any) -> str:
    """How images that lie side by side are cut: the value of the key of ``config.data`` that the data set names."""
    key = datasets.get(data.dataset, data.data_dir).composite_key
    return data.get(key, "") if key else ""


def load_splits(data: Any) -> Splits:
    """The tables of ``config.data.dataset``; the data set is drawn or prepared first where that is still to be done.

    Raises:
      UserError: the data are missing; says what, how to get them, and how to run on drawn data instead.
    """
    folder = path_of(data.data_dir).absolute()
    value_range = check_value_range(data.get("value_range", ()))
    if data.drawn:
        folder = draw(data, folder)
    elif data.manual_dir or not catalogue.is_prepared(data.dataset, folder):
        # A data set prepared from another folder than the one named is noticed here, not trained on.
        manual = path_of(data.manual_dir).absolute() if data.manual_dir else folder / "manual"
        captioner = data.captioner if data.text else ""
        prepared = prepare.prepare(
            data.dataset,
            manual,
            folder,
            captioner=captioner,
            broken="skip" if data.broken_images == "skip" else "stop",
            progress=sys.stderr.isatty(),
        )
        print(prepared.report)
    load = functools.partial(
        catalogue.load, data.dataset, data_dir=folder, composite=composite_of(data), text=text_options(data)
    )
    tables = [load(split) for split in ("train", "query", "gallery")]
    tables = [dataclasses.replace(table, value_range=value_range) for table in tables]
    if tuple(data.modalities):
        tables = [with_modalities(table, tuple(data.modalities)) for table in tables]
    if data.broken_images == "skip":
        tables = [tables[0], *(images.drop_broken(table, threads=data.threads) for table in tables[1:])]
    train, query, gallery = tables
    if data.train_list:
        train = subset.listed(train, list_place(data, folder))
    if not data.labels:
        train = train.unlabelled()
    for table in tables:
        if not len(table):
            raise UserError(f"{table.name} holds no sample; prepare the data set again (python -m mmreid_jax prepare)")
    same = len(query) == len(gallery) and bool(np.all(query.file == gallery.file))
    return Splits(train, query, query if same else gallery)


def with_modalities(records: Records, chosen: tuple[str, ...]) -> Records:
    """A table of some of its modalities, in the order of the table.

    Raises:
      UserError: it lacks one of them.
    """
    absent = [name for name in chosen if name not in records.views]
    if records.modality is not None:
        raise UserError(
            f"config.data.modalities is {chosen}, but a sample of {records.name} has one modality; leave it empty"
        )
    if absent:
        raise UserError(
            f"config.data.modalities names {', '.join(absent)}, but {records.name} has {', '.join(records.views)}"
        )
    views = {name: view for name, view in records.views.items() if name in chosen}
    captions_of = records.captions and {name: texts for name, texts in records.captions.items() if name in chosen}
    return dataclasses.replace(records, views=views, captions=captions_of)


def list_place(data: Any, folder: Path) -> Path:
    """Where ``config.data.train_list`` lies: as it is written, else in the folder that the data were prepared from."""
    place, source = path_of(data.train_list), catalogue.source_of(data.dataset, folder)
    return place if place.exists() or source is None else Path(source["folder"]) / place


def draw(data: Any, folder: Path) -> Path:
    """Draws the data set of ``config.data`` and prepares it; returns the folder of the prepared data.

    Every set of parameters has a folder of its own, so that another config never changes what a run was trained on.
    """
    # The configurations of a data set ("regdb/trial_3") share their images.
    dataset = data.dataset.split("/")[0]
    numbers = (data.drawn_identities, data.drawn_images, data.drawn_shift, data.drawn_seed)
    chosen = (dataset, *numbers, drawing.VERSION)
    name = hashlib.sha256(repr(chosen).encode()).hexdigest()[:8]
    drawn = folder / "drawn" / f"{dataset}-{name}"
    if not drawn.exists():
        print(f"drawing {dataset} into {drawn}", flush=True)
    drawing.draw(
        dataset,
        drawn,
        seed=data.drawn_seed,
        identities=data.drawn_identities or None,
        images_per_identity=data.drawn_images or None,
        shift=data.drawn_shift if data.drawn_shift >= 0 else None,
        jobs=0,
        progress=sys.stderr.isatty(),
    )
    prepared = drawn / "prepared"
    # Drawn captions are younger than drawn images: earlier records may lack them.
    lacking = data.text and "text" not in (catalogue.source_of(data.dataset, prepared) or {})
    if lacking or not catalogue.is_prepared(data.dataset, prepared):
        prepare.prepare(data.dataset, drawn, prepared, progress=sys.stderr.isatty())
    return prepared


def steps_of(epoch_ends: np.ndarray, start: int) -> Iterator[tuple[int, int, bool]]:
    """Counts through a run: (step, epoch, whether the epoch ends with this step), from step `start` on."""
    epoch = int(np.searchsorted(epoch_ends, start, side="right"))
    for step in range(start, int(epoch_ends[-1])):
        last = step + 1 == epoch_ends[epoch]
        yield step, epoch, bool(last)
        epoch += last


def facts_of(config: Any, identities: int = 0, cameras: int = 0) -> tuple[base.DataFacts, str]:
    """Facts of the data set of a config and where they come from, in words.

    From the prepared data where they are there; else from what is published of the data set.

    Args:
      config: of the experiment.
      identities: training identities; 0: look them up.
      cameras: training cameras; 0: look them up.

    Raises:
      UserError: there is no such data set.
    """
    data = config.data
    dataset, composite = datasets.get(data.dataset, data.data_dir), composite_of(data)
    chosen = tuple(data.get("modalities", ()))
    modalities = tuple(name for name in dataset.views(composite) if not chosen or name in chosen)
    published = dataset.known("train")
    known, source = published.identities or published.unverified[1] or 0, "published"
    seen, scenes = 0, 1
    if data.drawn and data.drawn_identities:
        known, source = data.drawn_identities, "drawn"
    if not (identities or data.drawn) and catalogue.is_prepared(data.dataset, data.data_dir):
        table = catalogue.load(data.dataset, "train", data.data_dir, composite=composite)
        known, source = len(table.identities), "prepared data"
        seen, scenes = int(table.camera.max()) + 1, len(np.unique(table.scene))
    facts = base.DataFacts(identities or known, cameras or seen or 1, scenes, modalities)
    return facts, f"{facts.identities} training identities ({'given' if identities else source})"
