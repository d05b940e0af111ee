"""A picture of how false alarms, misses and people found depend on the threshold of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def open_set_picture(
    curve: np.ndarray, threshold: float, *, name: str = "threshold", title: str = "", caption: str = ""
) -> style.Picture:
    """Draws FAR and FRR over the threshold, and DIR over FAR.

    Args:
      curve: float [T, 4], threshold, FAR, DIR and FRR, ascending, as `retrieval.open_set.curve` gives it.
      threshold: the chosen one, which is marked.
      name, caption: see `mmreid_jax.visualize.style.Picture`.
      title: above both charts.

    Raises:
      UserError: the curve has no point.
    """
    if not len(curve):
        raise UserError("the curve has no point to draw; measure it on searches that find anything")
    distance, alarms, found, missed = np.asarray(curve, float).T
    chosen = int(np.searchsorted(distance, threshold, side="right")) - 1

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, 9.6, 4.0)
        left, right = figure.subplots(1, 2)
        looks: dict[str, Any] = {"where": "post"}
        left.step(distance, 100 * alarms, color=theme.color(4), label="false alarms (FAR)", **looks)
        left.step(distance, 100 * missed, color=theme.color(2), label="missed (FRR)", **looks)
        left.set(xlabel="threshold on the distance", ylabel="rate, %", ylim=(0, 100), title=title or "Errors")
        right.step(100 * alarms, 100 * found, color=theme.color(0), label="found first (DIR)", **looks)
        right.set(xlabel="false-alarm rate, %", ylabel="found first, %", ylim=(0, 100), title="People found")
        if alarms.max() > 0:
            right.set_xscale("log")
            right.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        if chosen >= 0:
            left.axvline(threshold, color=theme.ink, linestyle=(0, (6, 2)), label=f"chosen: {threshold:.3g}")
            right.plot(100 * alarms[chosen], 100 * found[chosen], "o", color=theme.ink, label="chosen")
        for axes in (left, right):
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8.5)
        return figure

    at = (
        f"At {threshold:.4g}: {alarms[chosen]:.1%} false alarms, {found[chosen]:.1%} found first."
        if chosen >= 0
        else ""
    )
    return style.draw_picture(draw, name=name, alt=f"Rates over the threshold of a search. {at}", caption=caption)
