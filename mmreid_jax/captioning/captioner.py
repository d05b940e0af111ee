"""Captions of images by a model such as BLIP, and its fine-tuning on pairs of images and captions.

TVI-LFM (NeurIPS 2024) fine-tunes BLIP (large) for visible images on pedestrian captions, and that again for infrared
images on captions without colours; both describe each image once, greedily, without a text to begin with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.captioning import frameworks, text_files
from mmreid_jax.captioning.pictures import Pictures
from mmreid_jax.captioning.progress import Journal, groups
from mmreid_jax.data.images import BrokenImage
from mmreid_jax.errors import UserError

LENGTH = 50
"""Longest caption in tokens, as in TVI-LFM."""


class Captioner:
    """A model that describes images, and the processor that prepares images and texts for it."""

    def __init__(self, model: str | Path, processor: str | Path | None = None, device: str = "auto") -> None:
        """Loads them from folders.

        Args:
          model: folder of the model, of BLIP or another that transformers can turn images into text with.
          processor: folder of its processor; None: the same. The authors' fine-tuned folders have none, theirs is that
            of the model that they began with.
          device: ``cpu``, ``cuda`` or ``auto``.

        Raises:
          UserError: a folder is missing or does not hold what it should, or PyTorch is not installed.
        """
        folder = frameworks.model_folder(model)
        beside = folder if processor is None else frameworks.model_folder(processor)
        self.torch, transformers = frameworks.load()
        self.device = frameworks.device_of(self.torch, device)
        with frameworks.reading(beside, "the processor"):
            self.processor: Any = transformers.AutoProcessor.from_pretrained(beside, local_files_only=True)
        with frameworks.reading(folder, "the model"):
            loaded = transformers.AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        self.model: Any = loaded.to(self.device).eval()

    def __call__(self, images: Sequence[Any], length: int = LENGTH) -> list[str]:
        """One caption for each PIL image, by greedy search.

        Args:
          images: in three channels.
          length: longest caption in tokens.
        """
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"].to(self.device)
        with self.torch.no_grad():
            tokens = self.model.generate(pixel_values=pixels, max_length=length, num_beams=1, do_sample=False)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


def caption(
    describe: Callable[[list[Any]], Sequence[str]],
    pictures: Pictures,
    journal: Journal,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
    unusable: dict[str, str] | None = None,
) -> dict[str, str]:
    """Captions of all pictures, of which those in the journal are not made again.

    Args:
      describe: PIL images -> their captions.
      pictures: what to describe.
      journal: receives every batch of captions before the next one begins.
      batch_size: images that `describe` gets at a time.
      progress: is told how many captions are there.
      unusable: receives the files that cannot be read, with the reasons; None: such a file is an error.

    Returns:
      File -> caption, in the order of `pictures`, of those that can be read.

    Raises:
      UserError: an image cannot be read; the captions made before are kept.
    """
    left = [position for position, file in enumerate(pictures.files) if file not in journal.done]
    progress(len(pictures) - len(left))
    for positions in groups(left, batch_size):
        images: dict[str, Any] = {}
        for position in positions:
            try:
                images[pictures.files[position]] = pictures.image(position)
            except BrokenImage as error:
                if unusable is None:
                    raise
                unusable[pictures.files[position]] = error.reason
        if images:
            journal.add(dict(zip(images, describe(list(images.values())), strict=True)))
        progress(len(positions))
    return {file: journal.done[file] for file in pictures.files if file in journal.done}


@dataclasses.dataclass(frozen=True)
class Training:
    """How a captioner is fine-tuned: AdamW with a constant rate.

    Attributes:
      epochs: passes over the pairs.
      batch_size: pairs per step.
      rate: learning rate; 5e-5 is that of the guide that TVI-LFM followed.
      weight_decay: of AdamW.
      seed: of the order of the pairs.
    """

    epochs: int = 1
    batch_size: int = 8
    rate: float = 5e-5
    weight_decay: float = 0.0
    seed: int = 0


def finetune(
    captioner: Captioner,
    pictures: Pictures,
    texts: Sequence[str],
    out: Path,
    options: Training,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Fine-tunes a captioner on pairs of pictures and texts, and saves it with its processor in the folder `out`.

    The state after each epoch lies in ``<out>.progress``, from which an interrupted run goes on; `out` appears complete
    or not at all. The loss is the mean cross-entropy of the next token; padding does not count.

    Returns:
      Mean loss of every epoch of this call.

    Raises:
      UserError: `out` is there already, an image cannot be read, the loss is not finite, or a run with other settings
        was interrupted.
    """
    torch, model = captioner.torch, captioner.model
    text_files.must_be_new(out)
    unfinished = out.with_name(out.name + ".progress")
    stateful = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=options.weight_decay)
    settings = {**dataclasses.asdict(options), "pairs": len(pictures)}
    del settings["epochs"]  # More of them may be added.
    begun = _resume(torch, unfinished / "state.pt", model, stateful, settings)
    losses = []
    for epoch in range(begun, options.epochs):
        model.train()
        total = 0.0
        torch.manual_seed(options.seed * 1_000_003 + epoch)
        order = np.random.default_rng([options.seed, epoch]).permutation(len(pictures))
        for rows in groups(order.tolist(), options.batch_size):
            loss = _loss(captioner, [pictures.image(row) for row in rows], [texts[row] for row in rows])
            stateful.zero_grad()
            loss.backward()
            stateful.step()
            total += float(loss.detach()) * len(rows)
        mean = total / len(pictures)
        if not np.isfinite(mean):
            raise UserError(f"the loss of epoch {epoch + 1} is {mean}; choose a lower --rate")
        losses.append(mean)
        stored = {"model": model.state_dict(), "optimizer": stateful.state_dict()}
        _save(torch, {**stored, "epoch": epoch + 1, "settings": settings}, unfinished / "state.pt")
        progress(epoch + 1, mean)
    model.eval()
    finished = unfinished / "model"
    with _writing(out):
        finished.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(finished)
        captioner.processor.save_pretrained(finished)
        finished.rename(out)
        (unfinished / "state.pt").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files may be there as well
            unfinished.rmdir()
    return losses


