"""Command lines with a config: what is right, and every mistake in one line."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from mmreid_jax.flags import friendly_flags, from_arguments, given

# How ml_collections loads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

ROOT = pathlib.Path(__file__).parents[1]
GOOD = """
from ml_collections import ConfigDict, config_dict

def get_config(variant="small"):
    return ConfigDict(dict(
        variant=variant,
        seed=1,
        optim=dict(lr=0.1, name="sgd", milestones=(1, 2), weights=(0.5, 1.0), nesterov=False,
                   clip_norm=config_dict.placeholder(float)),
        mtt=dict(optim=dict(lr=0.2)),
    ))
"""

VARIANTS = """
from ml_collections import ConfigDict

def get_config(variant="parts"):
    if variant not in ("parts", "strips"):
        raise ValueError(f"there is no {variant!r}")
    return ConfigDict(dict(optim={variant: 6}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with configs, good and bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    (tmp_path / "configs").mkdir()
    for name in ("demo", "htt_rgbnt201", "common", "__init__"):
        (tmp_path / "configs" / f"{name}.py").write_text(GOOD)
    (tmp_path / "missing_import.py").write_text("\n\nimport a_module_that_does_not_exist\n")
    (tmp_path / "variants.py").write_text(VARIANTS)
    (tmp_path / "bad_value.py").write_text("def get_config():\n    return int('x')\n")
    (tmp_path / "bad_key.py").write_text("def get_config():\n    return {}['x']\n")
    (tmp_path / "bad_syntax.py").write_text("x = 1\ndef get_config(:\n")
    (tmp_path / "no_function.py").write_text("x = 1\n")
    return tmp_path


def _parse(*arguments):
    argv = ["main.py", *arguments]
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
    flags.DEFINE_integer("number", 3, "A number.", flag_values=values)
    assert friendly_flags(argv, values) == ["main.py"]
    return flag.value


DEMO = "--config=configs/demo.py"


def test_a_right_command_line(folder):
    config = _parse(DEMO + ":large", "--config.optim.lr=3", "--config.optim.milestones=(3,4,5)", "--config.seed", "5")
    assert (config.optim.lr, config.optim.milestones, config.seed, config.variant) == (3.0, (3, 4, 5), 5, "large")
    assert _parse("--config", "configs/demo.py", "--config.optim.clip_norm=2").optim.clip_norm == 2.0
    assert _parse(DEMO, "--config.optim.weights=(1,2)", "--config.optim.nesterov").optim.nesterov is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DEMO, "--config.optim.lrr=1"], "unknown key --config.optim.lrr; did you mean --config.optim.lr?"),
        ([DEMO, "--config.optm.lr=1"], "unknown key --config.optm.lr; did you mean --config.optim.lr?"),
        ([DEMO, "--config.mtt.lr", "1"], "unknown key --config.mtt.lr; did you mean --config.mtt.optim.lr?"),
        ([DEMO, "--config.optim.lr.x=1"], "unknown key --config.optim.lr.x; did you mean --config.optim.lr?"),
        (
            [DEMO, "--noconfig.optim.nestrov"],
            "unknown key --config.optim.nestrov; did you mean --config.optim.nesterov?",
        ),
        ([DEMO, "--config.zzz=1"], "unknown key --config.zzz; there are mtt, optim, seed, variant"),
        (
            [DEMO, "--config.optim.lr=abc"],
            "--config.optim.lr=abc: expected a value of type float, as in --config.optim.lr=0.1",
        ),
        ([DEMO, "--config.seed=1.5"], "--config.seed=1.5: expected a value of type int, as in --config.seed=1"),
        ([DEMO, "--config.optim.clip_norm=x"], "--config.optim.clip_norm=x: expected a value of type float"),
        (
            [DEMO, "--config.optim.milestones=(1,0.5)"],
            "--config.optim.milestones=(1, 0.5): expected a tuple of int, as in --config.optim.milestones='(1, 2)'",
        ),
        (
            [DEMO, "--config.optim.milestones=1;2"],
            "--config.optim.milestones=('1;2',): expected a tuple of int, as in --config.optim.milestones='(1, 2)'",
        ),
        (
            [DEMO, "--config.optim=3"],
            "--config.optim is a section; set its keys one by one, --config.optim.KEY=VALUE",
        ),
        ([DEMO, "--config.seed"], "Missing value for flag --config.seed"),
        ([DEMO, "lr=1"], "unexpected argument 'lr=1'; settings are written --config.KEY=VALUE"),
        ([DEMO, "--number=x"], "--number=x: expected a value of type int, as in --number=3"),
        (["--confg=configs/demo.py"], "Unknown command line flag 'confg'. Did you mean: config?"),
        ([], "--config=FILE is missing; available: configs/demo.py, configs/htt_rgbnt201.py"),
        (["--config.seed=1"], "--config=FILE is missing; available: configs/demo.py, configs/htt_rgbnt201.py"),
        (
            ["--config=configs/htt_rgbnt210.py", "--config.seed=1"],
            "--config=configs/htt_rgbnt210.py: there is no such file; did you mean configs/htt_rgbnt201.py? "
            "available: configs/demo.py, configs/htt_rgbnt201.py",
        ),
        (
            ["--config=missing_import.py"],
            "--config=missing_import.py fails in line 3: ModuleNotFoundError: "
            "No module named 'a_module_that_does_not_exist'",
        ),
        (
            ["--config=bad_value.py"],
            "--config=bad_value.py fails in line 2: ValueError: invalid literal for int() with base 10: 'x'",
        ),
        # Keys are those of the variant that is asked for.
        (
            ["--config=variants.py:strips", "--config.optim.strips=x"],
            "--config.optim.strips=x: expected a value of type int, as in --config.optim.strips=6",
        ),
        (
            ["--config=variants.py:parts", "--config.optim.strips=6"],
            "unknown key --config.optim.strips; did you mean --config.optim.parts?",
        ),
        (
            ["--config=variants.py:ears", "--config.optim.parts=6"],
            "--config=variants.py:ears fails in line 6: ValueError: there is no 'ears'",
        ),
        (
            ["--config.optim.strips=6", "--config=variants.py:strips"],
            "--config.optim.strips=6 stands before --config=FILE; name the file first",
        ),
        (
            ["--noconfig.optim.nesterov", "--config", "configs/demo.py"],
            "--noconfig.optim.nesterov stands before --config=FILE; name the file first",
        ),
        (["--config=bad_key.py"], "--config=bad_key.py fails in line 2: KeyError: 'x'"),
        (["--config=bad_syntax.py"], "--config=bad_syntax.py: syntax error in line 2: invalid syntax"),
        (
            ["--config=no_function.py"],
            "--config=no_function.py fails: AttributeError: module 'config_config' has no attribute 'get_config'",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_two(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        _parse(*arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


PROGRAM = """
from absl import app, flags, logging
from ml_collections import config_flags
from mmreid_jax.flags import friendly_flags, from_arguments, given

CONFIG = config_flags.DEFINE_config_file("config")

def main(argv):
    logging.info("chatter")
    print("seed", CONFIG.value.seed)
    raise AttributeError("a bug of the program")

app.run(main, flags_parser=friendly_flags)
"""


def _program(folder, *arguments):
    (folder / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "program.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_program_with_a_mistake_on_its_command_line(folder):
    done = _program(folder, DEMO, "--config.sed=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown key --config.sed; did you mean --config.seed?\n"


def test_bugs_of_the_program_keep_their_traceback(folder):
    done = _program(folder, DEMO, "--config.seed=4")
    assert (done.returncode, done.stdout) == (1, "seed 4\n")
    assert "Traceback" in done.stderr
    assert "a bug of the program" in done.stderr
    assert "chatter" not in done.stderr


def test_a_config_may_ask_what_its_line_says(folder):
    """And it is told of no other line: before and after there is none."""
    path = folder / "asking.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from mmreid_jax.flags import given\n"
        "def get_config():\n"
        "    names = ('a', 'b.c', 'd', 'e')\n"
        "    return ConfigDict({'said': tuple(given(name) for name in names), 'a': '', 'b': {'c': 0}, 'd': ''})\n"
    )
    line = [f"--config={path}", "--config.a=x", "--config.a='own:y'", "--config.b.c", "3", "--config.d="]
    config, _ = from_arguments(line)
    assert config.said == ("own:y", "3", "", "")
    assert given("a") == ""


def test_help_still_works(folder):
    done = _program(folder, "--helpshort")
    assert "config" in done.stdout
    assert "error" not in done.stderr
