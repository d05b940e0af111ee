"""The curve of a learning-rate range test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmreid_jax.visualize import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def range_picture(
    rates: np.ndarray,
    losses: np.ndarray,
    smooth: np.ndarray,
    *,
    suggested: float | None = None,
    diverged: float | None = None,
    configured: float | None = None,
    name: str = "lr_range",
    caption: str = "",
) -> style.Picture:
    """Draws the loss over a growing learning rate.

    Args:
      rates: float [n], growing.
      losses: float [n], of single steps.
      smooth: float [n], the losses without their noise.
      suggested: rate to mark as the one to use.
      diverged: rate to mark as too large.
      configured: rate to mark as the present one; left out where it lies outside of the test.
      name, caption: see `mmreid_jax.visualize.style.Picture`.
    """
    marks = [
        (suggested, 2, f"falls fastest: {suggested:.1e}" if suggested else ""),
        (diverged, 4, f"diverges: {diverged:.1e}" if diverged else ""),
        (configured if configured and rates[0] <= configured <= rates[-1] else None, None, "in the config"),
    ]

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, 7.2, 4.2)
        axes = figure.subplots()
        axes.plot(rates, losses, ".", color=theme.muted, alpha=0.55, markersize=5, label="step")
        axes.plot(rates, smooth, color=theme.color(0), label="smoothed")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Learning-rate range test")
        # The descent is what matters; the growth after it would flatten it.
        lowest = int(smooth.argmin())
        low, high = smooth[lowest], smooth[: lowest + 1].max() if lowest else smooth.max()
        span = (high - low) or 0.1
        axes.set_ylim(max(losses.min(), low - 0.5 * span) - 0.1 * span, high + 0.7 * span)
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:.0e}".replace("e-0", "e-").replace("e+00", ""))
        for rate, color, label in marks:
            if rate:
                tint = theme.muted if color is None else theme.color(color)
                dashes = (0, (4, 3)) if color is None else "-"
                axes.axvline(rate, color=tint, linewidth=1.6, linestyle=dashes, label=label, zorder=1.5)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.4)
        return figure

    alt_text = "; ".join(label for rate, _, label in marks[:2] if rate) or "no rate stands out"
    return style.draw_picture(draw, name=name, alt=f"Loss over a growing learning rate. {alt_text}.", caption=caption)
