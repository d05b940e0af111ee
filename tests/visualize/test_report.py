"""The report: one file without external references, all parts given and no others, escaped text, bounded size."""

import dataclasses
import errno
import pathlib
import re

import numpy as np
import pytest

from mmreid_jax import errors
from mmreid_jax.errors import UserError
from mmreid_jax.visualize import attention, curves, page, ranked_lists, report, tables
from tests.visualize.html_reader import Reader


@pytest.fixture
def lists(case):
    return ranked_lists.ranked_lists(case.distances, case.query, case.gallery, case.images, [0, 1], case.ignore, top=4)


@pytest.fixture
def full(case, lists):
    image = np.full((32, 16, 3), 90, np.uint8)
    cmc = curves.cmc_curves({"run": np.array([0.5, 1.0])}, caption="The curve.")
    return report.HtmlReport(
        title="HTT <b>& co",
        summary="What this is.",
        headline={"mAP": 0.691, "rank 1": (0.7, 0.01)},
        command="python main.py --config 'a&b'",
        config={"seed": 0, "note": "<script>alert(1)</script>"},
        protocol="First paragraph.\n\nSecond paragraph.",
        skipped="2 of 4 queries were skipped.",
        scores=[
            tables.ScoreTable({"trained": {"mAP": 0.5}, "adapted": {"mAP": 0.6}}, title="Main table", note="A note.")
        ],
        curves=[cmc],
        ranked_lists=lists,
        failures=lists[1:],
        successes=lists[:1],
        attention=[attention.AttentionExample({"rgb": image}, {"rgb": np.eye(4, 2)}, "identity 5, camera 1")],
        attention_note="Rollout.",
        calibration=["Per pair: ...", "Per search: ..."],
        calibration_picture=dataclasses.replace(cmc, name="calibration"),
        dataset={"training identities": 171},
        extras=[report.Extra("Embedding", "A map.", [dataclasses.replace(cmc, name="embedding")])],
        footer="version 1",
    )


def test_report_is_self_contained(tmp_path, full):
    text = report.write_report(tmp_path / "report.html", full).read_text()
    read = Reader(text)
    addresses = [
        value
        for _, attributes in read.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data")
    ]
    assert len(addresses) > 20
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"(src|href|srcset)\s*=\s*['\"]?\s*(https?:)?//", text)
    assert "@import" not in text
    assert "url(" not in text
    assert not read.all("link")
    assert not read.all("iframe")
    policy = next(tag["content"] for tag in read.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_report_holds_every_part_and_lists_it_in_the_contents(tmp_path, full):
    read = Reader(report.write_report(tmp_path / "report.html", full).read_text())
    text = " ".join(read.text)
    for said in (
        *(
            "HTT <b>& co",
            "What this is.",
            "69.10",
            "70.00 ± 1.00",
            "python main.py --config 'a&b'",
            "Second paragraph.",
        ),
        *(
            "2 of 4 queries were skipped.",
            "Main table",
            "A note.",
            "The curve.",
            "does not come before rank 3",
            "Rollout.",
        ),
        *("identity 5, camera 1", "Per search: ...", "171", "A map.", "version 1", "<script>alert(1)</script>"),
    ):
        assert said in text, said
    contents = [tag["href"] for tag in read.all("a")]
    targets = [tag["id"] for tag in read.all("section")]
    assert contents == [f"#{target}" for target in targets]
    assert len(targets) == 11


def test_text_from_outside_is_escaped(tmp_path, full, lists):
    evil = "\"'><img src=http://example.org/x onerror=alert(1)>"
    bad = dataclasses.replace(
        full,
        title=evil,
        summary=evil,
        headline={evil: 0.5},
        command=evil,
        config={evil: evil},
        protocol=evil,
        scores=[tables.ScoreTable({evil: {evil: 0.5}}, title=evil, note=evil, columns=(evil,))],
        curves=[dataclasses.replace(full.curves[0], alt=evil, caption=evil)],
        ranked_lists=[
            dataclasses.replace(lists[0], query=dataclasses.replace(lists[0].query, file=evil), comment=evil)
        ],
        attention=[dataclasses.replace(full.attention[0], label=evil)],
        footer=evil,
    )
    read = Reader(report.write_report(tmp_path / "report.html", bad).read_text())
    assert all(tag["src"].startswith("data:image/") for tag in read.all("img"))
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)


def test_parts_not_given_are_left_out(tmp_path):
    read = Reader(report.write_report(tmp_path / "report.html", report.HtmlReport("Bare")).read_text())
    assert not read.all("section")
    assert not read.all("img")
    assert not read.all("nav")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("part", ["scores", "protocol", "curves", "ranked_lists", "attention", "dataset", "command"])
