"""A config is checked as a whole, before data or devices are touched: types and ranges, contradictions, files.

`complete` fills in the keys that a config of an earlier version lacks, `check` refuses what cannot run. Types and
ranges stand in `mmreid_jax.settings`; here stands what several keys say together. What only the data can tell is tried
on them before the first step: `mmreid_jax.evaluate.Scorer.rehearse`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax

import mmreid_jax.datasets as datasets
from mmreid_jax import settings
from mmreid_jax.convert import included
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.paths import path_of
from mmreid_jax.settings.kinds import shown
from mmreid_jax.training import devices
from mmreid_jax.training.config import flatten, nearest, unknown_key

_EMBEDDING = ("data", "model", "train", "eval")
"""Sections that say how images become features, the size of parts of a batch among them."""
_STARTS = ("backbone", "from_mmgl", "from_base", "clip")
_INCLUDED = ("init.backbone", "init.clip")
"""Keys for which there are weights in the package."""


def complete(config: Any) -> Any:
    """A copy of a config in which no key is missing: what earlier versions had no key for is as it was then.

    ``config.parity=released`` becomes what it stands for; a protocol that is named stays.

    Args:
      config: of an experiment, as a config file or a checkpoint says it.

    Raises:
      UserError: it is no config of an experiment.
    """
    from ml_collections import ConfigDict

    if not _is_section(config):
        raise UserError(f"the config is {shown(config)}; it must be sections of keys, as configs/common.py has them")
    whole = ConfigDict(config.to_dict() if hasattr(config, "to_dict") else dict(config))
    method = whole.get("method")
    if not isinstance(method, str):
        raise UserError(f"config.method is {shown(method)}; it must be one of {', '.join(base.names())}")
    for name, section in settings.sections_of(method).items():
        part = _part(whole, name)
        if part is not None:
            with part.unlocked():
                part.update(section.missing(part))
    if whole.parity == "released":
        for key, value in settings.released_of(method, str(whole.data.dataset)).items():
            *parents, name = key.split(".")
            part = _part(whole, ".".join(parents))
            if part is not None and not (key == "eval.protocol" and part[name]):
                part[name] = value
    return whole


def check_stored(config: Any) -> None:
    """Checks what an embedding needs of a config that comes with a trained model, perhaps from somebody else.

    What has changed in training since, and keys of later versions, do not hinder it.

    Args:
      config: a complete one, see `complete`.

    Raises:
      UserError: the first thing that is wrong.
    """
    sections = settings.sections_of(config.method)
    for name in ("", *_EMBEDDING, "loss"):
        part = _part(config, name)
        if part is None:
            raise UserError(f"config.{name} is missing")
        if name in sections and name != "loss":
            sections[name].check(part, name)
    for key, value in flatten(config).items():
        if key.startswith(tuple(f"{name}." for name in _EMBEDDING)):
            _check_finite(key, value)


def check(config: Any, *, starts: bool = True, trained: bool = True) -> list[str]:
    """Checks everything that a config says by itself.

    Args:
      config: a complete one, see `complete`.
      starts: whether the weights in ``config.init`` that training starts from will be read, and must be there.
      trained: whether ``config.init.checkpoint`` will be.

    Returns:
      Sentences worth printing about a config that works but surprises.

    Raises:
      UserError: the first thing that is wrong: which key, what it is, what it must be.
    """
    sections = settings.sections_of(config.method)
    for name, section in sections.items():
        part = _part(config, name)
        if part is None:
            raise UserError(f"config.{name} is missing; take it from configs/common.py or configs/systems")
        for key in part:
            if key not in section and not _is_section(part[key]):
                raise UserError(unknown_key(_dotted(name, key), nearest(key, section), _dotted(name, ""), [*section]))
        section.check(part, name)
    # Sections without a schema are those of a method that brings none.
    for key, value in flatten(config).items():
        _check_finite(key, value)
    facts = _facts(config)
    _check_data(config, facts)
    _check_optim(config.optim, "optim")
    if "mtt" in config:
        _check_optim(config.mtt.optim, "mtt.optim")
    _check_attention(config.model)
    _check_loss(config)
    _check_files(config, starts, trained)
    if config.eval.protocol not in ("", datasets.ALL_PROTOCOLS):
        datasets.protocol(config.eval.protocol, config.data.dataset, config.data.data_dir)
    # The method knows what it can be built of, and needs no data for it.
    method = base.build(config, facts)
    method.comparisons()
    if config.task != "train" and not (isinstance(method, base.Adapts) and "mtt" in config):
        raise UserError(f"method {config.method!r} has no test-time training; use --config.task=train")
    return [*_notes(config), *(_weak_start(config) if starts else [])]


def _check_finite(key: str, value: Any) -> None:
    if any(isinstance(number, float) and not math.isfinite(number) for number in _elements(value)):
        raise UserError(f"config.{key} is {shown(value)}; it must be finite")


def _facts(config: Any) -> base.DataFacts:
    """Facts of data that would do for this config."""
    data = config.data
    dataset = datasets.get(data.dataset, data.data_dir)
    known = dataset.views(data.get(dataset.composite_key, "") if dataset.composite_key else "")
    for name in data.modalities:
        if name not in known:
            raise UserError(
                f"config.data.modalities names {shown(name)}, but {data.dataset} has {', '.join(known)}; leave it empty"
                " for all of them"
            )
    modalities = tuple(name for name in known if not data.modalities or name in data.modalities)
    return base.DataFacts(identities=1, cameras=1, views=1, modalities=modalities)


def _check_data(config: Any, facts: base.DataFacts) -> None:
    data, dataset = config.data, datasets.get(config.data.dataset, config.data.data_dir)
    for key in ("erasing_of", "grey_of", "second_views"):
        allowed = facts.modalities
        if key != "second_views":
            allowed = (*allowed, *(f"{name}_2" for name in data.second_views))
        for entry in data[key]:
            name = entry if key == "second_views" else entry[0]
            if name not in allowed:
                raise UserError(f"config.data.{key} names {shown(name)}, but {data.dataset} has {', '.join(allowed)}")
    if data.text and dataset.captions is None:
        raise UserError(f"config.data.text is True, but {data.dataset} has no captions; set it to False")
    usual = dataset.folders.usual_captioners
    if data.text and dataset.captions and dataset.captions.aligned and data.captioner not in usual:
        raise UserError(
            f"config.data.captioner is {shown(data.captioner)}, but {data.dataset} has no captions of that name; set it"
            f" to {' or '.join(usual)}"
        )
    if data.drawn and dataset.drawing is None:
        raise UserError(f"config.data.drawn is True, but {data.dataset} cannot be drawn; set it to False")
    for key in ("drawn_identities", "drawn_images"):
        if data[key] == 1:
            raise UserError(
                f"config.data.{key} is 1; it must be at least 2, one to find the other, or 0 for the default"
            )
    if -1 < data.drawn_shift < 0:
        raise UserError(
            f"config.data.drawn_shift is {data.drawn_shift}; it must lie from 0 to 1, or be -1: the default"
        )


def _check_optim(optim: Any, where: str) -> None:
    if optim.schedule == "single_step" and not optim.milestones:
        raise UserError(
            f"config.{where}.schedule is single_step, but config.{where}.milestones is empty; name the epoch"
        )
    if optim.schedule == "cosine_per_step" and optim.warmup_epochs >= optim.epochs:
        raise UserError(
            f"config.{where}.warmup_epochs is {optim.warmup_epochs} of {optim.epochs} epochs; the schedule"
            " cosine_per_step needs a shorter warm-up"
        )
    if optim.nesterov and optim.name == "sgd" and not optim.momentum:
        raise UserError(f"config.{where}.nesterov needs config.{where}.momentum above 0; set it to False")


def _check_attention(model: Any) -> None:
    if model.get("attention") != "cudnn":
        return
    if model.dtype != "bfloat16":
        raise UserError(
            "config.model.attention is cudnn, which computes in bfloat16 alone, but config.model.dtype is"
            f" {model.dtype}; set that to bfloat16, or config.model.attention to plain"
        )
    if not devices.have_flash_attention():
        raise UserError(
            "config.model.attention is cudnn, which needs an NVIDIA GPU and JAX for it (pip install 'jax[cuda13]'), but"
            f" JAX computes on {jax.default_backend()} here; set it to plain or xla"
        )


def _check_loss(config: Any) -> None:
    weights = [key for key in settings.weights_of(config.method) if key in config.loss]
    if weights and not any(config.loss[key] for key in weights):
        raise UserError(
            f"config.loss.{', '.join(weights)} are all 0: there is nothing to learn; set one of them above 0"
        )
    if "mtt" in config and not (config.mtt.mmm_weight or config.mtt.cim_weight):
        raise UserError(
            "config.mtt.mmm_weight, cim_weight are both 0: there is nothing to adapt by; set one of them above 0"
        )


def _check_files(config: Any, starts: bool, trained: bool) -> None:
    """Files that are named must be there; where several processes share them, each looks for itself."""
    named = {f"init.{key}": config.init[key] for key in _STARTS if starts and not config.init.checkpoint}
    named["data.manual_dir"] = config.data.manual_dir
    if trained:
        named["init.checkpoint"] = config.init.checkpoint
    for key, place in named.items():
        if place and not _exists(key, place):
            raise UserError(f"config.{key} is {shown(place)}, but there is no such file or directory")
    folder = config.data.data_dir
    if not folder or (_exists("data.data_dir", folder) and not path_of(folder).is_dir()):
        raise UserError(f"config.data.data_dir is {shown(folder)}; it must be a directory, or be free")


def _exists(key: str, place: str) -> bool:
    """Whether what a key names is there; weights that come with the package have names of their own."""
    try:
        path = path_of(place)
        return (included.resolve(path) if key in _INCLUDED else path).exists()
    except OSError as error:
        raise UserError(f"config.{key} is {shown(place)}: {error.strerror}; give another path") from None
    except UserError as error:
        raise UserError(f"config.{key}: {error}") from None


def _notes(config: Any) -> list[str]:
    notes = []
    for where, optim in (("optim", config.optim), ("mtt.optim", config.get("mtt", {}).get("optim"))):
        used = config.task != "train" if where == "mtt.optim" else config.task != "adapt"
        if optim is not None and used and optim.warmup_epochs >= optim.epochs:
            notes.append(
                f"config.{where}.warmup_epochs is {optim.warmup_epochs} of {optim.epochs} epochs: the full rate is"
                " never reached"
            )
    return notes


def _weak_start(config: Any) -> list[str]:
    """A note where training on one's own images starts from no weights, or from those that know drawn people alone."""
    named = {config.init[key] for key in (*_STARTS, "checkpoint")} - {""}
    if not datasets.is_own(config.data.dataset) or any(not str(name).startswith(included.PREFIX) for name in named):
        return []
    start = f"{named.pop()}, a small trunk that knows drawn people" if named else "random numbers"
    return [
        f"training starts from {start}; ImageNet weights do better, such as torchvision's:"
        " --config.init.backbone=resnet50-19c8e357.pth (docs/own_data.md)"
    ]


def _part(config: Any, name: str) -> Any:
    """A section by its dotted name; None where there is none."""
    for parent in name.split(".") if name else ():
        config = config.get(parent)
        if not _is_section(config):
            return None
    return config


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "to_dict")


def _dotted(section: str, key: str) -> str:
    return f"config.{section}.{key}" if section else f"config.{key}"


def _elements(value: Any) -> Iterator[Any]:
    """A value, or all that a tuple of them holds."""
    if isinstance(value, list | tuple):
        for element in value:
            yield from _elements(element)
    else:
        yield value
