"""Everything worth knowing of one GPU in eight minutes: ONE command, one JSON file and one Markdown table.

    python benchmarks/gpu.py                        writes gpu_benchmark.json and gpu_benchmark.md
    python benchmarks/gpu.py --minutes 4 --out DIR/NAME --sections peak htt htt_torch
    python benchmarks/gpu.py --quick                tiny networks, also on a CPU: does it run at all?

The measured peak of matrix products; training steps of ViT-B HTT, AGW, MMGL and TVI-LFM's text stage in float32, tf32
and bfloat16, in batches up to what fits; the same networks in PyTorch, eager and compiled, where PyTorch is installed;
training fed by the loader and by images on the device; distances and scores. It stops by itself when the time is up.
Both files are written anew after every row, so that whatever ends it, they hold what was measured until then.

Each section is measured by a process of its own (`gpu_worker.py`), which is ended when its share of the time is over;
time that a section leaves goes to those after it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Seconds of eight minutes, the most wanted first.
SECTIONS = {
    "peak": 25,
    "htt": 100,
    "htt_torch": 65,
    "data": 60,
    "agw": 40,
    "agw_torch": 25,
    "tvi_lfm": 40,
    "tvi_lfm_torch": 25,
    "mmgl": 35,
    "mmgl_torch": 25,
    "retrieval": 25,
}
RESERVE = 5.0
"""Seconds kept for ending the last process."""
COLUMNS = (
    "what",
    "side",
    "precision",
    "samples",
    "ms",
    "images/s",
    "against eager PyTorch",
    "share of peak",
    "GiB",
    "compile s",
    "note",
)


def allowance(section: str, waiting: Sequence[str], left: float) -> float:
    """Seconds for a section out of those that are left for it and all others in `waiting` (which holds it)."""
    return left * SECTIONS[section] / sum(SECTIONS[name] for name in waiting)


def environment(section: str, quick: bool) -> dict[str, str]:
    """Variables of a section's process."""
    changed = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    if quick or section.endswith("_torch"):
        # PyTorch's side needs JAX for nothing but its weights, and all memory of the device.
        changed["JAX_PLATFORMS"] = "cpu"
    return {**os.environ, **changed}


def lines_until(process: subprocess.Popen[str], end: float) -> Iterator[str]:
    """What a process prints until it ends or the time is up; then it is killed."""
    found: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.put(line)
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            line = found.get(timeout=max(end - time.monotonic(), 0.0))
            if line is None:
                return
            yield line
    except queue.Empty:
        return
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A process that has printed its last row is about to end by itself.
            process.wait(timeout=max(min(2.0, end - time.monotonic()), 0.0))
        if process.poll() is None:
            process.kill()
            process.wait()


