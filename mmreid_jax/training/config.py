"""Configs and command lines: every mistake is one clear sentence, and a config can be printed, hashed and compared.

A config is an ``ml_collections.ConfigDict`` (any nested mapping does). A dotted key, ``optim.lr``, names a value in it.
`friendly_flags` parses the command line of an absl program whose config is a file; ml_collections and absl are imported
when it is called, not with this module.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.errors import UserError, run_command
from mmreid_jax.paths import path_of

_CONFIG_FOLDER = Path("configs")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known dotted key that somebody who wrote `name` most likely meant; None where nothing is similar.

    A key whose last part is `name`'s last part comes first: ``lr`` means ``optim.lr``.
    """
    keys = sorted(known)
    same_leaf = [key for key in keys if key.split(".")[-1] == name.split(".")[-1]]
    close = difflib.get_close_matches(name, same_leaf or keys, n=1, cutoff=0.0 if same_leaf else 0.6)
    if close:
        return close[0]
    leaves = {key.split(".")[-1]: key for key in reversed(keys)}
    close = difflib.get_close_matches(name.split(".")[-1], leaves, n=1, cutoff=0.7)
    return leaves[close[0]] if close else None


PATHS = (
    *("data.data_dir", "data.manual_dir", "data.train_list"),
    *("init.backbone", "init.checkpoint", "init.clip", "init.from_base", "init.from_mmgl"),
)
"""Keys whose values are paths."""


def expand_paths(config: Any) -> Any:
    """The same config, in whose paths ``~`` is a home: a shell leaves it in ``--config.data.data_dir=~/data``."""
    for key in PATHS:
        section, name = key.split(".")
        if str(config.get(section, {}).get(name, "")).startswith("~"):
            config[section][name] = str(path_of(config[section][name]))
    return config


