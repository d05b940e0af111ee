"""Which distance means "the same identity"? Threshold from genuine and impostor distances.

A ranked list always has a first place, even when the person was never there. A threshold on the distance decides that
nobody matches. Two error rates answer two questions (the terms follow ISO/IEC 19795-1, biometric performance testing):

* per pair - the false-match rate: of all pairs of different identities, how many are at or below the threshold?
* per search - the false-positive identification rate: of all searches for somebody who is NOT in the gallery, how many
  return anybody? The nearest of thousands of impostors is nearer than a typical one, so this threshold is far stricter,
  and it holds only for galleries of about the size that it was measured on.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style
from mmreid_jax.visualize.selection import Ignore, LabelColumns, check_distances, ignored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class SuggestedThreshold:
    """A suggested threshold: accept a match whose distance is at most `distance`.

    Attributes:
      target: the error rate asked for.
      distance: the largest observed genuine or impostor distance that keeps the error at or below `target`; -inf where
        none does.
      false_rate: the error rate at the threshold on the data it was chosen on.
      true_rate: the share of genuine pairs (per pair) or of searches for somebody present (per search) accepted there.
      resolution: the smallest error rate above 0 that the data can show, 1 / number of impostor pairs or searches.
    """

    target: float
    distance: float
    false_rate: float
    true_rate: float
    resolution: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Distances of genuine and impostor pairs and what follows from them.

    Attributes:
      genuine: float64 [A], sorted, distances of all pairs of one identity that the protocol lets count.
      impostor: float64 [B], sorted, distances of all pairs of different identities that count.
      nearest_genuine: float64 [<= Q], sorted, distance of each query to its nearest right match.
      nearest_impostor: float64 [<= Q], sorted, distance of each query to its nearest wrong match: what a search finds
        when the right identity is not in the gallery.
      per_pair: threshold for the target false-match rate.
      per_search: threshold for the target false-positive identification rate.
      equal_error_rate: where the rate of accepted impostor pairs equals that of refused genuine pairs.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    nearest_genuine: np.ndarray
    nearest_impostor: np.ndarray
    per_pair: SuggestedThreshold
    per_search: SuggestedThreshold
    equal_error_rate: float

    def sentences(self) -> list[str]:
        """The findings in plain words, one sentence each."""
        pair, search = self.per_pair, self.per_search
        lines = [
            f"Per pair: {_at(pair.distance)}, {_share(pair.false_rate)} of {len(self.impostor):,} pairs of "
            f"different identities are taken for the same (target {_share(pair.target)}) and "
            f"{_share(pair.true_rate)} of {len(self.genuine):,} genuine pairs are accepted.",
            f"Per search: {_at(search.distance)}, {_share(search.false_rate)} of searches for somebody "
            f"absent from the gallery return anybody (target {_share(search.target)}) and "
            f"{_share(search.true_rate)} of searches for somebody present find at least one right match. This is the "
            "threshold for deciding that nobody matches; it holds for a gallery of about this size.",
            f"Equal error rate over pairs: {_share(self.equal_error_rate)}.",
        ]
        for name, threshold in (("per-pair", pair), ("per-search", search)):
            if threshold.target < threshold.resolution:
                lines.append(
                    f"The data are too few for the {name} target: the smallest rate they can show is "
                    f"{_share(threshold.resolution)}."
                )
        return lines


def calibrate(
    distances: np.ndarray,
    query: LabelColumns,
    gallery: LabelColumns,
    ignore: Ignore | None = None,
    *,
    false_match_rate: float = 1e-3,
    false_search_rate: float = 0.05,
) -> Calibration:
    """Suggests distance thresholds for target error rates.

    Args:
      distances: float [Q, G]; take them from data that were not trained on.
      query, gallery: labels of the rows and columns.
      ignore: which pairs the protocol ignores; None ignores nothing.
      false_match_rate: target share of impostor pairs accepted, in (0, 1).
      false_search_rate: target share of searches for an absent identity that return anybody, in (0, 1).

    Raises:
      UserError: shapes do not agree, a target is not in (0, 1), or genuine or impostor pairs are lacking.
    """
    for name, value in (("false_match_rate", false_match_rate), ("false_search_rate", false_search_rate)):
        if not 0 < value < 1:
            raise UserError(f"{name} is {value}, but a target rate lies between 0 and 1, such as 0.001.")
    gallery_size = len(gallery.identity)
    check_distances(distances, len(query.identity), gallery_size)
    genuine, impostor = [], []
    for row, identity in enumerate(np.asarray(query.identity)):
        kept = ~ignored(ignore, row, gallery_size)
        alike = np.asarray(gallery.identity) == identity
        genuine.append(np.asarray(distances[row])[kept & alike])
        impostor.append(np.asarray(distances[row])[kept & ~alike])
    for sides, what in ((genuine, "the same identity"), (impostor, "different identities")):
        if not any(map(len, sides)):
            raise UserError(
                f"no pair of {what} is left by the protocol, so no threshold can be found; use more samples."
            )
    same, other = (_sorted(np.concatenate(sides)) for sides in (genuine, impostor))
    nearest = [_sorted(np.array([side.min() for side in sides if len(side)])) for sides in (genuine, impostor)]
    return Calibration(
        genuine=same,
        impostor=other,
        nearest_genuine=nearest[0],
        nearest_impostor=nearest[1],
        per_pair=threshold_for(same, other, false_match_rate),
        per_search=threshold_for(nearest[0], nearest[1], false_search_rate),
        equal_error_rate=_equal_error_rate(same, other),
    )


def threshold_for(genuine: np.ndarray, impostor: np.ndarray, target: float) -> SuggestedThreshold:
    """The largest observed distance that, as a threshold, accepts at most the share `target` of the impostors.

    Args:
      genuine, impostor: float [A], [B], sorted ascending.
      target: error rate.
    """
    allowed = int(np.floor(target * len(impostor) * (1 + 1e-12)))
    # The first impostor that must stay out; observed distances below it are safe, ties with it are not.
    barrier = impostor[allowed] if allowed < len(impostor) else np.inf
    below = [side[np.searchsorted(side, barrier) - 1] for side in (genuine, impostor) if side[0] < barrier]
    distance = float(max(below, default=-np.inf))
    false_rate, true_rate = (float(_accepted(side, np.array(distance))) for side in (impostor, genuine))
    return SuggestedThreshold(target, distance, false_rate, true_rate, resolution=1 / len(impostor))


def _sorted(values: np.ndarray) -> np.ndarray:
    return np.sort(values.astype(np.float64))


def _accepted(values: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The share of sorted values at or below each of the distances."""
    return np.searchsorted(values, distances, side="right") / len(values)


