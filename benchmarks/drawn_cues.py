"""How much each cue of the drawn data tells: what can be read off, what histograms see, what a trunk sees.

    python benchmarks/drawn_cues.py --seeds 700 701
    python benchmarks/drawn_cues.py --seeds 700 --trunk drawn/resnet_mini --trunk drawn/resnet_mini_rgb
    python benchmarks/drawn_cues.py --sheets docs/figures          # the pictures of docs/drawn_data.md

Nearest neighbours on the test people of drawn RGBNT201 (all modalities, or one) and of drawn SYSU-MM01 (infrared
queries, all visible images as gallery), matches from the query's own place left out. The attributes are read off
without error, or with a share of them misread in every image, as in the rows' names. Seeds 700 to 799 are kept for the
design of the drawing: no demo, test or claim uses them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmreid_jax import drawn
from mmreid_jax.datasets import drawing
from mmreid_jax.drawn.attributes import luminance

DESIGN_SEEDS = range(700, 800)
SIZE = (96, 48)
DATASETS = {"rgbnt201": {"images_per_identity": 12}, "sysu_mm01": {"images_per_identity": 24}}
COLOURS = ("upper colour", "lower colour", "shoe colour", "bag colour", "hat colour", "hair colour", "inner colour")
STRIPES, BINS = 6, 8


@dataclasses.dataclass(frozen=True)
class Side:
    """Queries or gallery: samples, their images {modality: [N, H, W, 3]}, and the place where each was taken."""

    samples: list[drawn.DrawnSample]
    images: dict[str, np.ndarray]

    @property
    def identity(self) -> np.ndarray:
        """int [N]."""
        return np.array([sample.identity for sample in self.samples])

    @property
    def place(self) -> np.ndarray:
        """int [N]."""
        return np.array([sample.place or sample.camera for sample in self.samples])


def sides(dataset: str, seed: int, identities: int) -> tuple[Side, Side]:
    """(queries, gallery) of the test people of a drawn set."""
    samples = [s for s in drawing.plan(dataset, identities=identities, **DATASETS[dataset]) if not s.trained_on]

    layout, rendering = drawing.of(dataset), drawn.Rendering(seed, image_size=SIZE)

    def side(chosen: list[drawn.DrawnSample]) -> Side:
        images = [drawn.draw_sample(layout, sample, rendering) for sample in chosen]
        return Side(chosen, {name: np.stack([each[name] for each in images]) for name in images[0]})

    query, gallery = ([s for s in samples if split in s.splits] for split in ("query", "gallery"))
    first = side(query)
    return first, first if query == gallery else side(gallery)


def scores(distances: np.ndarray, query: Side, gallery: Side) -> tuple[float, float]:
    """(mAP, rank-1) in percent; matches from the query's own place do not count."""
    found = []
    for row, identity, place in zip(distances, query.identity, query.place, strict=True):
        keep = ~((gallery.identity == identity) & (gallery.place == place))
        right = (gallery.identity[keep] == identity)[np.argsort(row[keep], kind="stable")]
        if right.any():
            ranks = np.flatnonzero(right) + 1
            found.append((np.mean(np.arange(1, len(ranks) + 1) / ranks), right[0]))
    mean_precision, first = 100 * np.mean(found, axis=0)
    return float(mean_precision), float(first)


def attributes(seed: int, identity: int, shared: bool) -> list[object]:
    """What can be read off a person: of all spectra together, or what two spectra share."""
    person = drawn.person_identity(seed, identity)
    words: dict[str, object] = dict(drawn.describe(person))
    if shared:
        for name in COLOURS:
            del words[name]
        del words["upper accent"]
        for name, garment in (("upper", person.upper), ("lower", person.lower), ("shoes", person.shoes)):
            words[f"{name} light"] = luminance(garment.rgb) > 0.1
    else:
        words |= {"upper fabric": person.upper.fabric, "lower fabric": person.lower.fabric, "spot": person.warm_spot}
    return list(words.values())


def oracle(seed: int, query: Side, gallery: Side, shared: bool, misread: float) -> np.ndarray:
    """Number of attributes in which two images differ, a share of them misread in each image on its own."""
    people = sorted({*query.identity.tolist(), *gallery.identity.tolist()})
    told = [attributes(seed, identity, shared) for identity in people]
    columns = [
        np.unique(np.array([str(x) for x in column]), return_inverse=True)[1] for column in zip(*told, strict=True)
    ]
    table = np.stack(columns, axis=1)
    random = np.random.default_rng(seed)

    def read(side: Side) -> np.ndarray:
        values = table[np.searchsorted(people, side.identity)]
        others = table[random.integers(len(people), size=values.shape), np.arange(table.shape[1])]
        return np.where(random.random(values.shape) < misread, others, values)

    first = read(query)
    second = first if query is gallery else read(gallery)
    return (first[:, None] != second[None]).sum(-1)