def measure(section: str, seconds: float, quick: bool, errors: Path) -> Iterator[dict[str, Any]]:
    """The rows of a section; one more where it failed or was ended."""
    command = [sys.executable, "-u", str(HERE / "gpu_worker.py"), section, "--seconds", f"{seconds:.0f}"]
    end = time.monotonic() + seconds
    with errors.open("a") as log:
        process = subprocess.Popen(
            command + ["--quick"] * quick,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(section, quick),
            cwd=HERE.parent,
        )
        for line in lines_until(process, end):
            if line.startswith("ROW "):
                yield json.loads(line.removeprefix("ROW "))
    if process.returncode == -9 and time.monotonic() >= end - 1:
        yield {"section": "left out", "what": [f"the rest of {section}: its {seconds:.0f} seconds were over"]}
    elif process.returncode:
        yield {"section": "left out", "what": [f"{section}: failed, see {errors.name}"]}


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of the Markdown table: text by column."""
    peaks = {row["precision"]: row["flops_per_second"] for row in rows if row["section"] == "peak"}
    work: dict[str, float] = {}
    eager: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if row["section"] == "step" and row.get("flops"):
            # Of a sample: both sides do the same work.
            work[row["method"]] = row["flops"] / row["batch"]
        if row["section"] == "step" and row["side"] == "PyTorch" and row.get("seconds"):
            eager[row["method"], row["precision"], row["batch"]] = row["images_per_second"]
    lines = []
    for row in rows:
        if row["section"] not in ("peak", "step", "data", "retrieval"):
            continue
        seconds, rate = row.get("seconds"), row.get("images_per_second")
        cells = dict.fromkeys(COLUMNS, "")
        cells["what"] = {"peak": "matrix product", "data": "htt, fed by"}.get(row["section"], row.get("method", ""))
        cells["side"] = row.get("side", "")
        cells["precision"] = row.get("precision", "")
        cells["samples"] = str(row.get("batch", row.get("size", "")))
        cells["ms"] = f"{1e3 * seconds:.3g}" if seconds else ""
        cells["images/s"] = f"{rate:,.0f}" if rate else ""
        other = eager.get((row.get("method"), row.get("precision"), row.get("batch")))
        if rate and other and row["side"] != "PyTorch":
            cells["against eager PyTorch"] = f"{rate / other:.2f} x"
        peak = peaks.get(row.get("precision"))
        if row["section"] == "step" and seconds and peak and row["method"] in work:
            cells["share of peak"] = f"{100 * work[row['method']] * row['batch'] / seconds / peak:.0f} %"
        cells["GiB"] = f"{row['memory_gib']:.1f}" if row.get("memory_gib") else ""
        cells["compile s"] = f"{row['compile_seconds']:.0f}" if row.get("compile_seconds") else ""
        notes = [row.get("note", "")]
        if row["section"] == "peak":
            notes.append(f"{row['flops_per_second'] / 1e12:.1f} TFLOP/s")
        if row["section"] == "retrieval":
            notes.append(f"gallery {row['gallery']:,}, {row['width']} numbers")
        if row.get("attention", "plain") not in ("plain", ""):
            notes.append(f"attention {row['attention']}")
        if row.get("together", 1) > 1:
            notes.append(f"{row['together']} steps a call")
        cells["note"] = "; ".join(filter(None, notes))
        lines.append(cells)
    return lines


def markdown(rows: Sequence[Mapping[str, Any]], command: str, seconds: float, done: bool) -> str:
    """The page: machine, table, what is missing."""
    machine: Mapping[str, Any] = next((row for row in rows if row["section"] == "machine"), {})
    torch = next((row["torch"] for row in rows if row.get("torch")), "none")
    state = "" if done else ", not finished"
    text = [
        f"`{command}`: {machine.get('device', 'unknown device')}, {machine.get('memory_gib', 0)} GiB for JAX, "
        f"{machine.get('cores', '?')} cores, jax {machine.get('jax', '?')}, torch {torch}; {seconds:.0f} s{state}.",
        "",
        "A row is the fastest of three turns. Share of peak: matrix products and convolutions of the step against the "
        "large matrix product of the same precision. GiB: of ours what XLA plans for the step, of PyTorch the most "
        "that it allocated. Compile: of PyTorch with its first step.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cells[name] for name in COLUMNS) + " |" for cells in table(rows)),
    ]
    missing = [what for row in rows if row["section"] == "left out" for what in row["what"]]
    if missing:
        text += ["", "Left out:", "", *(f"- {what}" for what in missing)]
    return "\n".join(text) + "\n"


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="when to stop, whatever is still to do")
    parser.add_argument("--out", type=Path, default=Path("gpu_benchmark"), help="path of both files, without suffix")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="tiny networks on the CPU")
    options = parser.parse_args()
    begun = time.monotonic()
    end = begun + 60 * options.minutes - RESERVE
    options.out.parent.mkdir(parents=True, exist_ok=True)
    data, page, errors = (options.out.with_name(options.out.name + suffix) for suffix in (".json", ".md", ".log"))
    errors.write_text("")
    command = " ".join(["python benchmarks/gpu.py", *sys.argv[1:]])
    rows: list[dict[str, Any]] = []

    def keep(done: bool) -> None:
        seconds = time.monotonic() - begun
        write(data, json.dumps({"command": command, "seconds": seconds, "done": done, "rows": rows}, indent=1) + "\n")
        write(page, markdown(rows, command, seconds, done))

    keep(False)
    for position, section in enumerate(options.sections):
        seconds = allowance(section, options.sections[position:], end - time.monotonic())
        for row in measure(section, seconds, options.quick, errors):
            rows.append(row)
            keep(False)
            print(json.dumps(row), flush=True)
            if row["section"] == "machine" and row["platform"] == "cpu" and not options.quick:
                print("JAX sees no accelerator here; --quick runs on a CPU", file=sys.stderr)
                raise SystemExit(2)
    keep(True)
    print(page.read_text())


if __name__ == "__main__":
    main()
