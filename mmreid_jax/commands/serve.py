"""A page on this machine that searches a gallery by an image, or by words where the model reads them.

``python -m mmreid_jax serve --checkpoint DIR --gallery DIR``

It listens to this machine alone (127.0.0.1) unless ``--host`` says otherwise: whoever can reach it sees the gallery.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from pathlib import Path

from mmreid_jax.commands.options import (
    add_image_flags,
    add_model_flags,
    describe,
    list_left_out,
    open_images,
    open_model,
)
from mmreid_jax.data.records import Records
from mmreid_jax.datasets import folder
from mmreid_jax.datasets.own import naming
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import path_of, reason_of
from mmreid_jax.serving import app, searching

HERE = ("127.0.0.1", "localhost", "::1")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments, rest = _parser().parse_known_args(argv)
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(f"serve needs {error.name}, which is not installed; pip install 'mmreid_jax[serve]'") from None
    if arguments.largest < 1:
        raise UserError(f"--largest is {arguments.largest}; it takes at least 1 MB")
    _check_address(arguments.host, arguments.port)
    extractor = open_model(arguments, rest)
    modality = arguments.modality
    if extractor.config.data.get("text", False) and not modality:
        # Words look for people in visible images.
        modality = extractor.method.facts.modalities[0]
    records, absent = open_images(arguments, extractor, arguments.gallery, modality, "--modality")
    print(describe(records, absent, extractor.one_modality))
    list_left_out(records)
    cameras = cameras_of(records, extractor.config.data.dataset, arguments.pattern)
    searcher = searching.Searcher(extractor, records, absent, cameras)
    facts = {
        "model": f"{extractor.config.method} on {extractor.config.data.dataset}",
        "gallery": arguments.gallery.name,
        "threshold": searcher.threshold(arguments.checkpoint, arguments.which),
    }
    if arguments.host not in HERE:
        print(f"note: whoever reaches {arguments.host}:{arguments.port} can search and see this gallery")
    # Of all its addresses a machine does not know the names that others call it by.
    hosts = ["*"] if arguments.host in ("0.0.0.0", "::") else [*HERE, arguments.host]
    made = app.application(searcher, facts, hosts, arguments.largest * app.MEGABYTE)
    named = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(f"http://{named}:{arguments.port} (Ctrl-C ends it)", flush=True)
    uvicorn.run(made, host=arguments.host, port=arguments.port, log_level="warning")


def cameras_of(records: Records, dataset: str, pattern: str) -> list[str]:
    """Names of the cameras of a folder's images, one for each; empty where its file names do not tell them.

    Args:
      records: of the folder.
      dataset: that the model was trained on, in whose form the names may be.
      pattern: form of the names, as ``prepare --pattern`` wants it; "" for none.

    Raises:
      UserError: the pattern has no camera, or a name is not of its form.
    """
    if not pattern:
        labelled = folder.with_labels(records, dataset)
        return [] if labelled is None else [str(camera) for camera in labelled.camera]
    if "{camera}" not in pattern:
        raise UserError(f"--pattern {pattern!r} has no {{camera}}, which is all that it is read for here")
    said = [naming.groups_of(pattern, str(Path(name).with_suffix(""))) for name in records.file]
    if None in said:
        raise UserError(f"{printable(records.file[said.index(None)])} is not named in the form {pattern} of --pattern")
    return [each["camera"] for each in said if each is not None]


def _check_address(host: str, port: int) -> None:
    """Says before the work whether the page can be served at an address.

    Raises:
      UserError: it cannot.
    """
    if not 0 < port < 1 << 16:
        raise UserError(f"--port is {port}; it must lie from 1 to 65535")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, UnicodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "this is no name of a machine"
        raise UserError(
            f"cannot listen at {printable(host)} port {port} ({reason}); name another --host or --port"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    text = "folder of images to search, or of one subfolder per modality"
    parser.add_argument("--gallery", type=path_of, required=True, help=text)
    text = "form of its file names, such as '{identity}_c{camera}_{index}', so that cameras can be chosen"
    parser.add_argument("--pattern", default="", help=text)
    parser.add_argument("--modality", help="of its images: rgb, nir, tir, thermal ... (default: the folder's name)")
    add_image_flags(parser)
    parser.add_argument("--host", default=HERE[0], help="address to listen to (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    parser.add_argument("--largest", type=int, default=20, help="megabytes of an image (default: %(default)s)")
    return parser