def histograms(images: dict[str, np.ndarray], modalities: Sequence[str], grey_world: bool) -> np.ndarray:
    """Lab histograms (lightness alone without colours) of horizontal stripes of the middle of the images: [N, D]."""
    from PIL import Image

    found = []
    for name in modalities:
        rows = []
        for image in images[name]:
            middle = image[:, SIZE[1] // 5 : -SIZE[1] // 5].astype(float)
            if grey_world and name == "rgb":
                middle = middle * (128 / np.maximum(middle.mean((0, 1)), 1))
            lab = np.asarray(Image.fromarray(np.clip(middle, 0, 255).astype(np.uint8)).convert("LAB"), float)
            # Pillow keeps the signed a and b as bytes.
            lab[..., 1:] = (lab[..., 1:] + 128) % 256
            parts = np.array_split(lab, STRIPES)
            channels = range(3) if name == "rgb" else range(1)
            span = {0: (0, 255), 1: (88, 168), 2: (88, 168)}
            rows.append([np.histogram(p[..., c], BINS, span[c])[0] / p[..., c].size for p in parts for c in channels])
        found.append(np.array(rows).reshape(len(rows), -1))
    return np.concatenate(found, axis=1)


def nearest(features: Callable[[Side, Sequence[str]], np.ndarray], query: Side, gallery: Side) -> np.ndarray:
    """L1 distances of features of the modalities that each side has."""
    first, second = (features(side, tuple(side.images)) for side in (query, gallery))
    return np.abs(first[:, None] - second[None]).sum(-1) if first.shape[1] < 1000 else -(first @ second.T)


def trunk(name: str) -> Callable[[Side, Sequence[str]], np.ndarray]:
    """The embedding of a trunk as it is: pooled features of each modality, of length one, side by side."""
    import jax

    from mmreid_jax.convert import resnet, store
    from mmreid_jax.trunks import network

    backbone = network.backbone_of("resnet_mini", SIZE)
    fresh = jax.eval_shape(lambda: backbone.init(jax.random.key(0), np.zeros((1, *SIZE, 3), np.float32), True))
    variables, _ = store.open_weights(name, resnet.layout(), fresh)
    run = jax.jit(lambda images: network.embed(backbone, variables, images, False)[0])

    def features(side: Side, modalities: Sequence[str]) -> np.ndarray:
        found = []
        for modality in modalities:
            images = (side.images[modality] / 255 - np.array(network.MEAN)) / np.array(network.STD)
            values = np.concatenate([run(part) for part in np.array_split(images.astype(np.float32), 10)])
            found.append(values / np.linalg.norm(values, axis=1, keepdims=True))
        return np.concatenate(found, axis=1)

    return features


def measure(dataset: str, seed: int, options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Row -> (mAP, rank-1) of one seed."""
    query, gallery = sides(dataset, seed, options.identities)
    shared = query is not gallery
    rows: dict[str, tuple[float, float]] = {}
    for misread in (0.0, 0.2, 0.3):
        name = f"attributes, {misread:.0%} misread" if misread else "attributes"
        rows[name] = scores(oracle(seed, query, gallery, shared, misread), query, gallery)
    found: dict[str, Callable[[Side, Sequence[str]], np.ndarray]] = {}
    if not shared:
        for grey in (False, True):
            title = "Lab histograms of body parts" + (", grey-world" if grey else "")
            rows[f"{title}: RGB"] = scores(
                nearest(lambda side, _, g=grey: histograms(side.images, ("rgb",), g), query, gallery), query, gallery
            )
        found["histograms of body parts: all"] = lambda side, names: histograms(side.images, names, True)
    else:
        light = lambda side, names: histograms({"nir": next(iter(side.images.values()))}, ("nir",), False)  # noqa: E731
        found["histograms of body parts: lightness"] = light
    for name in options.trunk:
        found[f"{name}, not fine-tuned"] = trunk(name)
    for title, features in found.items():
        rows[title] = scores(nearest(features, query, gallery), query, gallery)
        if title.startswith("drawn/") and not shared:
            for modality in query.images:
                own = [Side(side.samples, {modality: side.images[modality]}) for side in (query, gallery)]
                rows[f"{title}: {modality.upper()}"] = scores(nearest(features, *own), query, gallery)
    return rows


def sheet(dataset: str, file: Path, seed: int, people: int = 3, across: int = 8) -> None:
    """A small picture: persons in rows, some of their images side by side."""
    from PIL import Image

    samples = [s for s in drawing.plan(dataset, identities=people) if s.trained_on]
    rows = []
    for identity in sorted({sample.identity for sample in samples})[:people]:
        own = [sample for sample in samples if sample.identity == identity]
        some = own[:: max(1, len(own) // across)]
        views = [drawn.draw_sample(drawing.of(dataset), sample, drawn.Rendering(seed)) for sample in some]
        shown = [image for view in views for image in view.values()][: 3 * across]
        rows.append(np.concatenate(shown, axis=1))
    whole = Image.fromarray(np.concatenate(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole.resize((900, round(900 * whole.height / whole.width))).save(file, quality=78)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[700])
    parser.add_argument("--identities", type=int, default=60)
    parser.add_argument("--datasets", nargs="+", choices=tuple(DATASETS), default=tuple(DATASETS))
    parser.add_argument("--trunk", action="append", default=[], help="weights that are looked at as they are")
    parser.add_argument("--sheets", type=Path, help="only draw the pictures into this folder")
    options = parser.parse_args()
    if options.sheets:
        for dataset in ("rgbnt201", "sysu_mm01", "rgbnt100"):
            sheet(dataset, options.sheets / f"drawn_{dataset}.jpg", options.seeds[0])
        return
    for dataset in options.datasets:
        measured = [measure(dataset, seed, options) for seed in options.seeds]
        print(f"\n| drawn {dataset} | mAP | rank-1 |\n|---|---|---|")
        for row in measured[0]:
            values = np.array([each[row] for each in measured]).mean(0)
            print(f"| {row} | {values[0]:.1f} | {values[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
