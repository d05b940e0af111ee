"""The functions of ``mmreid_jax``: a trained model in a line, scores of features, training, data.

They stand on the rooms of this package and add nothing to them. What each needs is imported when it is called, so that
scoring features needs no data stack. Mistakes raise `mmreid_jax.UserError`, whose text says what to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    from mmreid_jax.convert.layout import ImportReport
    from mmreid_jax.datasets.own.making import Made
    from mmreid_jax.datasets.prepare import Prepared
    from mmreid_jax.model import Model
    from mmreid_jax.retrieval.metrics import Labels, Scores, Trials
    from mmreid_jax.retrieval.rerank import RerankOptions

__all__ = ["adapt", "convert", "datasets", "evaluate", "load", "methods", "prepare", "prepare_own", "train"]


def load(checkpoint: str | Path, *, config: Any = None, which: Literal["best", "last"] = "best") -> Model:
    """A trained model.

    Args:
      checkpoint: the workdir of a run (of `train` or ``main.py``); its folder ``adaptation`` for what test-time
        training made of it; or with a config what `convert` wrote.
      config: of the experiment, a ConfigDict or the path of a config file; None: what the workdir says.
      which: of a run's checkpoints, the one with the best score or the last.

    Raises:
      UserError: there is no trained model, it does not say its config, or does not fit the one given.
    """
    from mmreid_jax.model import Extractor, Model

    return Model(Extractor(checkpoint, which, None if config is None else _config(config)))


def evaluate(
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    protocol: str = "rgbnt",
    distance: str | None = None,
    rerank: RerankOptions | None = None,
) -> Scores | Trials:
    """Scores of features alone, of whatever model in whatever framework.

    Junk (identity -1) is left out, as in the data sets of this library.

    Args:
      query: float [Q, D].
      gallery: float [G, D].
      query_labels: of the queries, `mmreid_jax.Labels`.
      gallery_labels: of the gallery.
      protocol: name of a rule: ``rgbnt`` is that of Market-1501 (right matches of the query's camera do not count),
        ``plain`` removes nothing, ``msvr310``, ``sysu_all_single``, ``regdb_vis_to_ir``, ... are those of data sets.
        Where it draws galleries, `gallery_labels` need the names of the files.
      distance: ``squared_euclidean``, ``euclidean`` or ``cosine``; None: that of the protocol. Features are compared at
        length one.
      rerank: k-reciprocal re-ranking, `mmreid_jax.retrieval.rerank.RerankOptions`; None for none.

    Returns:
      Scores between 0 and 1: ``mAP``, ``mINP``, ``cmc``, ``rank(1)`` ...; where the protocol draws galleries, those of
      all trials, whose ``mAP`` and so on are the means.

    Raises:
      UserError: there is no such protocol or distance, shapes do not agree, a feature is not finite, or no query has a
        right match.
    """
    from mmreid_jax.datasets import protocol as protocol_named
    from mmreid_jax.retrieval import features
    from mmreid_jax.retrieval.distances import check_kind

    rule = protocol_named(protocol)
    if distance is not None:
        rule = rule.compared_by(check_kind(distance), rule.normalise)
    return features.evaluate(query, gallery, query_labels, gallery_labels, rule, rerank)


def train(config: Any, workdir: str | Path) -> Model:
    """Trains what a config describes, evaluates, writes the report; goes on where an interrupted run stopped.

    Args:
      config: of the experiment, a ConfigDict or the path of a config file.
      workdir: checkpoints, logs and the report go there.

    Returns:
      The best model of the run, which ``load(workdir)`` gives again.

    Raises:
      UserError: something in the config or the data does not fit, or the workdir holds another run.
    """
    from mmreid_jax.errors import UserError
    from mmreid_jax.train import main

    chosen = _config(config)
    if chosen.task == "adapt":
        raise UserError("config.task is 'adapt', which trains nothing; call adapt(load(...), workdir)")
    main(chosen, Path(workdir).absolute())
    return load(workdir)


def adapt(model: Model, workdir: str | Path, **mtt: Any) -> Model:
    """Test-time training: adapts a model to the unlabelled test images of the data of its config; writes the report.

    Args:
      model: a trained one, of a method that can be adapted (HTT); it stays as it is.
      workdir: checkpoints, logs and the report go there.
      **mtt: keys of ``config.mtt`` to change, such as ``batch_size=8`` or ``optim={"epochs": 2}``.

    Returns:
      The model of the best epoch. ``load(workdir / "adaptation")`` gives it again, without what
      ``mtt.reestimate_statistics`` changed. With ``mtt.episodic`` every set of queries has a model of its own that is
      forgotten; what comes back is then the model as it was.

    Raises:
      UserError: the method has no test-time training, there is no such key, or the workdir holds another adaptation or
        is in use.
    """
    import mmreid_jax.adapt as adaptation
    from mmreid_jax.errors import UserError
    from mmreid_jax.model import Extractor, Model

    config, folder = model.config, Path(workdir).absolute()
    if "mtt" not in config:
        raise UserError(f"method {config.method!r} has no test-time training")
    config.task = "adapt"
    config.lock()
    try:
        config.mtt.update(mtt)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = str(error).strip("'\"").splitlines()[0]
        raise UserError(f"a setting of adapt is no key of config.mtt, or of another type: {told}") from None
    claim = f"{model.extractor.fingerprint()} {config.mtt.to_json()}"
    variables = adaptation.of_model(config, folder, model.method, model.extractor.variables, claim)
    return Model(Extractor.of(config, model.method, variables))


def convert(
    source: str | Path,
    layout: str,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    overwrite: bool = False,
    under: str | None = None,
    prefix: str | None = None,
) -> ImportReport:
    """Converts foreign weights to a directory that `load` and ``config.init`` take, as ``mmreid_jax convert`` does.

    Args:
      source: a PyTorch or safetensors file.
      layout: what it holds, one of `mmreid_jax.convert.known.LAYOUTS`, such as ``htt`` or ``vit``.
      out: the directory to make.
      size: image height and width that a ViT's position table is resized to.
      stride: vertical and horizontal distance of patches; None: the patch size.
      overwrite: replace `out`, if this program wrote all that is in it.
      under: key of the file that the weights lie under; None: found, where only one fits.
      prefix: what the names of the weights begin with; None: found, where only one fits.

    Returns:
      What became of every key; ``print(report.table())``.

    Raises:
      UserError: there is no such layout, the weights cannot be read or do not fit, or `out` is there already, holds
        what this program did not write, or cannot be written.
    """
    from mmreid_jax.convert.conversion import convert_file
    from mmreid_jax.paths import path_of

    options: dict[str, Any] = {"size": size, "stride": stride, "overwrite": overwrite}
    return convert_file(path_of(source), layout, path_of(out), under=under, prefix=prefix, **options)


def prepare(dataset: str, manual_dir: str | Path, data_dir: str | Path | None = None) -> Prepared:
    """Checks the files of a data set and writes them into records, once; where they are there, only checks.

    Args:
      dataset: a name of `datasets`, or a module of one's own (``my_package.my_set``).
      manual_dir: the data set's folder or its parent.
      data_dir: folder of prepared data sets; None: the environment variable ``MMREID_DATA``, else ``data``.

    Returns:
      Where the records lie and how they compare with what is published.

    Raises:
      UserError: files are missing or wrong, or the data prepared earlier were made from other files.
    """
    from mmreid_jax.datasets.prepare import prepare as prepare_files
    from mmreid_jax.paths import default_data_dir

    return prepare_files(dataset, os.fspath(manual_dir), data_dir or default_data_dir())


def prepare_own(
    name: str,
    *,
    folder: str | Path | None = None,
    csv: str | Path | None = None,
    pattern: str = "",
    aligned: bool | None = None,
    test_share: float | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    check_images: bool = False,
    broken: Literal["stop", "skip"] = "stop",
    follow_links: bool = False,
    force: bool = False,
) -> Made:
    """Makes a data set of one's own images, which is ``own:NAME`` from then on; docs/own_data.md has whole examples.

    Args:
      name: small letters, digits and ``_``.
      folder: of the images, with identities as folders or in the names of files.
      csv: a table of the images instead, or beside the folder that its files lie in.
      pattern: of file names, such as ``{identity}_{camera}_{index}``; "": folders are identities, without folders
        Market-1501's names.
      aligned: whether images of equal names in the folders of modalities are one sample; None: if any are equal.
      test_share: of the identities, drawn for the test where no split is given; None: half.
      seed: of that draw; None: 0.
      data_dir: folder of prepared data sets; None: the environment variable ``MMREID_DATA``, else ``data``.
      check_images: decode every image and name those that cannot be read.
      broken: what becomes of images that cannot be used: ``stop`` names them, ``skip`` leaves out their samples.
      follow_links: take images that are links out of the folder.
      force: write the records again even if they are there.

    Returns:
      Records and counts, ``prepared``; what the data set is, ``description``; sentences worth reading, ``notes``.

    Raises:
      UserError: something is wrong with the tree or table, all of which is said, and nothing is written; or the data
        set was prepared from other files before.
    """
    from mmreid_jax.datasets.own import arrange, making
    from mmreid_jax.paths import default_data_dir, path_of

    where = {key: None if each is None else path_of(each) for key, each in (("folder", folder), ("csv", csv))}
    source = making.Source(where["folder"], where["csv"], pattern, aligned)
    usual = arrange.SplitDraw()
    drawing = arrange.SplitDraw(
        usual.test_share if test_share is None else test_share, usual.seed if seed is None else seed
    )
    options: dict[str, Any] = {"check_images": check_images, "broken": broken}
    options |= {"follow_links": follow_links, "force": force, "drawing": drawing}
    return making.make(source, name, path_of(data_dir or default_data_dir()), **options)


def datasets() -> tuple[str, ...]:
    """Names of the data sets of this library; some have parts, as in ``regdb/trial_3``."""
    from mmreid_jax.datasets import names

    return names()


def methods() -> tuple[str, ...]:
    """Names of the methods: the values of ``config.method``."""
    from mmreid_jax.methods.base import names

    return names()


def _config(config: Any) -> Any:
    """A ConfigDict as it is; of a path, that of the file."""
    if not isinstance(config, str | Path):
        return config
    from mmreid_jax.flags import from_arguments

    return from_arguments([f"--config={config}"])[0]