def _equal_error_rate(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The mean of the two error rates at the genuine distance where they are closest."""
    candidates = np.unique(genuine)
    accepted, refused = _accepted(impostor, candidates), 1 - _accepted(genuine, candidates)
    place = int(np.argmin(np.abs(accepted - refused)))
    return float((accepted[place] + refused[place]) / 2)


def _at(distance: float) -> str:
    """Where a threshold lies, in words."""
    return f"at distance {distance:.4g}" if np.isfinite(distance) else "where no distance is accepted"


def _share(value: float) -> str:
    """A rate in per cent with as many digits as it needs."""
    return f"{100 * value:.1f} %" if value >= 0.01 or value == 0 else f"{100 * value:.2g} %"


def calibration_picture(calibration: Calibration, *, name: str = "calibration", caption: str = "") -> style.Picture:
    """Draws the histograms of genuine and impostor distances and the error rates over the threshold."""
    low = min(calibration.genuine[0], calibration.impostor[0])
    high = max(calibration.genuine[-1], calibration.impostor[-1])
    reach = (low, high if high > low else low + 1)

    def draw(theme: style.Theme) -> Figure:
        figure = style.new_figure(theme, style.WIDTH, 4.4)
        left, right = figure.subplots(1, 2)
        # As many bins as the smaller side bears: with fewer pairs than bins a histogram shows noise.
        bins = int(np.clip(4 * min(len(calibration.genuine), len(calibration.impostor)) ** (1 / 3), 10, 80))
        _draw_histograms(left, calibration, np.linspace(*reach, bins + 1), theme)
        _draw_errors(right, calibration, np.linspace(*reach, 300), theme)
        for threshold, text, dashes in (
            (calibration.per_pair, "per pair", (6, 2)),
            (calibration.per_search, "per search", (1, 1.5)),
        ):
            if np.isfinite(threshold.distance):
                for axes in (left, right):
                    looks: dict[str, Any] = {"color": theme.ink, "linewidth": 1.3, "linestyle": (0, dashes)}
                    axes.axvline(threshold.distance, label=f"threshold {text}: {threshold.distance:.3g}", **looks)
        for axes in (left, right):
            handles, labels = axes.get_legend_handles_labels()
            named = len(handles) if axes is left else 4  # the right panel need not name the thresholds again
            axes.legend(
                handles[:named], labels[:named], loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5
            )
        return figure

    alt = "Distance histograms and error rates. " + " ".join(calibration.sentences())
    return style.draw_picture(draw, name=name, alt=alt, caption=caption)


def _draw_histograms(axes: Axes, calibration: Calibration, edges: np.ndarray, theme: style.Theme) -> None:
    sides = (
        (calibration.genuine, "same identity", theme.color(2)),
        (calibration.impostor, "different identities", theme.color(4)),
    )
    for values, label, color in sides:
        share = 100 * np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, fill=True, alpha=0.35, color=color)
        axes.stairs(share, edges, label=label, color=color, linewidth=1.4)
    axes.set(xlabel="distance", ylabel="share of the pairs, %", title="Distances of pairs")
    axes.set_ylim(bottom=0)


def _draw_errors(axes: Axes, calibration: Calibration, grid: np.ndarray, theme: style.Theme) -> None:
    lines = (
        (_accepted(calibration.impostor, grid), "pairs: false match", theme.color(4), "-"),
        (1 - _accepted(calibration.genuine, grid), "pairs: missed", theme.color(2), "-"),
        (_accepted(calibration.nearest_impostor, grid), "searches: false hit", theme.color(4), ":"),
        (1 - _accepted(calibration.nearest_genuine, grid), "searches: missed", theme.color(2), ":"),
    )
    for rate, label, color, dashes in lines:
        axes.plot(grid, 100 * rate, label=label, color=color, linestyle=dashes)
    axes.set(xlabel="threshold", ylabel="error rate, %", title="Errors over the threshold", ylim=(0, 100))
