"""Captions for images.

``python -m mmreid_jax captioning caption|pairs|finetune|rephrase|strip_colours ...``

    caption --model DIR --images DIR --out FILE.json          captions of all images below a folder
    caption --model DIR --dataset regdb --root DIR --modality ir      the Text files of an unpacked data set
    pairs --dataset sysu_mm01 --root DIR --out FILE.json      infrared training images with captions without colours
    finetune --model DIR --captions FILE.json --images DIR --out DIR  a captioner trained on such pairs
    rephrase --model DIR --captions FILE                      other words for the captions of a file
    strip_colours FILE --out FILE                             its texts without colour words

Models are folders on this disk; nothing is downloaded. An interrupted command goes on when it is given again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmreid_jax.captioning import captioner, colours, pairs, pictures, prompts, rephrasing, text_files
from mmreid_jax.captioning.progress import journal_of, must_be_new_or_begun
from mmreid_jax.data import captions, listing
from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of


def caption(options: argparse.Namespace) -> None:
    """Describes the images of a folder, or those of one modality of a data set."""
    if bool(options.images) == bool(options.dataset) or bool(options.images) != bool(options.out):
        raise UserError("name the images with --images DIR --out FILE.json, or with --dataset and --root DIR")
    if options.images:
        table, root = pictures.of_folder(options.images), Path()
        out = path_of(options.out)
    else:
        table, root = _of_data_set(options, options.modality)
        out = captions.paths(root, options.captioner, table.modality)["captions"]
    must_be_new_or_begun(out)
    settings = {"model": str(path_of(options.model).resolve()), "length": options.length, "images": table.name}
    # A data set's files of texts have one for each image.
    unusable = dict(table.unusable) if options.images and options.broken == "skip" else None
    if table.unusable and unusable is None:
        raise UserError(
            f"{len(table.unusable)} files cannot be used: {listing.in_words(table.unusable)}; get them again, or leave "
            "them out with --broken skip"
        )
    describe = captioner.Captioner(options.model, options.processor, options.device)
    with journal_of(out, settings) as journal, _bar(len(table), "images") as progress:
        texts = captioner.caption(
            lambda images: describe(images, options.length), table, journal, options.batch_size, progress, unusable
        )
        if options.images:
            text_files.write(out, {file: {text_files.CAPTION: text} for file, text in texts.items()})
        else:
            rows = zip(table.files, table.identity.tolist(), table.training.tolist(), strict=True)
            entries = [
                captions.Captioned(captions.Image(file, who, table.modality), texts[file], trained_on=training)
                for file, who, training in rows
            ]
            captions.write(root, options.captioner, pictures.text_form(options.dataset), entries)
        journal.finish()
    if unusable:
        print(f"{len(unusable)} files could not be used: {listing.in_words(unusable, len(unusable))}")
    print(f"{len(texts)} captions: {out}")


def make_pairs(options: argparse.Namespace) -> None:
    """Gives infrared training images captions of visible ones, without colours."""
    out = path_of(options.out)
    text_files.must_be_new(out)
    (visible, root), (infrared, _) = (_of_data_set(options, modality) for modality in ("rgb", "ir"))
    rows, others = (table.training.nonzero()[0].tolist() for table in (visible, infrared))
    images = [captions.Image(visible.files[row], int(visible.identity[row]), visible.modality) for row in rows]
    texts_of_visible = [text.caption for text in captions.read(root, options.captioner, "train", images)]
    chosen, texts = pairs.infrared_captions(
        infrared.identity[others], visible.identity[rows], texts_of_visible, options.seed
    )
    files = [infrared.files[others[row]] for row in chosen]
    text_files.write(out, {file: {text_files.CAPTION: text} for file, text in zip(files, texts, strict=True)})
    print(f"{len(files)} infrared images with captions: {out}")


def finetune(options: argparse.Namespace) -> None:
    """Trains a captioner on the images that a file describes."""
    out, root = path_of(options.out), path_of(options.images)
    text_files.must_be_new(out)
    described = text_files.read(path_of(options.captions))
    absent = [file for file in described if not (root / file).is_file()]
    if absent or not described:
        raise UserError(
            f"{options.captions} describes {len(described)} images, of which {len(absent)} are not below {root}"
            f"{f', such as {absent[0]}' if absent else ''}; give the folder that its paths begin in with --images"
        )
    model = captioner.Captioner(options.model, options.processor, options.device)
    training = captioner.Training(options.epochs, options.batch_size, options.rate, options.weight_decay, options.seed)
    texts = [fields[text_files.CAPTION] for fields in described.values()]
    table = pictures.of_files(root, list(described))
    tell = lambda epoch, loss: print(f"epoch {epoch}: loss {loss:.4f}", flush=True)  # noqa: E731
    captioner.finetune(model, table, texts, out, training, tell)
    print(f"captioner trained on {len(table)} pairs: {out}")


def rephrase(options: argparse.Namespace) -> None:
    """Rephrases the captions of a file."""
    source = path_of(options.captions)
    described = text_files.read(source)
    out = path_of(options.out) if options.out else text_files.rephrased_name(source)
    must_be_new_or_begun(out)
    if out.suffix != source.suffix:
        raise UserError(f"--out must end in {source.suffix} as {source} does, and is {out}")
    settings = {name: getattr(options, name) for name in ("request", "temperature", "seed", "strip_colours")}
    settings |= {"model": str(path_of(options.model).resolve()), "captions": str(source.resolve())}
    model = rephrasing.load(options.model, options.device, options.temperature, options.new_tokens)
    texts = {key: fields[text_files.CAPTION] for key, fields in described.items()}
    change = colours.strip_colours if options.strip_colours else lambda text: text
    with journal_of(out, settings) as journal, _bar(len(described), "captions") as progress:
        answers = rephrasing.rephrase(
            model, texts, journal, request=options.request, change=change, seed=options.seed, progress=progress
        )
        if source.suffix == ".npy":
            text_files.write(out, {key: {text_files.CAPTION: text} for key, text in answers.items()})
        else:
            text_files.write(
                out, {key: {**described[key], text_files.REPHRASED: text} for key, text in answers.items()}
            )
        journal.finish()
    print(f"{len(answers)} rephrasings: {out}")


def strip_colours(options: argparse.Namespace) -> None:
    """Removes colour words from the texts of a file."""
    out = path_of(options.out)
    text_files.must_be_new(out)
    described = text_files.read(path_of(options.captions))
    stripped, count = text_files.changed(described, colours.strip_colours, options.fields)
    text_files.write(out, stripped)
    print(f"{count} texts changed: {out}")


def _of_data_set(options: argparse.Namespace, modality: str) -> tuple[pictures.Pictures, Path]:
    """The images of a modality of the data set that the flags name, and the folder that its texts lie in."""
    if bool(options.root) == bool(options.data_dir):
        raise UserError("name the data set's folder with --root, or the folder of prepared data sets with --data_dir")
    if options.data_dir:
        if not options.text_root:
            raise UserError("prepared records have no folder of texts; name one with --text_root DIR")
        images = pictures.of_data_set(options.dataset, options.data_dir, modality, prepared=True)
        return images, path_of(options.text_root)
    images = pictures.of_data_set(options.dataset, options.root, modality)
    return images, path_of(options.text_root or pictures.root_of(options.dataset, options.root))


@contextlib.contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error where somebody watches; yields what moves it."""
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", disable=not sys.stderr.isatty()) as bar:
        yield lambda done: bar.update(done) and None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax captioning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], model: str = "") -> Any:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        if model:
            added.add_argument("--model", required=True, help=model)
            added.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        return added

    def data_set(added: Any, required: bool) -> None:
        added.add_argument("--dataset", required=required, help="sysu_mm01, regdb or llcm")
        added.add_argument("--root", help="its unpacked folder, or the parent")
        added.add_argument("--data_dir", help="folder of prepared data sets, to read its records instead")
        added.add_argument("--text_root", help="folder that holds, or gets, the folder Text (default: --root)")
        added.add_argument("--captioner", default=captions.CAPTIONER, help="name in the files of texts")

    added = command("caption", caption, "folder of a captioning model of transformers, such as BLIP")
    added.add_argument("--processor", help="folder of its processor (default: the model's)")
    added.add_argument("--images", help="folder of images, at any depth")
    added.add_argument("--out", help="with --images: the JSON file to write")
    text = "with --images, what cannot be read: skip (and list it at the end) or stop"
    added.add_argument("--broken", choices=("skip", "stop"), default="skip", help=text)
    data_set(added, required=False)
    added.add_argument("--modality", choices=("rgb", "ir"), default="rgb", help="of the data set's images")
    added.add_argument("--length", type=_positive, default=captioner.LENGTH, help="longest caption in tokens")
    added.add_argument("--batch_size", type=_positive, default=8)

    added = command("pairs", make_pairs)
    data_set(added, required=True)
    added.add_argument("--out", required=True, help="the JSON file to write")
    added.add_argument("--seed", type=int, default=0)

    added = command("finetune", finetune, "folder of the captioning model to begin with")
    added.add_argument("--processor", help="folder of its processor (default: the model's)")
    added.add_argument("--captions", required=True, help="JSON file of captions by path")
    added.add_argument("--images", required=True, help="folder that the paths begin in")
    added.add_argument("--out", required=True, help="folder for the trained model")
    for name, value in vars(captioner.Training()).items():
        kind = _positive if name in ("epochs", "batch_size") else type(value)
        added.add_argument(f"--{name}", type=kind, default=value)

    added = command("rephrase", rephrase, "folder of a chat model of Vicuna's template")
    added.add_argument("--captions", required=True, help="file of captions, .json or .npy")
    added.add_argument("--out", help="default: beside it, caption_llm_dict_... for caption_dict_...")
    added.add_argument("--request", default=prompts.REQUEST, help="what follows a caption in the message")
    added.add_argument("--strip_colours", action="store_true", help="from the answers, for infrared captions")
    added.add_argument("--temperature", type=float, default=rephrasing.TEMPERATURE, help="0: no sampling")
    added.add_argument("--new_tokens", type=_positive, default=rephrasing.NEW_TOKENS, help="most tokens of an answer")
    added.add_argument("--seed", type=int, default=0)

    added = command("strip_colours", strip_colours)
    added.add_argument("captions", help="file of captions, .json or .npy")
    added.add_argument("--out", required=True)
    fields = (text_files.CAPTION, text_files.REPHRASED)
    added.add_argument("--fields", nargs="+", choices=fields, default=fields, help="of a JSON file")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(argv)
    options.run(options)