def _loss(captioner: Captioner, images: list[Any], texts: list[str]) -> Any:
    """Mean cross-entropy of the next token of pairs."""
    prepared = captioner.processor(images=images, text=texts, padding=True, truncation=True, return_tensors="pt")
    prepared = {name: value.to(captioner.device) for name, value in prepared.items() if name != "token_type_ids"}
    if captioner.model.config.model_type == "blip":
        # As in BLIP's own training: what generation begins with, where its tokenizer puts the token of a classifier.
        prepared["input_ids"][:, 0] = captioner.model.config.text_config.bos_token_id
    targets = prepared["input_ids"].masked_fill(prepared["attention_mask"] == 0, -100)
    return captioner.model(**prepared, labels=targets).loss


def _resume(torch: Any, file: Path, model: Any, stateful: Any, settings: dict[str, Any]) -> int:
    """The number of epochs done before; loads what they left."""
    if not file.is_file():
        return 0
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(stored["model"])
        stateful.load_state_dict(stored["optimizer"])
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} does not go on with this model ({cause}); delete {file.parent} to begin anew"
        ) from None
    if stored["settings"] != settings:
        changed = ", ".join(key for key in settings if stored["settings"].get(key) != settings[key])
        raise UserError(
            f"{file.parent} was begun with another {changed}; go on with the same settings, or delete it to begin anew"
        )
    return int(stored["epoch"])


def _save(torch: Any, stored: dict[str, Any], file: Path) -> None:
    """Writes a state; the one before it stays until this one is complete."""
    part = file.with_name(file.name + ".part")
    with _writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(stored, part)
        os.replace(part, file)


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write {place} ({error}); make room, or choose another --out") from None
