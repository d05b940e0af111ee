"""A trained model for other programs.

``python -m mmreid_jax export --checkpoint DIR --out model.onnx``

writes preprocessing, network, feature and its length as one ONNX graph, and says how far it is from the live model.
``--for ultralytics`` and ``--for boxmot`` write what those trackers load, ``--format stablehlo`` a program that JAX
alone runs, ``--format safetensors`` a folder to pass on, which ``--checkpoint`` and ``mmreid_jax.load`` open again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import mmreid_jax.datasets as datasets
from mmreid_jax.commands.options import add_model_flags, open_model
from mmreid_jax.errors import UserError
from mmreid_jax.export import checking, files, folder
from mmreid_jax.export.network import Contract, Network
from mmreid_jax.paths import check_output, path_of
from mmreid_jax.training import checkpoints

ENDINGS = {"onnx": ".onnx", "stablehlo": ".stablehlo"}
TRACKERS = ("ultralytics", "boxmot")
# BoxMOT builds a network of its own by a name that it knows in the name of the file, before it reads the file.
BOXMOT = ("osnet_x0_25", "osnet_x0_5", "osnet_x0_75", "osnet_x1_0", "osnet_ibn_x1_0", "osnet_ain_x1_0", "resnet50")
_IMAGE = "images"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments, rest = _parser().parse_known_args(argv)
    out, kind = arguments.out, arguments.format
    if kind == "safetensors":
        if wrong := [
            flag for flag in ("modalities", "feature", "input", "input_size", "program") if _given(arguments, flag)
        ]:
            flag = "for" if wrong[0] == "program" else wrong[0]
            raise UserError(f"--{flag} is for a graph; --format safetensors writes the whole model")
        folder.check_target(out, arguments.overwrite)
        check_output(out, "--out", folder=True)
    else:
        if out.suffix != ENDINGS[kind]:
            raise UserError(f"--out {out} must end with {ENDINGS[kind]} for --format {kind}")
        if kind == "onnx":
            files.need_onnx()
        elif arguments.program:
            raise UserError(f"--for {arguments.program} is an ONNX file; leave out --format {kind}")
        contract = _contract(arguments)
        files.check_targets(kind, out, arguments.overwrite)
        check_output(out, "--out")
    extractor = open_model(arguments, rest)
    if kind == "safetensors":
        scores = checkpoints.scores_of(arguments.checkpoint, arguments.which)
        config = extractor.config
        version = datasets.get(config.data.dataset, config.data.data_dir).version
        count = folder.write(extractor, out, scores, version, arguments.overwrite)
        print(
            f"{out}: {config.method} on {config.data.dataset}, {count:,} numbers; open it with "
            f"mmreid_jax.load({str(out)!r})"
        )
        return
    chosen = tuple(name for name in arguments.modalities.split(",") if name)
    if arguments.program and not chosen:
        # A tracker has one camera, a visible one.
        chosen = extractor.method.facts.modalities[:1]
    network = Network(extractor, chosen, arguments.feature, contract)
    checking.check_memory(network, arguments.check)
    write = files.write_onnx if kind == "onnx" else files.write_stablehlo
    difference = write(network, out, arguments.check)
    for name, (shape, dtype) in network.inputs.items():
        print(f"input {name}: {dtype} [batch, {', '.join(map(str, shape))}]")
    print(f"output {files.OUTPUT}: float32 [batch, {network.dimension}], {network.feature} of length 1")
    print(f"{difference}")
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    parser.add_argument("--out", type=path_of, required=True, help="file to write; of safetensors the folder")
    parser.add_argument("--format", choices=(*ENDINGS, "safetensors"), default="onnx", help="(default: %(default)s)")
    parser.add_argument("--for", dest="program", choices=TRACKERS, help="write an ONNX file as this tracker loads it")
    text = "comma-separated: images to take, the others are absent (default: all; of a tracker the visible one)"
    parser.add_argument("--modalities", default="", help=text)
    text = "which feature of the model (default: the one that images are compared by); with text fusion, mer or text"
    parser.add_argument("--feature", default="", help=text)
    text = "RGB images are numbers from 0 to 1 (float32, the default) or from 0 to 255 (uint8)"
    parser.add_argument("--input", choices=("float32", "uint8"), help=text)
    text = "of the images that come, resized inside the graph (default: the network's own size)"
    parser.add_argument("--input_size", type=_size, metavar="HxW", help=text)
    parser.add_argument("--check", type=int, default=200, help="samples to compare with the live model (default: 200)")
    parser.add_argument("--overwrite", action="store_true", help="replace what this command wrote to --out")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH, such as 256x128")
    return int(match[1]), int(match[2])


def _given(arguments: argparse.Namespace, flag: str) -> bool:
    return bool(getattr(arguments, flag))


def _contract(arguments: argparse.Namespace) -> Contract:
    """How images come, by the program that is to use the file."""
    if arguments.check < 2:
        raise UserError(f"--check is {arguments.check}; it takes two samples or more to compare neighbours")
    if not arguments.program:
        pixels = "uint8" if arguments.input == "uint8" else "unit"
        return Contract(pixels, arguments.input_size or ())
    if arguments.input:
        raise UserError(f"{arguments.program} says itself what its images are; leave out --input")
    if arguments.program == "ultralytics":
        # It resizes to a square, whose side it reads off the file.
        size = arguments.input_size or (256, 256)
        if size[0] != size[1]:
            raise UserError(f"ultralytics resizes to squares; --input_size {size[0]}x{size[1]} is none")
        return Contract("unit", size, _IMAGE)
    return Contract("imagenet", boxmot_size(arguments.out, arguments.input_size), _IMAGE)


def boxmot_size(out: Path, wanted: tuple[int, int] | None = None) -> tuple[int, int]:
    """The size that BoxMOT resizes to, which it reads off the name of the file.

    Args:
      out: the file.
      wanted: what the user says.

    Raises:
      UserError: it would not load a file of this name, or resizes to another size.
    """
    name = out.name.lower()
    if "clip" in name or not any(known in name for known in BOXMOT):
        raise UserError(
            f"BoxMOT does not load a file called {out.name}: the name must hold one of {', '.join(BOXMOT)} and no "
            f"'clip'; --out osnet_x0_25_{out.stem.replace('clip', 'c')}.onnx will do"
        )
    size = (256, 256) if "veri" in name or "vehicleid" in name else (256, 128)
    if wanted and wanted != size:
        raise UserError(
            f"BoxMOT resizes to {size[0]}x{size[1]} for a file of this name, not to {wanted[0]}x{wanted[1]}"
        )
    return size
