"""Makes a data set of one's own of a folder or a table: lists, checks, arranges, prepares, and says what came of it."""

from __future__ import annotations

import dataclasses
import pathlib

from mmreid_jax.datasets import prepare
from mmreid_jax.datasets.own import arrange, card, table, tree
from mmreid_jax.datasets.own.description import Description, Samples, check_name, described
from mmreid_jax.datasets.own.faults import Faults, FaultyData
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import OWN, path_of


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the images are and how their labels are read.

    Attributes:
      folder: of the images; None: that of the table.
      csv: table of the images; None: folders and names say all.
      pattern: see `tree.read`.
      aligned: see `arrange.arrange`.
    """

    folder: pathlib.Path | None = None
    csv: pathlib.Path | None = None
    pattern: str = ""
    aligned: bool | None = None

    @property
    def root(self) -> pathlib.Path:
        """The folder below which all images lie."""
        if self.folder is not None:
            return path_of(self.folder)
        if self.csv is None:
            raise UserError("name the images with --folder DIR or --csv FILE")
        return path_of(self.csv).absolute().parent

    def read(self, faults: Faults) -> list[arrange.FoundImage]:
        """The images; errors are those of `tree.read` and `table.read`."""
        if self.csv is None:
            return tree.read(self.root, faults, self.pattern)
        if self.pattern:
            raise UserError("--pattern reads names of files, but a table says all; leave one of them out")
        return table.read(path_of(self.csv), self.root, faults)


@dataclasses.dataclass(frozen=True)
class Made:
    """A data set of one's own that is prepared.

    Attributes:
      prepared: its records and counts.
      description: what it is.
      notes: sentences worth printing.
    """

    prepared: prepare.Prepared
    description: Description
    notes: tuple[str, ...]


def make(
    source: Source,
    name: str,
    data_dir: pathlib.Path,
    *,
    drawing: arrange.SplitDraw | None = None,
    check_images: bool = False,
    broken: str = "stop",
    follow_links: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Made:
    """Prepares the images of a folder or table as the data set ``own:NAME``.

    Args:
      source: the images.
      name: of the data set, with or without the prefix.
      data_dir: folder of prepared data sets.
      drawing: of the splits, where none are given; None: the usual one.
      check_images, broken, follow_links, force, progress: see `prepare.prepare`.

    Raises:
      FaultyData: something is wrong with the tree or table; all of it is said, and nothing is written.
      UserError: there is nothing to read, or the data set was prepared from other files before.
    """
    bare = check_name(name)
    faults = Faults()
    found = source.read(faults)
    arranged = arrange.arrange(found, faults, aligned=source.aligned, drawing=drawing or arrange.SplitDraw())
    if broken == "stop":
        paths = [each.path for each in found]
        bad = prepare.unusable(paths, source.root, decode=check_images, follow_links=follow_links, progress=progress)
        faults.add(
            "images cannot be used (--broken skip leaves them out)",
            [f"{path.relative_to(source.root)} ({why})" for path, why in bad.items()],
        )
    if faults:
        raise FaultyData(printable(source.csv or source.root), faults)
    description = Description(
        bare,
        arranged.modalities,
        arranged.aligned,
        arranged.cameras,
        arrange.counts(arranged.samples),
        arranged.split,
        arranged.captions,
    )

    def beside(samples: Samples) -> dict[str, bytes]:
        return card.files(description, arranged, samples)

    prepared = prepare.prepare(
        f"{OWN}{bare}",
        source.root,
        data_dir,
        check_images=check_images and broken != "stop",
        broken=broken,
        follow_links=follow_links,
        force=force,
        progress=progress,
        described=described(description, arranged.samples, beside),
    )
    return Made(prepared, description, arranged.notes)