def check_keys(section: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raises a `UserError` naming the first key of `section` that is not among `known`, and the nearest one that is.

    Args:
      section: part of a config.
      known: the keys it may have.
      where: name of the section for the message, ``optim``.
    """
    for key in section:
        if key not in known:
            raise UserError(_unknown(f"config.{where}.{key}", nearest(key, known), f"config.{where}.", known))


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value for every value of a nested config (a ConfigDict lists its keys in alphabetical order)."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "to_dict"):
            flat.update({f"{key}.{inner}": v for inner, v in flatten(value).items()})
        else:
            flat[str(key)] = value
    return flat


def to_json(config: Mapping[str, Any], indent: int | None = 2) -> str:
    """The config as JSON with sorted keys; tuples become lists, numpy values numbers.

    Raises:
      TypeError: a value that JSON has no form for.
    """
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.dumps(plain, indent=indent, sort_keys=True, default=_plain)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are equal for equal configs, whatever the order of keys."""
    return hashlib.sha256(to_json(config, indent=None).encode()).hexdigest()[:12]


def pretty(config: Mapping[str, Any]) -> str:
    """One line per value, ``optim.lr  0.008``, for logs."""
    flat = flatten(config)
    width = max(map(len, flat), default=0)
    return "\n".join(f"{key.ljust(width)}  {value!r}" for key, value in flat.items())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed from one config to another, one line per key: ``optim.lr: 0.008 -> 0.01``; tuples equal lists."""
    before, after = (flatten(json.loads(to_json(config))) for config in (old, new))
    absent = object()
    lines = []
    for key in {**before, **after}:
        a, b = before.get(key, absent), after.get(key, absent)
        if a != b:
            lines.append(f"{key}: {'absent' if a is absent else repr(a)} -> {'absent' if b is absent else repr(b)}")
    return lines


def check_batch(
    identity: np.ndarray,
    *,
    identities_per_batch: int,
    images_per_identity: int,
    devices: int = 1,
    micro_batches: int = 1,
    name: str = "the training split",
) -> list[str]:
    """Checks the P x K batch of a config against the training data and the machine.

    Args:
      identity: int [N], identity of every training sample.
      identities_per_batch: P.
      images_per_identity: K.
      devices: number of devices that share a batch.
      micro_batches: number of parts into which the batch is cut.
      name: of the data, for messages.

    Returns:
      Sentences worth printing about a batch that works but surprises.

    Raises:
      UserError: the batch cannot be drawn, cut or spread; says what to change.
    """
    p, k = identities_per_batch, images_per_identity
    for key, value in (
        ("identities_per_batch", p),
        ("images_per_identity", k),
        ("micro_batches", micro_batches),
    ):
        if value < 1:
            raise UserError(f"config.train.{key} is {value}; it must be at least 1")
    counts = np.unique(np.asarray(identity), return_counts=True)[1]
    if len(counts) < p:
        raise UserError(
            f"config.train.identities_per_batch is {p}, but {name} has {len(counts)} identities; "
            f"set --config.train.identities_per_batch to {len(counts)} or less"
        )
    batch = p * k
    if batch % micro_batches:
        raise UserError(
            f"a batch of {p} x {k} = {batch} images cannot be cut into {micro_batches} equal parts; "
            f"choose config.train.micro_batches among the divisors of {batch}"
        )
    if (batch // micro_batches) % devices:
        raise UserError(
            f"a batch of {p} x {k} = {batch} images in {micro_batches} part(s) cannot be spread over "
            f"{devices} devices; choose identities_per_batch x images_per_identity as a multiple of "
            f"{micro_batches * devices}, or use fewer devices"
        )
    notes = []
    few = int(np.sum(counts < k))
    if few:
        notes.append(f"{few} of {len(counts)} identities of {name} have fewer than {k} images: theirs are repeated")
    if p == 1:
        notes.append("a batch holds one identity: losses that compare identities are zero")
    return notes


def friendly_flags(argv: Sequence[str], flag_values: Any = None) -> list[str]:
    """Parses the command line of an absl program: ``app.run(main, flags_parser=friendly_flags)``.

    Any mistake is one line on standard error and exit status 2: an unknown flag or config key (with the nearest name),
    a value of the wrong type, a config that is missing, not given or broken (with the line in the file). Libraries'
    progress messages stay quiet unless ``--verbosity`` asks for them.

    Args:
      argv: the program's name and its arguments.
      flag_values: absl flags to parse into; None for the program's own.

    Returns:
      The arguments that are no flags: the program's name alone.
    """
    rest: list[str] = []
    run_command(lambda: rest.extend(_parse(argv, flag_values)))
    return rest


def from_arguments(arguments: Sequence[str]) -> tuple[Any, str]:
    """The config of a command that reads its other flags by itself: ``--config=FILE`` and ``--config.KEY=VALUE``.

    Args:
      arguments: those that the command did not read.

    Returns:
      (the locked config, the stem of its file's name).

    Raises:
      UserError: see `friendly_flags`.
    """
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    line = ["", *arguments]
    config_flags.DEFINE_config_file("config", None, "Experiment.", lock_config=True, flag_values=values, sys_argv=line)
    _parse(line, values)
    flag: Any = values["config"]
    return flag.value, Path(flag.config_filename).stem


def _parse(argv: Sequence[str], flag_values: Any = None) -> list[str]:
    """As `friendly_flags`, raising a `UserError`."""
    from absl import flags

    values = flags.FLAGS if flag_values is None else flag_values
    configs = {name: values[name] for name in values if hasattr(type(values[name]), "override_values")}
    argv = [_with_home(argument, configs) for argument in argv]
    files = {name: path for name in configs if (path := _file_given(name, argv)) is not None}
    for name, path in files.items():
        if not Path(path).is_file():
            raise UserError(f"--{name}={path}: there is no such file{_available(path)}")
    try:
        rest = values(list(argv))
    except Exception as error:
        for name, flag in configs.items():
            if name in files:
                _check_loads(flag.parser, name, files[name])
                _check_overrides(flag.parser, name, files[name], argv)
            elif str(error).startswith(f"Unknown command line flag '{name}."):
                raise UserError(f"--{name}=FILE is missing{_available()}") from None
        if isinstance(error, flags.Error):
            raise UserError(_flag_message(error, values)) from None
        raise
    for name, flag in configs.items():
        if flag.value is None:
            raise UserError(f"--{name}=FILE is missing{_available()}")
        _check_tuples(flag, name)
        expand_paths(flag.value)
    if len(rest) > 1:
        raise UserError(
            f"unexpected argument {rest[1]!r}; settings are written --{next(iter(configs), 'flag')}.KEY=VALUE"
        )
    if "verbosity" in values and values["verbosity"].using_default_value:
        values.verbosity = -1
    return rest


def _with_home(argument: str, configs: Iterable[str]) -> str:
    """``--config=~/FILE`` with the home in full, as a shell leaves it to the program."""
    name, equals, path = argument.partition("=")
    if equals and path.startswith("~") and name.lstrip("-") in configs:
        return f"{name}={path_of(path)}"
    return argument


def _file_given(name: str, argv: Sequence[str]) -> str | None:
    """The file of ``--name=FILE:variant`` or ``--name FILE``; None where it is not given."""
    for position, argument in enumerate(argv):
        match = re.fullmatch(rf"--?{name}(?:=(.*))?", argument, flags=re.DOTALL)
        if match:
            value = match[1] if match[1] is not None else (argv[position + 1] if position + 1 < len(argv) else None)
            return None if value is None else value.split(":", 1)[0]
    return None


def _available(wanted: str = "") -> str:
    """The end of a message: which configs there are, and which of them `wanted` may have meant."""
    found = {path.stem: str(path) for path in sorted(_CONFIG_FOLDER.glob("*.py"))}
    found = {stem: path for stem, path in found.items() if stem not in ("__init__", "common")}
    if not found:
        return "; give the path of a config file"
    close = nearest(Path(wanted).stem, found)
    return f"; {f'did you mean {found[close]}? ' if close else ''}available: {', '.join(found.values())}"


def _check_loads(parser: Any, name: str, path: str) -> None:
    """Raises a `UserError` where the config file itself fails, naming the line."""
    try:
        parser.parse(path)
    except SyntaxError as error:
        raise UserError(f"--{name}={path}: syntax error in line {error.lineno}: {error.msg}") from None
    except (TypeError, ValueError) as error:
        # The flag library replaces these by one whose text is the whole traceback.
        lines = re.findall(rf'File "{re.escape(path)}", line (\d+)', str(error))
        at = f" in line {lines[-1]}" if lines else ""
        raise UserError(f"--{name}={path} fails{at}: {str(error).strip().splitlines()[-1]}") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        at = f" in line {lines[-1]}" if lines else ""
        raise UserError(f"--{name}={path} fails{at}: {type(error).__name__}: {error}") from None


def _check_overrides(parser: Any, name: str, path: str, argv: Sequence[str]) -> None:
    """Raises a `UserError` for the first ``--name.key`` of the command line that is no value of the config."""
    config = parser.parse(path)
    leaves = list(flatten(config))
    for argument in argv:
        match = re.match(rf"--?(?:no)?{name}\.([^=]+)", argument)
        if match and match[1] not in leaves:
            if any(leaf.startswith(f"{match[1]}.") for leaf in leaves):
                raise UserError(
                    f"--{name}.{match[1]} is a section; set its keys one by one, --{name}.{match[1]}.KEY=VALUE"
                )
            raise UserError(_unknown(f"--{name}.{match[1]}", nearest(match[1], leaves), f"--{name}.", list(config)))


def _check_tuples(flag: Any, name: str) -> None:
    """Raises a `UserError` for a tuple override with elements of another type than the config's; nobody else looks."""
    given = {key: value for key, value in flag.override_values.items() if isinstance(value, tuple)}
    if not given:
        return
    defaults = flatten(flag.parser.parse(flag.config_filename))
    for key, value in given.items():
        kinds = {type(element) for element in defaults[key]}
        if len(kinds) != 1:
            continue
        kind = kinds.pop()
        accepted = (int, float) if kind is float else (kind,)
        if not all(type(element) in accepted for element in value):
            raise UserError(
                f"--{name}.{key}={value!r}: expected a tuple of {kind.__name__}, as in "
                f"--{name}.{key}='{defaults[key]!r}'"
            )


def _flag_message(error: Exception, values: Any) -> str:
    """An absl flag error as one sentence."""
    match = re.match(r"flag --([\w.]+)=(.*?): ", str(error), flags=re.DOTALL)
    if match and match[1] in values:
        flag = values[match[1]]
        kind = flag.flag_type() if flag.default is None else type(flag.default).__name__
        example = "" if flag.default is None else f", as in --{match[1]}={flag.default}"
        return f"--{match[1]}={match[2]}: expected a value of type {kind}{example}"
    return str(error).strip().splitlines()[0].replace(" ?", "?")


def _unknown(name: str, close: str | None, prefix: str, known: Sequence[str]) -> str:
    """The sentence for an unknown key."""
    remedy = f"did you mean {prefix}{close}?" if close else f"there are {', '.join(known)}"
    return f"unknown key {name}; {remedy}"


def _plain(value: Any) -> Any:
    """A numpy value, a path or a nested config as JSON has it."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a config value of type {type(value).__name__} cannot be written as JSON: {value!r}")
