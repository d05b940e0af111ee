"""Pictures of learning without labels: recovered orders of shuffled stripes, soft nearest neighbours of patches, and
how both come about during training.

The task is MMGL's (`mmreid_jax.methods.mmgl`). An order o of S stripes says that place i of the shuffled image shows
stripe o[i] of the image; the network answers with a matrix whose rows are places and whose columns are stripes. Printed
numbers of stripes count from 1, from the top. Right and wrong carry a tick and a cross beside their colours, so nothing
depends on telling green from red.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style
from mmreid_jax.visualize.canvas import Canvas
from mmreid_jax.visualize.images import as_uint8, cell_size, resize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUE = (217, 127, 31)
"""Frame colour (8-bit RGB) of the true cells of a matrix; stands out from white and from dark blue."""

TAKEN = (47, 109, 181)
"""Frame colour (8-bit RGB) of stripes that a neighbour is made of."""


@dataclasses.dataclass(frozen=True)
class OrderExample:
    """One image whose stripes were shuffled, and the order that was recovered.

    Attributes:
      image: uint8 [H, W, 3], its stripes in their own order.
      order: int [S]; place i of the shuffled image shows stripe ``order[i]``.
      assigned: int [S]; the stripe that the network assigns to place i.
      predicted: float [S, S], what it assigned by: rows are places, columns stripes, between 0 and 1.
      label: what is printed above it, such as a file name.
    """

    image: np.ndarray
    order: np.ndarray
    assigned: np.ndarray
    predicted: np.ndarray
    label: str = ""

    @property
    def wrong(self) -> int:
        """How many stripes the network puts in the wrong place."""
        return int(np.sum(np.asarray(self.order) != self.assigned))


def chance_levels(stripes: int) -> dict[str, float]:
    """Accuracies of guessing an order of `stripes` stripes, by the names that ``MMGL.examine`` gives them."""
    whole, one = 1 / math.factorial(stripes), 1 / stripes
    return {"exact": whole, "stripe": one, "row": one, "gap": whole, "mixed": whole}


def shuffled(image: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The image [H, W, 3] with stripe ``order[i]`` in place i.

    Raises:
      UserError: the number of stripes does not divide H.
    """
    height, *rest = image.shape
    stripes = len(order)
    if height % stripes:
        raise UserError(f"an image of {height} rows cannot be cut into {stripes} stripes of equal height.")
    pieces = image.reshape(stripes, height // stripes, *rest)
    return pieces[np.asarray(order)].reshape(image.shape)


def put_together(order: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    """Int [S]: the stripe that stands in each place after a shuffled image was put together by the assigned order.

    Where every stripe is right this is 0, 1, ..., S - 1.
    """
    return np.asarray(order)[np.argsort(assigned)]


_MARGIN, _BETWEEN, _NUMBERS, _AFTER = (
    24,
    26,
    20,
    34,
)  # pixels: page margin, between panels, column of numbers, under a row
_HEAD = 62  # pixels: three lines of text above a row
_SMALL: dict[str, Any] = {"fontsize": 8.5, "color": style.LIGHT.muted}
_FOOT = "frame: the true stripe of a place · ✓ ✗: the stripe chosen for it, right or wrong · numbers in the matrix: %"


def orders_picture(
    examples: Sequence[OrderExample], *, name: str = "orders", title: str = "", caption: str = ""
) -> style.Picture:
    """Draws a row for each example: the image, its stripes shuffled, the predicted matrix, and the image put together.

    The rows of the matrix stand beside the places of the shuffled image that they speak of. Its true cells are framed,
    those of the assigned order carry a tick or a cross. In the image put together, stripes in the wrong place are
    framed, and every stripe has a tick or a cross and its number beside it.

    Args:
      examples: at least one, all with the same number of stripes.
      name: stem of the file name.
      title: heading of the picture.
      caption: sentence printed under it on a page.

    Raises:
      UserError: there is no example to draw, or one is not what `OrderExample` says.
    """
    if not examples:
        raise UserError("there is no recovered order to draw; give at least one example.")
    stripes = len(examples[0].order)
    for example in examples:
        _check_orders(example, stripes)
    height, width = _cell([example.image for example in examples], 216 * 108, 260, stripes)
    panels = (_NUMBERS + width, _NUMBERS + width, height, _NUMBERS + width + 24)
    lefts = _MARGIN + np.cumsum([0, *(panel + _BETWEEN for panel in panels[:-1])])
    lefts[2] -= _BETWEEN // 2  # the matrix belongs to the shuffled image
    top, step = _MARGIN + (36 if title else 0), _HEAD + height + _AFTER
    page_width = max(int(lefts[-1]) + panels[-1] + _MARGIN, 2 * _MARGIN + 7 * len(_FOOT))
    canvas = Canvas(top + len(examples) * step + 16 + _MARGIN, page_width)
    if title:
        canvas.write(_MARGIN, _MARGIN - 4, title, ha="left", fontsize=14, weight="bold")
    for example in examples:
        _lay_order(canvas, example, top, [int(left) for left in lefts], (height, width))
        top += step
    canvas.write(_MARGIN, top, _FOOT, ha="left", **_SMALL)
    right = sum(example.wrong == 0 for example in examples)
    alt = (
        f"{len(examples)} images in {stripes} stripes, shuffled and put together again by the network, with its "
        f"predicted matrices; {right} of {len(examples)} whole orders are right."
    )
    return canvas.picture(name=name, alt=alt, caption=caption)


def _check_orders(example: OrderExample, stripes: int) -> None:
    for what, order in (("order", example.order), ("assigned order", example.assigned)):
        if not np.array_equal(np.sort(order), np.arange(stripes)):
            raise UserError(f"the {what} {np.asarray(order).tolist()} is not one of {stripes} stripes, from 0.")
    if np.shape(example.predicted) != (stripes, stripes) or not np.isfinite(example.predicted).all():
        raise UserError(
            f"a predicted matrix must be finite numbers [{stripes}, {stripes}], but this one has shape "
            f"{list(np.shape(example.predicted))}."
        )


def _cell(images: Sequence[np.ndarray], area: int, longest: int, stripes: int) -> tuple[int, int]:
    """Height and width in pixels of a shown image; all its stripes are equally high."""
    height, width = cell_size([as_uint8(image, "stripes") for image in images], area, longest)
    return stripes * max(14, round(height / stripes)), width


def _lay_order(canvas: Canvas, example: OrderExample, top: int, lefts: Sequence[int], cell: tuple[int, int]) -> None:
    height, width = cell
    stripes = len(example.order)
    step = height // stripes
    image = resize(as_uint8(example.image, example.label), height, width)
    standing = put_together(example.order, example.assigned)
    right = standing == np.arange(stripes)
    canvas.write(_MARGIN, top, example.label, ha="left", fontsize=9.5, weight="bold")
    verdict, color = "✓ the whole order is right", style.RIGHT
    if example.wrong:
        verdict, color = f"✗ {example.wrong} of {stripes} stripes in the wrong place", style.WRONG
    canvas.write(_MARGIN, top + 18, verdict, ha="left", fontsize=9, color="#{:02x}{:02x}{:02x}".format(*color))
    original, mixed, matrix, again = lefts
    for left, text in (
        (original + _NUMBERS, "image"),
        (mixed + _NUMBERS, "shuffled"),
        (matrix, "predicted stripe of each place"),
        (again + _NUMBERS, "put together again"),
    ):
        canvas.write(left, top + 40, text, ha="left", **_SMALL)
    top += _HEAD
    for left, numbers in ((original, np.arange(stripes)), (mixed, example.order), (again, standing)):
        picture = shuffled(image, numbers)
        canvas.pixels[top : top + height, left + _NUMBERS : left + _NUMBERS + width] = picture
        for place, number in enumerate(numbers):
            y = top + place * step
            if place and left != original:
                canvas.pixels[y, left + _NUMBERS : left + _NUMBERS + width] = 255
            looks: dict[str, Any] = _SMALL | ({} if left == original else {"color": style.LIGHT.ink})
            canvas.write(left + _NUMBERS - 6, y + step / 2, str(number + 1), ha="right", va="center", **looks)
    _lay_matrix(canvas, example, top, matrix, step)
    for place, good in enumerate(right):
        corner = top + place * step, again + _NUMBERS
        if not good:
            _frame(canvas, corner, (step, width), 3, style.WRONG)
        _badge(canvas, (corner[0] + (step - 16) // 2, corner[1] + width + 6), 16, bool(good))


def _lay_matrix(canvas: Canvas, example: OrderExample, top: int, left: int, step: int) -> None:
    matplotlib = style.load_matplotlib()
    values = np.clip(np.asarray(example.predicted, np.float64), 0, 1)
    stripes = len(values)
    colors = np.round(255 * matplotlib.colormaps["Blues"](0.9 * values)[..., :3]).astype(np.uint8)
    area = canvas.pixels[top : top + stripes * step, left : left + stripes * step]
    area[:] = colors.repeat(step, axis=0).repeat(step, axis=1)
    lines = np.arange(1, stripes) * step
    area[lines] = area[:, lines] = 255
    for place in range(stripes):
        for stripe in range(stripes):
            corner = top + place * step, left + stripe * step
            if example.order[place] == stripe:
                _frame(canvas, corner, (step, step), 3 if step > 24 else 2, TRUE)
            chosen = example.assigned[place] == stripe
            if chosen:
                # Where there is room, the badge leaves the middle to the number.
                size, inset = (13, 3) if step > 30 else (min(13, step - 4), 2)
                _badge(canvas, (corner[0] + inset, corner[1] + inset), size, bool(example.order[place] == stripe))
            if step > 30 and values[place, stripe] >= 0.005:
                ink = "white" if values[place, stripe] > 0.55 else style.LIGHT.ink
                at = corner[1] + step / 2, corner[0] + step / 2 + (5 if chosen and step < 50 else 0)
                canvas.write(*at, f"{100 * values[place, stripe]:.0f}", va="center", fontsize=7.5, color=ink)
        at = left + (place + 0.5) * step, top + stripes * step + 4
        canvas.write(*at, str(place + 1), **_SMALL)


def _frame(
    canvas: Canvas, corner: tuple[int, int], size: tuple[int, int], thickness: int, color: tuple[int, int, int]
) -> None:
    """A frame inside the rectangle of height and width `size` at `corner` (top, left)."""
    (top, left), (height, width) = corner, size
    area = canvas.pixels[top : top + height, left : left + width]
    area[:thickness] = area[-thickness:] = color
    area[:, :thickness] = area[:, -thickness:] = color


def _badge(canvas: Canvas, corner: tuple[int, int], size: int, right: bool) -> None:
    """A tick or a cross on a square of `size` pixels at `corner` (top, left)."""
    top, left = corner
    canvas.pixels[top : top + size, left : left + size] = style.RIGHT if right else style.WRONG
    looks: dict[str, Any] = {"fontsize": 0.58 * size, "color": "white", "weight": "bold"}
    canvas.write(left + size / 2, top + size / 2, "✓" if right else "✗", va="center", **looks)


def soft_neighbours(query: np.ndarray, candidates: np.ndarray, temperature: float) -> np.ndarray:
    """Weights of the soft nearest neighbour of a patch: softmax of cosine / temperature over all candidates.

    Args:
      query: float [D].
      candidates: float [N, D].
      temperature: above 0.

    Returns:
      float64 [N], summing to one.

    Raises:
      UserError: shapes that do not fit, or a temperature that is not positive.

    Reference: as in `mmreid_jax.losses.cycle_contrast.soft_neighbours`; a vector of length zero has cosine 0 with all.
    """
    anchor, others = np.asarray(query, np.float64), np.asarray(candidates, np.float64)
    if anchor.ndim != 1 or others.ndim != 2 or others.shape[1] != len(anchor) or not len(others):
        raise UserError(
            f"neighbours are sought for a patch [D] among candidates [N, D], not for {list(anchor.shape)} among "
            f"{list(others.shape)}."
        )
    if not temperature > 0:
        raise UserError(f"the temperature of soft neighbours is {temperature:g}, but must be above 0.")
    lengths = np.linalg.norm(anchor) * np.linalg.norm(others, axis=1)
    logits = others @ anchor / np.maximum(lengths, 1e-12) / temperature
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """A candidate image.

    Attributes:
      image: uint8 [H, W, 3], its stripes in their own order.
      weights: float [S], of its stripes from the top: shares of the soft neighbour.
    """

    image: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class NeighbourExample:
    """A stripe of an image and the images that its soft nearest neighbours are made of.

    Attributes:
      image: uint8 [H, W, 3] of the query, its stripes in their own order.
      stripe: the query, counted from 0 from the top.
      neighbours: where was searched (``NIR``, ``RGB, its own modality``) -> the candidate images with the largest
        weights, best first; at least one.
      label: what is printed above it.
      note: a second, quieter line.
    """

    image: np.ndarray
    stripe: int
    neighbours: Mapping[str, Sequence[Neighbour]]
    label: str = ""
    note: str = ""


_WEIGHTS = 44  # pixels: column of weights beside an image


def neighbours_picture(
    examples: Sequence[NeighbourExample], *, name: str = "neighbours", title: str = "", caption: str = ""
) -> style.Picture:
    """Draws a row for each example: the query stripe in its image, and the images found, one group for each search.

    The more weight a stripe has among those shown of its group, the more it keeps of its colour and the thicker is its
    frame; weights that count are written beside the stripes, and the sum of an image under it.

    Args:
      examples: at least one, all with the same number of stripes and the same searches.
      name: stem of the file name.
      title: heading of the picture.
      caption: sentence printed under it on a page.

    Raises:
      UserError: there is no example to draw, or one is not what `NeighbourExample` says.
    """
    if not examples:
        raise UserError("there is no neighbour of a patch to draw; give at least one example.")
    stripes = _check_neighbours(examples)
    every = [example.image for example in examples]
    every += [neighbour.image for example in examples for group in example.neighbours.values() for neighbour in group]
    height, width = _cell(every, 168 * 84, 220, stripes)
    step = _HEAD + height + _AFTER
    room = [
        max(max(len(example.neighbours[group]) for example in examples) * (width + _WEIGHTS), 7 * len(group))
        for group in examples[0].neighbours
    ]
    first = _MARGIN + width + _BETWEEN
    lefts = [first + _BETWEEN // 2, *(first + _BETWEEN // 2 + np.cumsum([part + _BETWEEN for part in room])).tolist()]
    top = _MARGIN + (36 if title else 0)
    canvas = Canvas(top + len(examples) * step + _MARGIN - 12, max(lefts[-1] - _BETWEEN + _MARGIN, 640))
    if title:
        canvas.write(_MARGIN, _MARGIN - 4, title, ha="left", fontsize=14, weight="bold")
    for example in examples:
        _lay_neighbours(canvas, example, top, lefts, (height, width))
        top += step
    count = sum(len(group) for example in examples for group in example.neighbours.values())
    alt = (
        f"Soft nearest neighbours of {len(examples)} stripes in {' and in '.join(examples[0].neighbours)}: {count}"
        " images with the weights of their stripes."
    )
    return canvas.picture(name=name, alt=alt, caption=caption)


def _check_neighbours(examples: Sequence[NeighbourExample]) -> int:
    """The number of stripes of all examples."""
    sizes = {
        len(neighbour.weights) for example in examples for group in example.neighbours.values() for neighbour in group
    }
    searches = {tuple(example.neighbours) for example in examples}
    empty = any(not group for example in examples for group in example.neighbours.values())
    if len(sizes) != 1 or len(searches) != 1 or empty:
        raise UserError("all examples of neighbours must have the same searches, with an image at least, and stripes.")
    (stripes,) = sizes
    if outside := [example.stripe for example in examples if not 0 <= example.stripe < stripes]:
        raise UserError(f"stripe {outside[0]} is not one of {stripes} stripes, from 0.")
    return stripes


def _lay_neighbours(
    canvas: Canvas, example: NeighbourExample, top: int, lefts: Sequence[int], cell: tuple[int, int]
) -> None:
    height, width = cell
    canvas.write(_MARGIN, top, example.label, ha="left", fontsize=9.5, weight="bold")
    canvas.write(_MARGIN, top + 18, example.note, ha="left", fontsize=9, color=style.LIGHT.muted)
    canvas.write(_MARGIN, top + 40, "query", ha="left", **_SMALL)
    groups = list(zip(example.neighbours.items(), lefts, strict=False))
    for (group, _), left in groups:
        canvas.write(left, top + 40, group, ha="left", **_SMALL)
    top += _HEAD
    stripes = len(next(iter(example.neighbours.values()))[0].weights)
    step = height // stripes
    query = (np.arange(stripes) == example.stripe).astype(float)
    picture = _faded(example.image, query, cell, example.label)
    canvas.pixels[top : top + height, _MARGIN : _MARGIN + width] = picture
    corner = top + example.stripe * step, _MARGIN
    _frame(canvas, corner, (step, width), 5, (255, 255, 255))
    _frame(canvas, corner, (step, width), 3, style.QUERY)
    for (_, images), left in groups:
        canvas.pixels[top : top + height, left - _BETWEEN // 2 - 1] = 222
        largest = max(float(np.max(image.weights)) for image in images)
        for place, neighbour in enumerate(images):
            weights = np.asarray(neighbour.weights, np.float64)
            share = weights / max(largest, 1e-12)
            x = left + place * (width + _WEIGHTS)
            canvas.pixels[top : top + height, x : x + width] = _faded(neighbour.image, share, cell, example.label)
            for stripe in np.flatnonzero(share >= 0.05):
                y = top + int(stripe) * step
                _frame(canvas, (y, x), (step, width), 1 + round(3 * share[stripe]), TAKEN)
                looks: dict[str, Any] = {"weight": "bold"} if share[stripe] == 1 else {}
                at = x + width + 4, y + step / 2
                canvas.write(*at, _percent(weights[stripe]), ha="left", va="center", fontsize=8, **looks)
            canvas.write(x + width / 2, top + height + 5, f"{_percent(weights.sum())} in all", **_SMALL)


def _faded(image: np.ndarray, share: np.ndarray, cell: tuple[int, int], where: str) -> np.ndarray:
    """The image at the size of a cell; the smaller the share of a stripe, in [0, 1], the greyer and paler it is."""
    height, width = cell
    photo = resize(as_uint8(image, where), height, width).astype(np.float64)
    pale = 0.45 * photo.mean(axis=-1, keepdims=True) + 0.55 * 245
    kept = np.repeat(np.sqrt(share), height // len(share))[:, None, None]
    return np.round(kept * photo + (1 - kept) * pale).astype(np.uint8)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{100 * value:.1f} %"


_KINDS = {
    "exact": "Whole order right",
    "stripe": "Stripes right",
    "gap": "Whole order right, borders cut off",
    "mixed": "Whole order right, stripes of many images",
}


def accuracy_curves(
    entries: Sequence[Mapping[str, Any]],
    modalities: Sequence[str],
    stripes: int,
    *,
    name: str = "order_accuracy",
    caption: str = "",
) -> style.Picture:
    """Draws how well orders are recovered over the epochs, with the level of guessing.

    Args:
      entries: log entries with ``kind``, ``epoch`` and shares such as ``exact_rgb``; those of kind ``eval`` are drawn
        as solid lines, the mean of those of kind ``train`` in each epoch as dotted ones.
      modalities: the names that end the keys.
      stripes: S, which says how often guessing is right.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: no entry has such a number.
    """
    series = {
        kind: {
            (modality, source): points
            for source in ("eval", "train")
            for modality in modalities
            if len(points := _by_epoch([e for e in entries if e.get("kind") == source], f"{kind}_{modality}"))
        }
        for kind in _KINDS
    }
    series = {kind: lines for kind, lines in series.items() if lines}
    if not series:
        raise UserError("the log has no accuracy of recovered orders to draw; give the lines of a run's metrics.jsonl.")
    chance = chance_levels(stripes)

    def draw(theme: style.Theme) -> Figure:
        columns = min(2, len(series))
        figure = style.new_figure(theme, style.WIDTH, 3.2 * -(-len(series) // columns) + 0.4)
        every: dict[str, Any] = {}
        for axes, (kind, lines) in zip(_panels(figure, len(series)), series.items(), strict=False):
            for (modality, source), points in lines.items():
                tested = source == "eval"
                looks: dict[str, Any] = {"marker": "o", "markersize": 3} if tested else {"linestyle": ":"}
                if not tested and len(points) == 1:
                    looks["marker"] = "x"  # a line through one point cannot be seen
                name = f"{modality.upper()}, {'test' if tested else 'training'} images"
                color = theme.color(list(modalities).index(modality))
                every[name] = axes.plot(points[:, 0], 100 * points[:, 1], color=color, clip_on=False, **looks)[0]
            level = 100 * chance[kind]
            dashes: dict[str, Any] = {"color": theme.muted, "linewidth": 1.2, "linestyle": (0, (5, 3))}
            every[f"guessing (1/{stripes}!, stripes 1/{stripes})"] = axes.axhline(level, **dashes)
            last = max(points[-1, 0] for points in lines.values())
            axes.set(title=_KINDS[kind], ylabel="%", ylim=(0, 100))
            _over_epochs(axes, last)
        figure.legend(list(every.values()), list(every), loc="outside lower center", ncols=min(3, len(every)))
        return figure

    alt_text = "; ".join(
        f"{_KINDS[kind].lower()}, {modality}: {100 * points[0, 1]:.1f} → {100 * points[-1, 1]:.1f} %"
        for kind, lines in series.items()
        for (modality, source), points in lines.items()
        if source == "eval"
    )
    guessed = (
        f"Guessing gets {100 * chance['exact']:.2g} % of the whole orders, {100 * chance['stripe']:.1f} % of stripes."
    )
    alt = f"Recovered orders over the epochs. {alt_text}. {guessed}"
    return style.draw_picture(draw, name=name, alt=alt, caption=caption)


WATCHED = re.compile(r"^(?:pcc_)?(self_weight|attention_entropy|modality_cosine|std|effective_rank)(?:_(\w+))?$")
"""Terms of the log that tell whether patches collapse; the first group is the quantity, the second the stream."""

_QUANTITIES = {
    "self_weight": "Weight of a patch in its own retrieval",
    "attention_entropy": "Entropy of the retrieval across, nats",
    "modality_cosine": "Mean cosine between modalities",
    "std": "Spread of the patches (standard deviation)",
    "effective_rank": "Effective rank of the patches",
}


def watch_curves(
    entries: Sequence[Mapping[str, Any]],
    levels: Mapping[str, tuple[float, str]] | None = None,
    *,
    name: str = "patch_health",
    caption: str = "",
) -> style.Picture:
    """Draws what tells whether the features of patches collapse, the mean of each epoch, one panel for each quantity.

    Args:
      entries: log entries with ``epoch`` and terms that `WATCHED` matches.
      levels: quantity -> a level to draw as a line, and what it is.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: no entry has such a term.
    """
    matches = filter(None, map(WATCHED.match, sorted({key for entry in entries for key in entry}, reverse=True)))
    named = {match.groups(default=""): match.string for match in matches}  # visible before infrared
    panels = {
        quantity: {
            stream: points
            for (metric, stream), key in named.items()
            if metric == quantity and len(points := _by_epoch(entries, key))
        }
        for quantity in _QUANTITIES
    }
    panels = {quantity: lines for quantity, lines in panels.items() if lines}
    if not panels:
        raise UserError("the log has no term that tells of the features of patches; PCC was not trained.")

    def draw(theme: style.Theme) -> Figure:
        columns = min(2, len(panels))
        figure = style.new_figure(theme, style.WIDTH, 2.9 * -(-len(panels) // columns))
        for axes, (quantity, lines) in zip(_panels(figure, len(panels)), panels.items(), strict=False):
            for position, (stream, points) in enumerate(lines.items()):
                marker = "o" if len(points) < 40 else None
                looks: dict[str, Any] = {"marker": marker, "markersize": 3, "label": stream or None}
                axes.plot(points[:, 0], points[:, 1], color=theme.color(position), **looks)
            if quantity in (levels or {}):
                level, what = (levels or {})[quantity]
                axes.axhline(level, color=theme.muted, linewidth=1.2, linestyle=(0, (5, 3)), label=what)
            last = max(points[-1, 0] for points in lines.values())
            lowest = min(points[:, 1].min() for points in lines.values())
            axes.set_title(_QUANTITIES[quantity])
            axes.set_ylim(bottom=min(0.0, lowest))
            _over_epochs(axes, last)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")
        return figure

    alt_text = "; ".join(
        f"{_QUANTITIES[quantity]}{f', {stream}' if stream else ''}: {points[-1, 1]:.3g} at the end"
        for quantity, lines in panels.items()
        for stream, points in lines.items()
    )
    lines_said = "".join(f" Line: {what}." for quantity, (_, what) in (levels or {}).items() if quantity in panels)
    alt = f"Features of patches during training. {alt_text}.{lines_said}"
    return style.draw_picture(draw, name=name, alt=alt, caption=caption)


def _panels(figure: Figure, count: int) -> list[Axes]:
    """Panels in two columns; a last one without a neighbour takes the whole row."""
    columns = min(2, count)
    grid = figure.add_gridspec(-(-count // columns), columns, hspace=0.1)
    panels = []
    for position in range(count):
        row, column = divmod(position, columns)
        alone = position == count - 1 and column == 0
        panels.append(figure.add_subplot(grid[row, :] if alone else grid[row, column]))
    return panels


def _over_epochs(axes: Axes, last: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="epoch", xlim=(0, last * 1.02 or 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _by_epoch(entries: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Float [T, 2]: epochs and the mean of a number in each, over the entries that have it; T may be 0."""
    values: dict[float, list[float]] = {}
    for entry in entries:
        number = entry.get(key)
        if isinstance(number, (int, float)) and not isinstance(number, bool) and np.isfinite(number):
            values.setdefault(float(entry["epoch"]), []).append(float(number))
    return np.array([(epoch, np.mean(values[epoch])) for epoch in sorted(values)]).reshape(-1, 2)
