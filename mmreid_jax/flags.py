"""Command lines with a config: ``--config=FILE`` and ``--config.KEY=VALUE``; every mistake is one clear sentence.

`friendly_flags` parses the command line of an absl program whose config is a file, `from_arguments` what another
command left of its own. ml_collections and absl are imported when they are called, not with this module.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmreid_jax.errors import UserError, run_command
from mmreid_jax.paths import path_of
from mmreid_jax.training.config import expand_paths, flatten, nearest, unknown_key

_CONFIG_FOLDER = Path("configs")
_line: ContextVar[tuple[str, ...]] = ContextVar("line", default=())


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
      (the locked config, `run_name` of its file).

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
    return flag.value, run_name(flag.config_filename)


def run_name(config: str) -> str:
    """The name of a run of ``FILE.py`` or ``FILE.py:ARGUMENT``: the stem, and the argument behind it."""
    file, argument = re.fullmatch(r"(.*?\.py|[^:]*):?(.*)", config, re.DOTALL).groups()  # type: ignore[union-attr]
    return "_".join(filter(None, (Path(file).stem, re.sub(r"[^\w.-]+", "_", argument))))


def given(key: str) -> str:
    """What the command line that is being parsed says of a key of the config; "" where it says nothing.

    A config file may choose by it, before the values of the line are put into what it made: ``configs/own.py``.
    """
    value = ""
    for position, argument in enumerate(_line.get()):
        match = re.fullmatch(rf"--?config\.{re.escape(key)}(?:=(.*))?", argument, flags=re.DOTALL)
        if match:
            following = _line.get()[position + 1 : position + 2]
            value = match[1] if match[1] is not None else "".join(following)
    return value.strip("'\"")


def _parse(argv: Sequence[str], flag_values: Any = None) -> list[str]:
    """As `friendly_flags`, raising a `UserError`; meanwhile `given` knows the line."""
    before = _line.set(tuple(argv))
    try:
        return _parsed(argv, flag_values)
    finally:
        _line.reset(before)


def _parsed(argv: Sequence[str], flag_values: Any = None) -> list[str]:
    """See `_parse`."""
    from absl import flags

    values = flags.FLAGS if flag_values is None else flag_values
    configs = {name: values[name] for name in values if hasattr(type(values[name]), "override_values")}
    argv = [_with_home(argument, configs) for argument in argv]
    files = {name: path for name in configs if (path := _file_given(name, argv)) is not None}
    for name, whole in files.items():
        path = _file_of(whole)
        if not Path(path).is_file():
            raise UserError(f"--{name}={path}: there is no such file{_available(path)}")
        _check_order(name, argv)
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
    """What ``--name=FILE:variant`` or ``--name FILE`` says, the variant included; None where it is not given."""
    for position, argument in enumerate(argv):
        match = re.fullmatch(rf"--?{name}(?:=(.*))?", argument, flags=re.DOTALL)
        if match:
            return match[1] if match[1] is not None else (argv[position + 1] if position + 1 < len(argv) else None)
    return None


def _file_of(config: str) -> str:
    """The file of ``FILE:variant``."""
    return config.split(":", 1)[0]


def _check_order(name: str, argv: Sequence[str]) -> None:
    """Raises a `UserError` where a key stands before the file that it belongs to, which ml_collections cannot read."""
    for argument in argv:
        if re.fullmatch(rf"--?{name}(?:=.*)?", argument, flags=re.DOTALL):
            return
        if re.match(rf"--?(?:no)?{name}\.", argument):
            raise UserError(f"{argument} stands before --{name}=FILE; name the file first")


def _available(wanted: str = "") -> str:
    """The end of a message: which configs there are, and which of them `wanted` may have meant."""
    configs = {path.stem: str(path) for path in sorted(_CONFIG_FOLDER.glob("*.py"))}
    configs = {stem: path for stem, path in configs.items() if stem not in ("__init__", "common")}
    if not configs:
        return "; give the path of a config file"
    close = nearest(Path(wanted).stem, configs)
    return f"; {f'did you mean {configs[close]}? ' if close else ''}available: {', '.join(configs.values())}"


def _check_loads(parser: Any, name: str, config: str) -> None:
    """Raises a `UserError` where the config file itself (of ``FILE:variant``) fails, naming the line."""
    path = _file_of(config)
    try:
        parser.parse(config)
    except SyntaxError as error:
        raise UserError(f"--{name}={config}: syntax error in line {error.lineno}: {error.msg}") from None
    except (TypeError, ValueError) as error:
        # The flag library replaces these by one whose text is the whole traceback.
        lines = re.findall(rf'File "{re.escape(path)}", line (\d+)', str(error))
        at = f" in line {lines[-1]}" if lines else ""
        raise UserError(f"--{name}={config} fails{at}: {str(error).strip().splitlines()[-1]}") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        at = f" in line {lines[-1]}" if lines else ""
        raise UserError(f"--{name}={config} fails{at}: {type(error).__name__}: {error}") from None


def _check_overrides(parser: Any, name: str, whole: str, argv: Sequence[str]) -> None:
    """Raises a `UserError` for the first ``--name.key`` of the command line that is no value of ``FILE:variant``."""
    config = parser.parse(whole)
    leaves = list(flatten(config))
    for argument in argv:
        match = re.match(rf"--?(?:no)?{name}\.([^=]+)", argument)
        if match and match[1] not in leaves:
            if any(leaf.startswith(f"{match[1]}.") for leaf in leaves):
                raise UserError(
                    f"--{name}.{match[1]} is a section; set its keys one by one, --{name}.{match[1]}.KEY=VALUE"
                )
            raise UserError(unknown_key(f"--{name}.{match[1]}", nearest(match[1], leaves), f"--{name}.", list(config)))


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
