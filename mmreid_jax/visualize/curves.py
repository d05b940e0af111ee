"""Charts of scores: CMC curves, training curves, before and after, and what a missing modality costs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style
from mmreid_jax.visualize.tables import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class _Panel:
    """A panel of the training curves: its heading, which numbers of a log line it draws, and how."""

    heading: str
    pattern: str
    per_cent: bool = False
    best: bool = False
    logarithmic: bool = False


_SCORES = _Panel("Scores on the test set", r"^(.*/)?(mAP|mINP|R-?1|rank-?1)$", per_cent=True, best=True)
_PANELS = (
    # Whatever a method's step reports and no other panel claims is one of its loss terms.
    _Panel("Loss terms", r""),
    _Panel("Learning rate", r"^(.*/)?(learning_rate|lr)$"),
    _Panel("Accuracy on the training batches", r"^(.*/)?accuracy(_\w+)?$", per_cent=True),
    _Panel("Norms", r"^norm_", logarithmic=True),
    _SCORES,
)
_BOOKKEEPING = ("step", "epoch", "images_per_second", "time")

_MOST_POINTS = 300  # of a plotted line: more cannot be told apart and makes vector graphics heavy


def cmc_curves(
    curves: Mapping[str, np.ndarray], *, longest_rank: int = 50, name: str = "cmc", caption: str = ""
) -> style.Picture:
    """Draws cumulative match characteristics: the share of queries whose first right match is at or before each rank.

    Args:
      curves: label of the run -> float [K], entry k the share, in [0, 1], for rank k + 1.
      longest_rank: the last rank drawn.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: there is no curve.
    """
    if not curves or any(not len(curve) for curve in curves.values()):
        raise UserError("there is no CMC curve to draw; give at least one curve with at least one rank.")
    percents = {label: 100 * np.asarray(curve, float)[:longest_rank] for label, curve in curves.items()}

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, style.WIDTH, 4.2)
        axes = figure.subplots()
        for position, (label, curve) in enumerate(percents.items()):
            color = theme.color(position)
            ranks = np.arange(1, len(curve) + 1)
            axes.plot(ranks, curve, color=color, label=f"{label}  (rank 1: {curve[0]:.2f} %)")
            marks = [rank for rank in (1, 5, 10, 20) if rank <= len(curve)]
            axes.plot(marks, curve[np.array(marks) - 1], "o", color=color, markersize=4.5, clip_on=False)
        last = max(len(curve) for curve in percents.values())
        axes.set(xlabel="rank", ylabel="queries with a right match by this rank, %", xlim=(1, max(last, 2)))
        axes.set_xticks([1, *(rank for rank in (5, 10, 20, 30, 40, 50) if rank <= last)])
        lowest = min(curve[0] for curve in percents.values())
        axes.set_ylim(10 * np.floor(lowest / 10) - (10 if lowest >= 10 else 0), 101)
        axes.set_title("Cumulative match characteristic")
        axes.legend(loc="lower right")
        return figure

    alt_text = "; ".join(f"{label}: rank 1 {curve[0]:.2f} %" for label, curve in percents.items())
    return style.draw_picture(draw, name=name, alt=f"CMC curves. {alt_text}.", caption=caption)


def training_curves(
    entries: Sequence[Mapping[str, Any]],
    *,
    name: str = "training_curves",
    caption: str = "",
) -> style.Picture:
    """Draws the loss terms, the learning rate and the scores of a run over its steps.

    Args:
      entries: log entries in order of time, each a flat mapping with ``step`` (or ``epoch``) and some numbers. An entry
        need not have every number: training and evaluation may be logged apart. Scores are shares in [0, 1].
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: no entry has a number that belongs in a panel.
    """
    unit = "step" if any("step" in entry for entry in entries) else "epoch"
    panels = _series(entries, unit)
    if not panels:
        raise UserError("the log has no loss, learning rate or score to draw; give the lines of a run's metrics.jsonl.")

    def draw(theme: style.Theme) -> Figure:
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        figure = style.new_figure(theme, style.WIDTH, 3.3 * rows)
        grid = figure.add_gridspec(rows, columns, hspace=0.1)
        last = max(values[-1, 0] for series in panels.values() for values in series.values())
        for position, (panel, series) in enumerate(panels.items()):
            row, column = divmod(position, columns)
            alone = position == len(panels) - 1 and column == 0
            axes = figure.add_subplot(grid[row, :] if alone else grid[row, column])
            axes.set(title=panel.heading, xlabel=unit, xlim=(0, last * 1.02 or 1))
            _draw_series(axes, panel, series, theme, style.WIDTH if alone else style.WIDTH / 2)
        return figure

    alt_text = "; ".join(f"{panel.heading}: {', '.join(map(_short, series))}" for panel, series in panels.items())
    return style.draw_picture(draw, name=name, alt=f"Training curves. {alt_text}.", caption=caption)


def _series(entries: Sequence[Mapping[str, Any]], unit: str) -> dict[_Panel, dict[str, np.ndarray]]:
    """What each panel draws: name of the series -> float [T, 2], step and value. Panels without any are absent."""
    points: dict[_Panel, dict[str, list[tuple[float, float]]]] = {panel: {} for panel in _PANELS}
    for entry in entries:
        evaluation = any(re.search(_SCORES.pattern, key) for key in entry)
        for key, value in entry.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
            panel = next(panel for panel in reversed(_PANELS) if re.search(panel.pattern, key))
            if number and unit in entry and key not in _BOOKKEEPING and evaluation == (panel is _SCORES):
                points[panel].setdefault(key, []).append((float(entry[unit]), float(value)))
    return {
        panel: {key: np.array(values) for key, values in series.items()} for panel, series in points.items() if series
    }


def _short(key: str) -> str:
    """The telling part of a log key: ``loss/identity`` -> ``identity``."""
    return key.rsplit("/", 1)[-1].replace("_", " ")


def _draw_series(axes: Axes, panel: _Panel, series: Mapping[str, np.ndarray], theme: style.Theme, width: float) -> None:
    """Draws the lines of a panel `width` inches wide, with a legend below it, where it hides nothing."""
    scale = 100 if panel.per_cent else 1
    for position, (key, values) in enumerate(series.items()):
        color = theme.color(position)
        step, value = _thinned(values).T
        # A line through one point cannot be seen.
        marker = "o" if len(step) == 1 or (panel.best and len(step) < 40) else None
        best = values[int(np.argmax(values[:, 1]))] * (1, scale)
        label = f"{_short(key)}  (best: {best[1]:.2f} %)" if panel.best else _short(key)
        axes.plot(step, scale * value, color=color, label=label, marker=marker, markersize=3)
        if panel.best:
            axes.plot(*best, "*", color=color, markersize=12, clip_on=False)
    if panel.per_cent:
        axes.set_ylabel("%")
    if panel.best:
        every = scale * np.concatenate([values[:, 1] for values in series.values()])
        room = max(0.1 * np.ptp(every), 2)  # at least four points from foot to head, or noise fills the panel
        axes.set_ylim(max(0, every.min() - room), min(100, every.max() + room))
    elif panel.logarithmic and all((values[:, 1] > 0).all() for values in series.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=min(0.0, *(scale * values[:, 1].min() for values in series.values())))
    if panel.best or len(series) > 1:
        # Of an entry the line takes half an inch and a letter a fourteenth; one that stands out makes the axes smaller.
        entry = 0.5 + max(len(text) for text in axes.get_legend_handles_labels()[1]) / 14
        columns = max(1, min(3, int((width - 1) / entry)))
        axes.legend(loc="upper left", ncols=columns, bbox_to_anchor=(0, -0.2))


def _thinned(values: np.ndarray) -> np.ndarray:
    """At most `_MOST_POINTS` points: means over stretches of equal length."""
    if len(values) <= _MOST_POINTS:
        return values
    return np.stack([part.mean(axis=0) for part in np.array_split(values, _MOST_POINTS)])


def before_after_bars(
    before: Mapping[str, Score],
    after: Mapping[str, Score],
    *,
    labels: tuple[str, str] = ("before", "after"),
    columns: Sequence[str] = ("mAP", "R1", "R5", "R10", "mINP"),
    title: str = "Before and after",
    name: str = "before_after",
    caption: str = "",
) -> style.Picture:
    """Draws scores before and after something (test-time training, re-ranking) side by side, with the gain over each
    pair.

    Args:
      before, after: score name -> score in [0, 1], or (mean, standard deviation).
      labels: what the two are called.
      columns: the scores to draw, in order; those that both lack are left out.
      title: heading of the figure.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: no score of `columns` is in both.
    """
    names = [key for key in columns if before.get(key) is not None and after.get(key) is not None]
    if not names:
        raise UserError(f"none of the scores {', '.join(columns)} is known both {labels[0]} and {labels[1]}.")
    first, second = (np.array([_mean_and_deviation(side[key]) for key in names]) for side in (before, after))

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, style.WIDTH, 3.8)
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for position, (values, label) in enumerate(((first, labels[0]), (second, labels[1]))):
            _draw_bars(axes, np.arange(len(names)) + 0.4 * (position - 0.5), values, 0.36, theme, position, label)
        top = np.maximum(first.sum(axis=1), second.sum(axis=1))
        for place, gain in enumerate(second[:, 0] - first[:, 0]):
            color = theme.color(2) if gain > 0 else theme.color(4) if gain < 0 else theme.muted
            looks: dict[str, Any] = {"ha": "center", "color": color, "fontweight": "bold"}
            # Above the numbers of the bars, whose height is a matter of points and not of per cent.
            axes.annotate(f"{gain:+.1f}", (place, top[place]), xytext=(0, 18), textcoords="offset points", **looks)
        axes.set_xticks(np.arange(len(names)), names)
        axes.set(ylabel="%", ylim=(0, 1.2 * top.max() or 1))
        axes.set_title(title)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    alt_text = "; ".join(
        f"{key} {a:.1f} → {b:.1f} %" for key, a, b in zip(names, first[:, 0], second[:, 0], strict=True)
    )
    return style.draw_picture(draw, name=name, alt=f"{title}: {alt_text}.", caption=caption)


def trial_spread(
    values: Mapping[str, Sequence[float] | np.ndarray],
    *,
    title: str = "Spread over the trials",
    name: str = "trials",
    caption: str = "",
) -> style.Picture:
    """Draws every trial's scores as dots, with their mean as a line: how much a result depends on the drawn gallery.

    Args:
      values: score name -> float [trials], in [0, 1]; at least one score and one trial.
      title: heading of the figure.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: there is no score, or a score has no trial.
    """
    if not values or any(not len(each) for each in values.values()):
        raise UserError("there are no trials to draw; give at least one score of at least one trial.")
    dots = {key: 100 * np.asarray(each, np.float64) for key, each in values.items()}

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, style.WIDTH, 3.8)
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for place, each in enumerate(dots.values()):
            # Side by side in the order of the trials, so that equal values stay apart.
            across = place + np.linspace(-0.25, 0.25, len(each)) if len(each) > 1 else [place]
            axes.scatter(across, each, s=22, color=theme.color(0), linewidths=0)
            axes.hlines(each.mean(), place - 0.32, place + 0.32, color=theme.color(1), linewidth=2)
            looks: dict[str, Any] = {"ha": "center", "color": theme.muted}
            spread = f"{each.mean():.1f} ± {each.std(ddof=1) if len(each) > 1 else 0:.1f}"
            axes.annotate(spread, (place, each.max()), xytext=(0, 8), textcoords="offset points", **looks)
        axes.set_xticks(np.arange(len(dots)), list(dots))
        axes.set(ylabel="%", xlim=(-0.6, len(dots) - 0.4))
        axes.margins(y=0.15)
        axes.set_title(title)
        return figure

    alt_text = "; ".join(
        f"{key} {each.mean():.1f}, {each.min():.1f} to {each.max():.1f} %" for key, each in dots.items()
    )
    return style.draw_picture(draw, name=name, alt=f"{title}: {alt_text}.", caption=caption)


def missing_modality_bars(
    rows: Mapping[str, Mapping[str, Score]],
    *,
    columns: Sequence[str] = ("mAP", "R1"),
    title: str = "When modalities are missing",
    name: str = "missing_modality",
    caption: str = "",
) -> style.Picture:
    """Draws the scores of several situations, one group of horizontal bars each, the first (nothing missing) as
    reference.

    Args:
      rows: situation (``all modalities``, ``without rgb``, ...) -> score name -> score in [0, 1], or (mean, deviation).
      columns: the scores to draw.
      title: heading of the figure.
      name, caption: see `mmreid_jax.visualize.style.Picture`.

    Raises:
      UserError: there is no row, or a row lacks one of the scores.
    """
    if not rows:
        raise UserError("there is no evaluation with missing modalities to draw.")
    for situation, scores in rows.items():
        for key in columns:
            if scores.get(key) is None:
                raise UserError(f"the scores of {situation!r} lack {key!r}; they are {', '.join(scores)}.")
    values = np.array([[_mean_and_deviation(scores[key]) for key in columns] for scores in rows.values()])

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, style.WIDTH, 1.4 + 0.24 * (len(columns) + 0.8) * len(rows))
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        size = 0.8 / len(columns)
        places = np.arange(len(rows))
        for position, key in enumerate(columns):
            offset = places + size * (position - (len(columns) - 1) / 2)
            _draw_bars(axes, offset, values[:, position], 0.88 * size, theme, position, key, horizontal=True)
            axes.axvline(values[0, position, 0], color=theme.color(position), linewidth=1, linestyle=(0, (3, 3)))
        axes.set_yticks(places, list(rows))
        axes.invert_yaxis()
        axes.set(xlabel="%", xlim=(0, 1.12 * values.sum(axis=-1).max() or 1))
        axes.set_title(title)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(columns))
        return figure

    alt_text = "; ".join(
        f"{situation}: {', '.join(f'{key} {value:.1f} %' for key, value in zip(columns, line, strict=True))}"
        for situation, line in zip(rows, values[..., 0], strict=True)
    )
    return style.draw_picture(draw, name=name, alt=f"{title}. {alt_text}.", caption=caption)


def _mean_and_deviation(score: Score) -> tuple[float, float]:
    """A score as mean and standard deviation in per cent."""
    assert score is not None
    mean, deviation = score if isinstance(score, tuple) else (score, 0.0)
    return 100 * mean, 100 * deviation


def _draw_bars(
    axes: Axes,
    places: np.ndarray,
    values: np.ndarray,
    size: float,
    theme: style.Theme,
    position: int,
    label: str,
    *,
    horizontal: bool = False,
) -> None:
    """One series of bars with its numbers; `values` is [N, 2], mean and standard deviation in per cent."""
    means, deviations = values.T
    error: dict[str, Any] = {("xerr" if horizontal else "yerr"): deviations} if deviations.any() else {}
    draw = axes.barh if horizontal else axes.bar
    looks: dict[str, Any] = {"color": theme.color(position), "label": label, "ecolor": theme.muted}
    bars = draw(places, means, size, **looks, **error)
    text: dict[str, Any] = {"fontsize": 8.5, "color": theme.ink, "path_effects": _halo(theme)}
    axes.bar_label(bars, [f"{mean:.1f}" for mean in means], padding=3, **text)


def _halo(theme: style.Theme) -> list[Any]:
    """An outline in the colour of the paper, so that a number stays legible where it crosses a line."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground=theme.paper)]
