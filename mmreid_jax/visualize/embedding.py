"""An embedding picture: features in two dimensions by t-SNE, identities by colour and modalities by marker.

Reference: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008; figure 7 of IEEE (AAAI 2022) is such a
picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {
    "light": ("#2d1ea5", "#d21e0f", "#3ce187", "#e169a5", "#78001e", "#e1c300", "#a587ff", "#5a1e5a"),
    "dark": ("#b4ffe1", "#ff8700", "#694bd2", "#f0f096", "#c3000f", "#3ca578", "#f096ff", "#963c87"),
}
"""Colours of the identities by theme, chosen apart for normal sight and for red-, green- and blue-blind readers."""

MARKERS = ("o", "^", "s", "D", "P", "X")
"""Markers of the modalities."""

PERPLEXITY = 30.0
EXACT = 600
"""Number of points up to which t-SNE sums over all pairs."""

FEWEST = 4
"""Points below which there is nothing to arrange."""


def spread_of_identities(identity: np.ndarray, number: int, per_identity: int = 16, seed: int = 0) -> np.ndarray:
    """Rows of a few identities, spread over the sorted identities, each with a few samples drawn at random.

    Args:
      identity: int [N].
      number: how many identities; those with a single sample only where there are no others.
      per_identity: samples of each at most.
      seed: of the draw.

    Returns:
      int [n], rows in ascending order.
    """
    identities, counts = np.unique(np.asarray(identity), return_counts=True)
    several = identities[counts > 1] if (counts > 1).any() else identities
    chosen = several[np.unique(np.linspace(0, len(several) - 1, min(number, len(several))).round().astype(int))]
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(identity == one))[:per_identity] for one in chosen]
    return np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)


def project(features: np.ndarray, *, seed: int = 0, perplexity: float = PERPLEXITY) -> np.ndarray:
    """t-SNE of the directions of features, started from their first two principal components.

    Args:
      features: float [N, D]; rows are divided by their length, as for retrieval.
      seed: of the optimisation; the same features give the same points.
      perplexity: number of neighbours that a point looks at, lowered to (N - 1) / 3 where there are few points.

    Returns:
      float64 [N, 2]; all zero where the features do not differ.

    Raises:
      UserError: fewer than `FEWEST` features, features of fewer than two numbers, or not finite ones.
      ImportError: scikit-learn is not installed.
    """
    from sklearn.manifold import TSNE

    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or rows.shape[0] < FEWEST or rows.shape[1] < 2:
        raise UserError(
            f"an embedding needs at least {FEWEST} features of 2 numbers, but there are {list(rows.shape)}."
        )
    if not np.isfinite(rows).all():
        raise UserError("an embedding cannot be drawn of features that are NaN or infinite.")
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if np.ptp(rows, axis=0).max() < 1e-9:
        return np.zeros((len(rows), 2))
    perplexity = min(perplexity, (len(rows) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the number of cores, and collapsed features that repeat exactly
        # So few points are arranged faster by the exact sums than by the tree and its threads.
        method = "exact" if len(rows) <= EXACT else "barnes_hut"
        tsne = TSNE(2, init="pca", random_state=seed, perplexity=perplexity, method=method)
        arranged = tsne.fit_transform(rows)
    return np.asarray(arranged, np.float64)


def scaled(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Every group of points stretched to the unit square by its own least and largest coordinates: float64 [N, 2].

    Args:
      points: float [N, 2].
      group: int [N]; a group whose points agree in a coordinate gets 0.5 there.
    """
    result = np.array(points, np.float64)
    for one in np.unique(group):
        members = result[group == one]
        low, spread = members.min(axis=0), np.ptp(members, axis=0)
        result[group == one] = np.where(spread > 0, (members - low) / np.where(spread > 0, spread, 1), 0.5)
    return result


def embedding_picture(
    features: Mapping[str, np.ndarray],
    identity: Mapping[str, np.ndarray],
    *,
    scale: bool = False,
    seed: int = 0,
    title: str = "Features by identity and modality",
    name: str = "embedding",
    caption: str = "",
) -> style.Picture:
    """Draws features of all modalities in one t-SNE picture: one colour an identity, one marker a modality.

    Args:
      features: modality -> float [N_m, D], the same D for all.
      identity: modality -> int [N_m].
      scale: stretch every modality's points to the same square, so that modalities lie over each other and only the
        arrangement of identities is compared; as it is, the picture shows how far modalities are apart.
      seed: of the arrangement.
      title: heading of the figure.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: too few features, features of different lengths, or not finite ones.
      ImportError: scikit-learn is not installed.
    """
    if not features:
        raise UserError("there is no feature to embed; give at least one modality.")
    widths = {value.shape[-1] for value in features.values()}
    if len(widths) > 1:
        raise UserError(f"features of different lengths ({sorted(widths)}) cannot be embedded together.")
    modalities = list(features)
    group = np.repeat(np.arange(len(modalities)), [len(features[one]) for one in modalities])
    labels = np.concatenate([identity[one] for one in modalities])
    points = project(np.concatenate([features[one] for one in modalities]), seed=seed)
    if scale:
        points = scaled(points, group)
    people = np.unique(labels)

    def draw(theme: style.Theme) -> Figure:
        from matplotlib.lines import Line2D

        figure = style.new_figure(theme, style.WIDTH, 5.2)
        axes = figure.subplots()
        axes.set(title=title, xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set(visible=True, color=theme.grid)
        colors = _colors(theme, len(people))
        looks: dict[str, Any] = {"linewidths": 0.6, "edgecolors": theme.paper}
        for place, one in enumerate(modalities):
            members = group == place
            tint = [colors[index] for index in np.searchsorted(people, labels[members])]
            x, y = points[members].T
            axes.scatter(x, y, s=34, c=tint, marker=MARKERS[place % len(MARKERS)], label=one, **looks)
        blank: dict[str, Any] = {"linestyle": "none", "markersize": 7}
        entries = [Line2D([], [], marker="none", label="Identity", **blank)]
        entries += [
            Line2D([], [], marker="o", color=color, label=str(one), **blank)
            for color, one in zip(colors, people, strict=True)
        ]
        if len(modalities) > 1:
            entries += [Line2D([], [], marker="none", label="Modality", **blank)]
            entries += [
                Line2D([], [], marker=MARKERS[place % len(MARKERS)], color=theme.muted, label=one.upper(), **blank)
                for place, one in enumerate(modalities)
            ]
        legend = figure.legend(handles=entries, loc="outside right upper", handletextpad=0.4, labelspacing=0.55)
        for text in legend.get_texts():
            if text.get_text() in ("Identity", "Modality"):
                text.set(weight="bold", position=(-18, 0))
        return figure

    names = ", ".join(modalities)
    alt = f"t-SNE of {len(points)} features of {len(people)} identities in {names}, coloured by identity."
    return style.draw_picture(draw, name=name, alt=alt, caption=caption)


def _colors(theme: style.Theme, count: int) -> Sequence[Any]:
    """So many colours: those of the palette, or evenly spaced ones of a colour map where there are more identities."""
    palette = COLORS[theme.name]
    if count <= len(palette):
        return palette[:count]
    matplotlib = style.load_matplotlib()
    return [tuple(color) for color in matplotlib.colormaps["turbo"](np.linspace(0.04, 0.96, count))]