def test_a_single_part_stands_alone(tmp_path, full, part):
    alone = report.HtmlReport("Alone", **{part: getattr(full, part)})
    read = Reader(report.write_report(tmp_path / "report.html", alone).read_text())
    assert len(read.all("section")) == 1


def test_every_picture_is_written_as_png_and_carries_an_alternative_text(tmp_path, full, pixels):
    read = Reader(report.write_report(tmp_path / "report.html", full).read_text())
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {
        f"{name}.png"
        for name in ("cmc", "ranked_lists", "failures", "successes", "attention", "calibration", "embedding")
    }
    for path in (tmp_path / "figures").iterdir():
        assert np.ptp(pixels(path.read_bytes())) > 100, f"{path.name} is not blank"
    assert all(tag["alt"] for tag in read.all("img"))
    zooms = [tag for tag in read.all("button") if "zoom" in tag["class"]]
    assert len(zooms) == len(read.all("img"))


def test_thumbnails_carry_right_and_wrong(tmp_path, lists):
    alone = report.HtmlReport("Alone", ranked_lists=lists[:1])
    read = Reader(report.write_report(tmp_path / "report.html", alone).read_text())
    samples = [tag["class"] for tag in read.all("div") if "sample" in tag.get("class", "")]
    assert samples == ["sample query", "sample right", "sample wrong", "sample wrong", "sample wrong"]
    marks = [tag["aria-label"] for tag in read.all("svg")]
    assert marks == ["right", "wrong", "right", "wrong", "wrong", "wrong"], "the legend's two, then one a match"
    alts = [tag["alt"] for tag in read.all("img")]
    assert "rank 1, right, id 5, cam 2, distance 0.200, rgb, gallery3.jpg" in alts
    assert len(alts) == 5 * 3


def test_size_is_bounded_by_smaller_photographs(tmp_path, case):
    rng = np.random.default_rng(0)
    noise = {name: rng.integers(0, 256, (256, 128, 3), dtype=np.uint8) for name in ("rgb", "nir", "tir")}
    lists = ranked_lists.ranked_lists(case.distances, case.query, case.gallery, lambda *_: noise, [0, 1], case.ignore)
    noisy = report.HtmlReport("Noise", ranked_lists=lists)
    sizes = [len(report.render(noisy, size).encode()) for size in page.SIZES]
    assert sizes == sorted(sizes, reverse=True)
    bound = (sizes[1] + sizes[2]) // 2
    path = report.write_report(tmp_path / "report.html", noisy, largest=bound)
    assert path.stat().st_size == sizes[2] <= bound
    with pytest.raises(UserError, match="more than the bound"):
        report.write_report(tmp_path / "report.html", noisy, largest=sizes[-1] - 1)


def test_folder_repeated_names_and_unwritable_places(tmp_path, full):
    assert report.write_report(tmp_path, report.HtmlReport("Bare")) == tmp_path / "report.html"
    twice = dataclasses.replace(full, curves=[*full.curves, *full.curves])
    with pytest.raises(UserError, match="two pictures of the report are called 'cmc'"):
        report.write_report(tmp_path, twice)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        report.write_report(tmp_path / "file" / "report.html", report.HtmlReport("Bare"))


def test_equal_reports_are_equal_files(tmp_path, full):
    one, again = (report.write_report(tmp_path / name / "report.html", full).read_bytes() for name in ("a", "b"))
    assert one == again


@pytest.mark.parametrize("before", [True, False], ids=["an earlier report", "no report"])
@pytest.mark.parametrize("failing", range(8))
def test_a_disk_that_fills_up_costs_one_line_and_leaves_no_half_file(
    tmp_path, full, monkeypatch, capsys, failing, before
):
    """Every write in turn comes half as far as it should."""
    file = report.write_report(tmp_path / "new" / "report.html", full)
    new = {path.relative_to(file.parent): path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    assert len(new) == 8
    folder = tmp_path / "folder"
    old = {}
    if before:
        report.write_report(folder / "report.html", dataclasses.replace(full, title="An earlier one"))
        old = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    whole, count = pathlib.Path.write_bytes, iter(range(100))

    def half(path, content):
        if next(count) < failing:
            return whole(path, content)
        whole(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(pathlib.Path, "write_bytes", half)
    with pytest.raises(SystemExit):
        errors.run_command(report.write_report, folder / "report.html", full)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: cannot write .* \(No space left on device\); free some space, or name a .*\.", line)
    left = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(old) <= set(left) <= set(new)
    for name, content in left.items():
        assert content in (new[name], old.get(name)), name
    # The page is written last, so that it never names a picture that is not there.
    assert left.get(pathlib.Path("report.html")) == old.get(pathlib.Path("report.html"))
