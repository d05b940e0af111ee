"""The command that prepares a data set: its table, its verdict, and one line for every mistake."""

import textwrap

from mmreid_jax.commands.prepare import main
from tests.datasets import trees
from tests.processes import run_python


def test_the_command_prints_a_table_and_the_verdict(tmp_path, capsys):
    trees.write("rgbnt201", tmp_path / "raw")
    arguments = ["--dataset", "rgbnt201", "--manual_dir", str(tmp_path / "raw"), "--data_dir", str(tmp_path / "data")]
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"rgbnt201: prepared in {tmp_path}/data/rgbnt201/1.0.0"
    assert lines[1].split() == ["split", "identities", "samples", "cameras", "(samples)"]
    assert lines[2].split() == ["train", "3", "4", "0", "(1),", "1", "(1),", "2", "(1),", "3", "(1)"]
    assert lines[3].split() == ["query", "2", "3", "0", "(1),", "1", "(2)"]
    assert lines[5].startswith("rgbnt201: incomplete: train lacks")
    main([*arguments, "--check_images"])
    assert capsys.readouterr().out.startswith("rgbnt201: already prepared in")


def test_the_command_reports_errors_in_one_line(tmp_path):
    arguments = ["--dataset", "msvr310", "--manual_dir", str(tmp_path), "--data_dir", str(tmp_path / "data")]
    ended = run_python("-m", "mmreid_jax", "prepare", *arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    message = textwrap.shorten(ended.stderr, 10**6)
    assert message.startswith("error: msvr310: missing under")
    assert ended.stderr.count("\n") == 1
