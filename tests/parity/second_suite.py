"""A second suite of golden cases: other seeds, sizes, names, counts of identities and orders of labels.

Where the reference is a formula its numbers come from plain loops in float64 (gradients by complex steps); where it is
a program, from the stored cases under other names. Nothing here knows the library.
"""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from mmreid_jax.testing import goldens

# Identities of unequal number, in no order.
MIXED = [8, 2, 8, 5, 8, 2, 0, 5, 8, 2, 8]
LOOSE = {"atol": 1e-3, "rel_l2_tol": 1e-3}


def write(folder: pathlib.Path) -> None:
    """Writes all suites into `folder`."""
    shutil.copy(goldens.folder() / "recipe.py", folder / "recipe.py")
    recipe = goldens.recipe()
    for make in (agw, caj, ddag, deen, rle, hetero_center, mmgl, tvi_lfm, renamed):
        for (suite, name), (facts, arrays) in make(recipe).items():
            (folder / suite).mkdir(exist_ok=True)
            (folder / suite / f"{name}.json").write_text(json.dumps(facts))
            if arrays:
                np.savez(folder / suite / f"{name}.npz", **arrays)


# ------------------------------------------------------------------------------------------------------- formulas


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt((rows**2).sum(-1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: list[int]) -> float:
    return -np.mean([log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(max(float(((a - b) ** 2).sum()), 1e-12))


def hardest(rows: np.ndarray, labels: list[int], margin: float) -> tuple[float, int]:
    """Batch-hard triplet loss and the number of anchors whose negative is not nearer than its positive."""
    terms, right = [], 0
    for i, x in enumerate(rows):
        far = max(distance(x, y) for y, label in zip(rows, labels, strict=True) if label == labels[i])
        near = min(distance(x, y) for y, label in zip(rows, labels, strict=True) if label != labels[i])
        terms.append(max(0.0, far - near + margin))
        right += near >= far
    return float(np.mean(terms)), right


def weighted(rows: np.ndarray, labels: list[int], alpha: float = 1.0, others: Any = None) -> list[tuple[float, float]]:
    """(weighted positive, weighted negative distance) of every anchor, as AGW's and CAJ's code weigh them."""
    found = []
    for i, x in enumerate(rows):
        apart = np.array([distance(x, y) for y in (rows if others is None else others)])
        same = np.array(labels) == labels[i]
        near = np.exp(alpha * (apart[same] - apart[same].max()))
        far = np.exp(-alpha * apart[~same])
        pair = [np.sum(w / (w.sum() + 1e-6) * d) for w, d in ((near, apart[same]), (far, apart[~same]))]
        found.append((float(pair[0]), float(pair[1])))
    return found


def soft_margin(pairs: list[tuple[float, float]]) -> tuple[float, int]:
    """Mean of log(1 + exp(p - n)), and how often n >= p."""
    return float(np.mean([math.log1p(math.exp(p - n)) for p, n in pairs])), sum(n >= p for p, n in pairs)


def enhanced(pairs: list[tuple[float, float]], gamma: float, square: bool) -> float:
    """CAJ's loss of weighted distances."""
    sizes = [min(gamma * (p - n) ** 2, 88.0) * (1 if p > n else -1) if square else gamma * (p - n) for p, n in pairs]
    return float(np.mean([math.log1p(math.exp(size)) for size in sizes]))


def between_centres(first: np.ndarray, second: np.ndarray, chunks: int, kind: str, margin: float) -> Any:
    """Hetero-Center loss of consecutive chunks, which the labels do not change."""
    length, total = -(-len(first) // chunks), 0.0
    for start in range(0, len(first), length):
        a, b = (side[start : start + length].mean(0) for side in (first, second))
        apart = {
            "l2": lambda a, b: ((a - b) ** 2).sum(),
            "l1": lambda a, b: np.mean((a - b) * np.sign((a - b).real)),
            "cos": lambda a, b: 1 - (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()),
        }[kind](a, b)
        total = total + (apart - margin if np.real(apart) > margin else 0.0)
    return total


def slope(function: Callable[[np.ndarray], Any], at: np.ndarray) -> np.ndarray:
    """The gradient by complex steps, exact to rounding."""
    found = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        moved = at.astype(complex)
        moved[place] += 1e-30j
        found[place] = np.imag(function(moved)) / 1e-30
    return found


# --------------------------------------------------------------------------------------------------------- suites


def agw(recipe: Any) -> dict[tuple[str, str], Any]:
    seed, labels, classes, width = 913, MIXED, 10, 14
    logits = recipe.array(seed, "logits", (len(labels), classes)).astype(np.float64)
    rows = recipe.array(seed, "features", (len(labels), width)).astype(np.float64)
    arrays: dict[str, Any] = {"ce/loss@64": cross_entropy(logits, labels)}
    for scale in (0.25, 1.5):
        arrays[f"tri/scale{scale}/loss@64"], arrays[f"tri/scale{scale}/correct"] = hardest(scale * rows, labels, 0.3)
        arrays[f"wrt/scale{scale}/loss@64"] = soft_margin(weighted(scale * rows, labels))[0]
    arrays["tri/margin0.7/loss@64"] = hardest(rows, labels, 0.7)[0]
    arrays["wrt/normalized/loss@64"] = soft_margin(weighted(unit(rows), labels))[0]
    losses = {"seed": seed, "labels": labels, "n_class": classes, "feature_dim": width, "tolerances": {}, "notes": {}}
    losses["inputs"] = {
        "logits": f"recipe.array(seed,'logits',[{len(labels)},{classes}])",
        "features": f"recipe.array(seed,'features',[{len(labels)},{width}]) times the scale in the key",
    }

    epochs, base, share, momentum, decay, size = [0, 3, 12, 12, 55], 0.04, 0.25, 0.8, 0.001, 7
    groups = {f"0 ({share}*lr)": ["stem", "still", "silent"], "1 (lr)": ["neck"], "2 (lr)": ["head", "part"]}
    rule = lambda e: (e + 1) / 10 if e < 10 else 1.0 if e < 20 else 0.1 if e < 50 else 0.01  # noqa: E731
    steps: dict[str, Any] = {}
    for group, names in groups.items():
        for name in names:
            p, buffer = recipe.array(seed, f"init/{name}", (size,)).astype(np.float64), None
            for i, epoch in enumerate(epochs):
                rate = base * rule(epoch) * (share if group.startswith("0") else 1.0)
                if name != "still":
                    g = (
                        recipe.array(seed, f"grad{i}/{name}", (size,)).astype(np.float64) * (name != "silent")
                        + decay * p
                    )
                    buffer = g if buffer is None else momentum * buffer + g
                    p = p - rate * (g + momentum * buffer)
                steps[f"step{i}/{name}@64"] = p
    for i, epoch in enumerate(epochs):
        steps[f"step{i}/lr@64"] = base * rule(epoch) * np.array([share, 1.0, 1.0])
    optimizer = {"seed": seed, "epochs": epochs, "base_lr": base, "groups": groups, "tolerances": {}}
    optimizer["optimizer"] = {
        "name": "SGD",
        "momentum": momentum,
        "nesterov": True,
        "dampening": 0,
        "weight_decay": decay,
    }
    optimizer["inputs"] = {
        "init/<p>": f"recipe.array(seed,'init/<p>',[{size}])",
        "gradI/<p>": f"recipe.array(seed,'gradI/<p>',[{size}]); silent gets an all-zero gradient; still gets None",
    }
    rates = np.array([[0.1 * rule(e), rule(e)] for e in range(24)]) * 0.02
    schedules = {"base_lr": 0.02, "keys": {"short": "[epochs, param groups] = [24, 2]", "of_agw": "the same"}}
    return {
        ("agw", "alone"): (losses, arrays),
        ("agw", "sgd"): (optimizer, steps),
        ("agw", "rates"): (schedules, {"short": rates, "of_agw": rates}),
    }


def caj(recipe: Any) -> dict[tuple[str, str], Any]:
    seed, labels, width, size = 77, MIXED[::-1], 9, (5, 4)
    rows = recipe.array(seed, "features", (len(labels), width)).astype(np.float64)
    arrays: dict[str, Any] = {}
    for scale, alpha, gamma, square in ((0.5, 1, 1, 0), (1, 2, 1, 0), (1, 1, 3, 1)):
        pairs, key = weighted(scale * rows, labels, alpha), f"adp/scale{scale}_a{alpha}_g{gamma}_s{square}"
        arrays[f"{key}/loss@64"] = enhanced(pairs, gamma, bool(square))
        arrays[f"{key}/correct"] = soft_margin(pairs)[1]
    pred, target = (recipe.array(seed, name, size).astype(np.float64) for name in ("pred", "target"))
    t = np.exp(log_softmax(4 * target / 2)) + 1e-7
    divergence = lambda x: 4 * (t * (np.log(t) - log_softmax(2 * x / 2))).sum() / len(t)  # noqa: E731
    shifted = lambda x: 2 * x / 2 - np.log(np.exp(2 * x / 2).sum(-1, keepdims=True))  # noqa: E731
    arrays["kl/loss@64"] = divergence(pred)
    arrays["kl/grad_pred@64"] = slope(lambda x: 4 * (t * (np.log(t) - shifted(x))).sum() / len(t), pred)
    facts = {"seed": seed, "labels": labels, "feature_dim": width, "tolerances": {}}
    facts["keys"] = "kl: first argument 2*pred, second 4*target (temperature 2), gradient w.r.t. pred"
    facts["inputs"] = {
        "features": f"recipe.array(seed,'features',[{len(labels)},{width}]) * S",
        "pred / target": f"recipe.array(seed,'pred'|'target',[{size[0]},{size[1]}])",
    }
    return {("caj", "alone"): (facts, arrays)}


def ddag(recipe: Any) -> dict[tuple[str, str], Any]:
    seed, labels, classes, heads, low, parts = 5, [3, 1, 3, 3, 0, 1, 6], 8, 2, 5, 4
    batch, width, hw, factor = 3, 12, (10, 3), 8
    names: dict[str, list[Any]] = {"iwpa": [["gate", [parts]]], "gat": []}
    for name in ("fc1.0", "fc2", "fc3", "W.0"):
        names["iwpa"] += [[f"{name}.weight", [width, width, 1, 1]], [f"{name}.bias", [width]]]
    for name in ("W.1", "bottleneck"):
        names["iwpa"] += [[f"{name}.{leaf}", [width]] for leaf in ("weight", "bias", "running_mean", "running_var")]
        names["iwpa"].append([f"{name}.num_batches_tracked", []])
    for i in range(heads):
        names["gat"] += [[f"attention_{i}.W", [width, low]], [f"attention_{i}.a", [2 * low, 1]]]
    names["gat"] += [["out_att.W", [low * heads, classes]], ["out_att.a", [2 * classes, 1]]]
    facts = {"seed": seed, "labels": labels, "n_class": classes, "in_features": width, "low_dim": low, "nheads": heads}
    facts |= {"part": parts, "alpha": 0.2, "map_hw": hw, "state_dict": names}
    facts["weights"] = {"iwpa": "no scaling", "gat": f"recipe.state_dict(seed, state_dict.gat) times {factor}"}
    facts["inputs"] = {
        "map": f"abs(recipe.array(seed,'map',[{batch},{width},{hw[0]},{hw[1]}]))",
        "feat": f"recipe.array(seed,'feat',[{batch},{width}])",
        "nodes": f"recipe.array(seed,'nodes',[{len(labels)},{width}])",
        "iwpa_cot": f"recipe.array(seed,'iwpa_cot',[{batch},{width}])",
    }
    w = {name: np.asarray(value, np.float64) for name, value in recipe.state_dict(seed, names["iwpa"]).items()}
    maps = np.abs(recipe.array(seed, "map", (batch, width, *hw))).astype(np.float64)
    feature = recipe.array(seed, "feat", (batch, width)).astype(np.float64)
    bounds = [(i * hw[0] // parts, -(-(i + 1) * hw[0] // parts)) for i in range(parts)]
    gate, sums = np.exp(log_softmax(w["gate"])), []
    for image, own in zip(maps, feature, strict=True):
        pooled = [image[:, top:bottom].mean((1, 2)) for top, bottom in bounds]
        q, k, v = ([w[f"{n}.weight"][:, :, 0, 0] @ x + w[f"{n}.bias"] for x in pooled] for n in ("fc1.0", "fc2", "fc3"))
        refined = [np.exp(log_softmax(np.array([x @ y for y in k]))) @ np.array(v) for x in q]
        sums.append(sum(g * r for g, r in zip(gate, refined, strict=True)) + own)
    norm = lambda x, mean, var: (x - mean) / np.sqrt(var + 1e-5) * w["bottleneck.weight"] + w["bottleneck.bias"]  # noqa: E731
    whole = np.array(sums)
    found: dict[str, Any] = {
        "iwpa/eval": norm(whole, w["bottleneck.running_mean"], w["bottleneck.running_var"]),
        "iwpa/train": norm(whole, whole.mean(0), whole.var(0)),
        "iwpa/running_mean": 0.9 * w["bottleneck.running_mean"] + 0.1 * whole.mean(0),
        "iwpa/running_var": 0.9 * w["bottleneck.running_var"] + 0.1 * whole.var(0, ddof=1),
    }
    w = {name: factor * np.asarray(x, np.float64) for name, x in recipe.state_dict(seed, names["gat"]).items()}
    nodes = recipe.array(seed, "nodes", (len(labels), width)).astype(np.float64)

    def attend(x: np.ndarray, name: str) -> np.ndarray:
        h, a = x @ w[f"{name}.W"], w[f"{name}.a"][:, 0]
        out = []
        for i, own in enumerate(labels):
            seen = [j for j, other in enumerate(labels) if other == own]
            scores = np.array([np.concatenate([h[i], h[j]]) @ a for j in seen])
            out.append(np.exp(log_softmax(np.where(scores > 0, scores, 0.2 * scores))) @ h[seen])
        return np.array(out)

    elu = lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))  # noqa: E731
    apart = [elu(attend(nodes, f"attention_{i}")) for i in range(heads)]
    out = elu(attend(np.concatenate(apart, axis=1), "out_att"))
    found |= {f"gat/head{i}": head for i, head in enumerate(apart)}
    found |= {"gat/log_probs": log_softmax(out), "gat/loss": np.float64(cross_entropy(out, labels))}
    same = np.equal.outer(labels, labels) + np.eye(len(labels))
    found |= {"adj": same, "adj_norm": same / np.sqrt((same**2).sum(1, keepdims=True))}
    facts["tolerances"] = dict.fromkeys(found, LOOSE)
    arrays = {**found, **{f"{key}@64": value for key, value in found.items() if not key.startswith("adj")}}
    losses = np.abs(recipe.array(seed, "loss", (3, 4))).astype(np.float64)
    weights = [0.0] + [1 / (1 + mean) for mean in losses.mean(1)]
    dynamic = {"seed": seed, "keys": {}, "tolerances": {"all": 1e-12}}
    return {
        ("ddag", "attention"): (facts, arrays),
        ("ddag", "weights"): (dynamic, {"loss": losses, "wG": np.array(weights)}),
    }


def guided(rows: np.ndarray, chunks: int) -> float:
    """DEEN's centre-guided pairs of two copies, [visible, infrared] of each, cut by place."""
    v, r, copied_v, copied_r = (part.reshape(chunks, -1, part.shape[-1]).mean(1) for part in np.split(rows, 4))

    def half(own: np.ndarray, other: np.ndarray, copied: np.ndarray) -> float:
        total = 0.0
        for i in range(chunks):
            near = distance(other[i], copied[i])
            total += max(0.0, near - distance(own[i], copied[i]) + 0.2)
            for side in (copied, own):
                nearest = min(distance(side[i], side[j]) for j in range(chunks) if j != i)
                total += 0.5 * max(0.0, near - nearest + 0.2)
        return total / chunks

    return (half(v, r, copied_v) + half(r, v, copied_r)) / 2


def deen(recipe: Any) -> dict[tuple[str, str], Any]:
    # In no order: the authors cut by place.
    seed, labels, classes, width, weights = 61, [2, 6, 2, 6, 0, 0], 7, 5, (0.5, 0.03)
    count, chunks, arrays = len(labels), len(set(labels)), {}
    rows = recipe.array(seed, "features", (6 * count, width))
    logits = recipe.array(seed, "logits", (6 * count, classes)).astype(np.float64)
    for scale in (0.2, 1.5):
        x, prefix = (rows * np.float32(scale)).astype(np.float64), f"all/scale{scale}"
        first, second, third = np.split(x, 3)
        pairs = [guided(np.concatenate([first, other]), chunks) for other in (second, third)]
        terms = {"loss_id": cross_entropy(logits, labels * 6), "loss_tri": hardest(x, labels * 6, 0.3)[0]}
        terms |= {"loss_cpm": weights[0] * sum(pairs), "loss_ort": weights[1] * (second * third).sum() / len(x)}
        arrays |= {f"{prefix}/{name}@64": value for name, value in {**terms, "loss": sum(terms.values())}.items()}
        arrays |= {f"{prefix}/cpm_1{number}@64": value for number, value in zip((2, 3), pairs, strict=True)}
        arrays |= {f"tri/scale{scale}/loss@64": terms["loss_tri"], f"cpm/scale{scale}/loss@64": pairs[0]}
    centres, spread = ((chunks, width), (4 * count, width))
    quarter = np.repeat(2 * recipe.array(seed, "centres", centres).astype(np.float64), count // chunks, axis=0)
    close = np.tile(quarter, (4, 1)) + 0.05 * recipe.array(seed, "spread", spread).astype(np.float64)
    arrays |= {"cpm/separated/loss@64": guided(close, chunks), "cpm/margin_argument_2/loss@64": guided(close, chunks)}
    losses = {"seed": seed, "labels_per_modality": labels, "num_pos": count // chunks, "n_class": classes}
    losses |= {"lambda_1": weights[0], "lambda_2": weights[1], "tolerances": {}}
    losses["inputs"] = {
        "features": f"recipe.array(seed,'features',[{6 * count},{width}]) * scale in float32",
        "logits": f"recipe.array(seed,'logits',[{6 * count},{classes}])",
        "cpm/separated": f"recipe.array(seed,'centres',[{chunks},{width}])*2 and "
        f"0.05*recipe.array(seed,'spread',[{4 * count},{width}])",
    }
    return {("deen", "alone"): (losses, arrays), ("deen", "blocks"): aggregation(recipe)}


def aggregation(recipe: Any) -> Any:
    """Both blocks of DEEN's aggregation in evaluation, position by position and channel by channel."""
    seed, own, batch, high, low, high_hw, low_hw = 17, 18, 2, 6, 4, (2, 3), (4, 6)
    names: list[list[Any]] = []
    for block, wide, narrow in (("CNL", low, low), ("PNL", low // 2, low // 2)):
        for name, source in (("g", low), ("theta", high), ("phi", low)):
            names += [[f"{block}.{name}.weight", [narrow, source, 1, 1]], [f"{block}.{name}.bias", [narrow]]]
        names += [[f"{block}.W.0.weight", [high, wide, 1, 1]], [f"{block}.W.0.bias", [high]]]
        names += [[f"{block}.W.1.{leaf}", [high]] for leaf in ("weight", "bias", "running_mean", "running_var")]
        names.append([f"{block}.W.1.num_batches_tracked", []])
    scale = [["PNL.W.0.weight", 0.5]]
    w = {name: np.asarray(value, np.float64) for name, value in recipe.state_dict(own, names).items()}
    w["PNL.W.0.weight"] = w["PNL.W.0.weight"] * 0.5
    h = recipe.array(seed, "l5/high", (batch, high, *high_hw)).astype(np.float64)
    x = recipe.array(seed, "l5/low", (batch, low, *low_hw)).astype(np.float64)

    def point(name: str, maps: np.ndarray) -> np.ndarray:
        return np.einsum("oc,bchw->bohw", w[f"{name}.weight"][:, :, 0, 0], maps) + w[f"{name}.bias"][:, None, None]

    def normed(block: str, y: np.ndarray) -> np.ndarray:
        gamma, beta, mean, var = (
            w[f"{block}.W.1.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        moved = (y - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
        return moved * gamma[:, None, None] + beta[:, None, None]

    def channels(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta, phi, g = point("CNL.theta", h), point("CNL.phi", x[:, :, ::2, ::2]), point("CNL.g", x)
        y = np.zeros_like(g)
        for b, a, c in itertools.product(range(batch), range(low), range(low)):
            y[b, a] += (theta[b, a] * phi[b, c]).sum() / low * g[b, c]
        return y, h + normed("CNL", point("CNL.W.0", y[:, :, ::2, ::2]))

    def positions(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta, phi, g = (point(f"PNL.{n}", m).reshape(batch, low, -1) for n, m in (("theta", h), ("phi", x), ("g", x)))
        y = np.zeros_like(theta)
        for b, i, j in itertools.product(range(batch), range(theta.shape[2]), range(g.shape[2])):
            y[b, :, i] += theta[b, :, i] @ phi[b, :, j] / g.shape[2] * g[b, :, j]
        y = y.reshape(batch, low // 2, *high_hw)
        return y, h + normed("PNL", point("PNL.W.0", y))

    arrays: dict[str, Any] = {}
    (before_c, after_c), (before_p, after_p) = channels(h), positions(h)
    stored = {"cnl_before_W": before_c, "eval_cnl": after_c, "pnl_before_W": before_p, "eval_pnl": after_p}
    for name, maps in {**stored, "eval_mfa": positions(after_c)[1]}.items():
        arrays[f"l5/{name}@64"], arrays[f"l5/{name}_mean@64"] = maps.reshape(-1)[:512], maps.mean((2, 3))
        arrays[f"l5/{name}_norm@64"] = np.sqrt((maps**2).sum())
    level = {"high": high, "low": low, "stride_flag": 1, "low_hw": low_hw, "high_hw": high_hw, "seed": own}
    level |= {"weight_scale": scale, "state_dict": names}
    # A float32 run is compared with nothing else here, so one number is given to it.
    arrays["l5/eval_cnl_norm"] = arrays["l5/eval_cnl_norm@64"]
    return {"seed": seed, "batch": batch, "levels": {"5": level}, "tolerances": {"l5/eval_cnl_norm": LOOSE}}, arrays


def rle(recipe: Any) -> dict[tuple[str, str], Any]:
    seed, size = 7, (12, 8)
    gates = {"moderate": [0.2, 0.9], "radical": [0.5, 0.6, 0.1]}
    betas, attempts = [0.3, 0.01, 0.4], [[0.4, 0.3], [0.25, 1.0, 3, 1, 0.9, 0.2, 0.6], [0.1, 0.5, 4, 2, 0.5, 0.1, 0.3]]
    draws = {
        "moderate": [{"moderate": gate, "betas": betas if gate <= 0.5 else []} for gate in gates["moderate"]],
        "radical": [{"radical": gate, "attempts": attempts if gate <= 0.5 else []} for gate in gates["radical"]],
    }
    arrays: dict[str, Any] = {}
    for family, listed in draws.items():
        for number, drawn in enumerate(listed):
            image = recipe.image(seed, f"im{number}", (*size, 3)).astype(np.float64) / 255
            if drawn.get("betas"):
                grey = image @ (np.array(betas) / sum(betas))
                image = np.repeat(grey[..., None], 3, axis=2)
            for share, aspect, *rest in drawn.get("attempts", ()):
                tall, wide = (round(math.sqrt(share * size[0] * size[1] * ratio)) for ratio in (aspect, 1 / aspect))
                for channel in range(3) if rest else ():
                    part = np.s_[rest[0] : rest[0] + tall, rest[1] : rest[1] + wide, channel]
                    image[part] = image[part] / image[part].max() * rest[2 + channel]
            arrays[f"{family}/{number}"] = arrays[f"{family}/{number}@64"] = image.transpose(2, 0, 1)
    limits = {key: {"atol": 3e-6} for key in arrays}
    facts = {"seed": seed, "image_hw": size, "draws": draws, "tolerances": limits, "nan_outputs": {}}
    return {("rle", "own"): (facts, arrays)}


def hetero_center(recipe: Any) -> dict[tuple[str, str], Any]:
    seed, arrays, cases = 31, {}, []
    array = lambda key, size: recipe.array(seed, key, size).astype(np.float64)  # noqa: E731
    for name, labels, kind, margin, first in (
        ("mixed", [1, 0, 1, 0, 2, 2], "l2", 0.2, True),
        ("ragged", [4, 4, 4, 9, 9], "l1", 0.0, True),
        ("raw", [7, 7, 3, 3, 5, 5], "cos", 0.0, False),
    ):
        case = {"name": name, "n": len(labels), "d": 4, "labels": labels, "dist": kind, "margin": margin}
        cases.append({**case, "l2_normalise_first": first, "f2_offset": 0.3})
        sides = [array(f"{name}_f1", (len(labels), 4)), array(f"{name}_f2", (len(labels), 4)) + 0.3]
        scaled = unit if first else lambda x: x
        chunks = len(set(labels))
        loss = lambda a, b, s=scaled, k=kind, m=margin, c=chunks: between_centres(s(a), s(b), c, k, m)  # noqa: E731
        arrays[f"hetero/{name}/loss"] = np.float64(loss(*sides))
        arrays[f"hetero/{name}/grad_f1"] = slope(lambda x, f=loss, s=sides: f(x, s[1]), sides[0])
        arrays[f"hetero/{name}/grad_f2"] = slope(lambda x, f=loss, s=sides: f(s[0], x), sides[1])

    # Four strips, and labels in no order, which the authors cut by place.
    strips, labels, classes, width, weight = 4, [2, 6, 2, 6, 0, 0], 7, 3, 0.25
    logits = array("total_logits", (strips, 2 * len(labels), classes))
    rows = array("total_feats", (strips, 2 * len(labels), width))
    entropy = np.array([cross_entropy(z, labels * 2) for z in logits])

    def apart(x: np.ndarray) -> Any:
        return between_centres(unit(x[: len(labels)]), unit(x[len(labels) :]), len(set(labels)), "l2", 0.1)

    between = np.array([apart(x) for x in rows])
    total = {"ce": entropy, "hc": between, "part": entropy + weight * between}
    total |= {"optimised_sum": total["part"].sum(), "logged_mean": total["part"].mean()}
    hot = np.eye(classes)[labels * 2]
    total["grad_logits"] = (np.exp(log_softmax(logits)) - hot) / len(hot)
    total["grad_feats"] = weight * np.array([slope(apart, x) for x in rows])
    arrays |= {f"total/{key}": value for key, value in total.items()}

    pools = []
    for height, wide, count in ((9, 4, 3), (11, 2, 5)):
        stride = height // count
        kernel = height - (count - 1) * stride
        maps = array(f"pool_{height}x{wide}", (3, 2, height, wide))
        rows_of = [maps[:, :, i * stride : i * stride + kernel].mean((2, 3)) for i in range(count)]
        arrays[f"pool/{height}x{wide}"] = np.stack(rows_of, -1)
        pools.append({"hw": [height, wide], "stride": stride, "kernel": kernel, "out": [3, 2, count]})

    batch, broad, low, people = 5, 8, 3, 4
    block, last = "feature1.feat_block", "classifier1.classifier.1"
    shapes = {f"{block}.0.weight": (low, broad), f"{last}.weight": (people, low), f"{last}.bias": (people,)}
    shapes |= {
        f"{block}.{leaf}": (low,) for leaf in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    }
    w = {name: recipe.parameter(seed, name, size).astype(np.float64) for name, size in shapes.items()}
    h = array("head_x", (batch, broad)) @ w[f"{block}.0.weight"].T + w[f"{block}.0.bias"]
    moments = {"train": (h.mean(0), h.var(0)), "eval": (w[f"{block}.1.running_mean"], w[f"{block}.1.running_var"])}
    for mode, (mean, variance) in moments.items():
        y = (h - mean) / np.sqrt(variance + 1e-5) * w[f"{block}.1.weight"] + w[f"{block}.1.bias"]
        arrays |= {f"head/{mode}_y": y, f"head/{mode}_y_normalised": unit(y)}
        arrays[f"head/{mode}_logits"] = np.where(y > 0, y, 0.1 * y) @ w[f"{last}.weight"].T + w[f"{last}.bias"]
    forms = {
        f"class_block_names_drop_{drop}": [f"classifier.{i}.{leaf}" for leaf in ("weight", "bias")]
        for drop, i in ((0, 1), (0.5, 2))
    }
    facts = {"seed": seed, "hetero": {"cases": cases}, "pool": {"cases": pools}, "tolerance": {}}
    facts["tolerance"] = {"float64": 1e-10, "float32_abs": 1e-4}
    facts["head"] = {
        "inputs": f'x = array(seed,"head_x",({batch},{broad}))',
        "low_dim": low,
        "classes": people,
        **forms,
    }
    facts["total"] = {"n": len(labels), "C": classes, "E": width, "labels": labels, "w_hc": weight, "margin": 0.1}
    facts["total"] |= {"dist": "l2"}
    facts["total"]["inputs"] = (
        f'logits = array(seed,"total_logits",({strips},2n,C)); feats = array(seed,"total_feats",({strips},2n,E))'
    )

    base, epochs, falls = 0.3, 17, (4, 11)
    rates = np.array([base * 0.1 ** sum(e >= fall for fall in falls) for e in range(epochs)])
    schedule = {"base_lr": base, "n_epochs_run": epochs, "groups": ["backbones", "feature1"], "tolerance": 1e-12}
    schedule["rule"] = f"epoch < {falls[0]}: lr; {falls[0]} <= epoch < {falls[1]}: 0.1 lr; else 0.01 lr"
    stored = {"lr_per_epoch_per_group": np.stack([0.1 * rates, rates], 1), "returned_lr": rates}
    return {("hc", "alone"): (facts, arrays), ("hc", "rates"): (schedule, stored)}


def mmgl(recipe: Any) -> dict[tuple[str, str], Any]:
    def cosine(base: float, epochs: int, period: int) -> np.ndarray:
        return np.array(
            [base * (e + 1) / 10 if e < 10 else base / 2 * (1 + math.cos(math.pi * e / period)) for e in range(epochs)]
        )

    rates = {"cosine_of_our_own": cosine(0.1, 33, 33), "pretrain_cosine_45": cosine(0.1, 30, 45)}
    rates["finetune_cosine_22"] = cosine(0.1, 23, 22)
    seed, arrays, cases = 8, {}, []
    for index, (pairs, stripes, scale, added) in enumerate(((2, 4, 1.5, True), (3, 3, 1.0, False))):
        logits = scale * recipe.array(seed, f"logits_{index}", (2 * pairs, stripes * stripes), np.float64)
        ranks = recipe.integers(seed, f"ranks_{index}", 0, math.factorial(stripes), (pairs,))
        orders = [list(itertools.permutations(range(stripes)))[rank] for rank in ranks] * 2
        squared = []
        for row, (z, order) in enumerate(zip(logits.reshape(-1, stripes, stripes), orders, strict=True)):
            truth = np.eye(stripes)[list(order)]
            z = z + 9 * truth if added and row % 2 == 0 else z
            matrix = np.exp(z / 0.5)
            for _ in range(13):
                matrix = matrix / matrix.sum(1, keepdims=True)
                matrix = matrix / matrix.sum(0, keepdims=True)
            squared.append(((matrix - truth) ** 2).sum())
        arrays[f"loss_sum_{index}"] = np.float64(np.mean(squared))
        cases.append({"B": pairs, "S": stripes, "scale": scale, "correct_rows_added": added})
    facts = {"seed": seed, "cases": cases, "sinkhorn_iterations": 13, "temperature": 0.5}
    facts |= {"inputs": "where correct_rows_added, 9*P is added", "tolerance": "float64 1e-10; float32 1e-3"}
    return {
        ("mmgl", "rates"): ({"note": "learning rate per epoch, from 0", "tolerance": 1e-12}, rates),
        ("mmgl", "orders"): (facts, arrays),
    }


def tvi_lfm(recipe: Any) -> dict[tuple[str, str], Any]:
    seed, labels, width, classes, scale = 404, MIXED, 6, 9, 5.0
    size = len(labels)
    first, second, image, said, filtered, fused = (
        recipe.array(seed, key, (size, width)).astype(np.float64)
        for key in ("feats", "feats2", "ir", "text", "filter", "fusion")
    )
    cosines = lambda a, b: np.array([[float(x @ y) for y in unit(b)] for x in unit(a)])  # noqa: E731
    own = log_softmax(scale * cosines(image, said))
    of_texts = log_softmax(scale * cosines(said, image))
    pairs = sum(of_texts[j, i] for j in range(size) for i in range(size) if labels[i] == labels[j]) / size**2
    crossed = np.abs(cosines(image, said - filtered))

    def taught(learner: np.ndarray, teacher: np.ndarray) -> float:
        target = np.exp(log_softmax(scale * cosines(teacher, fused)))
        return float(-np.mean((target * log_softmax(scale * cosines(learner, fused))).sum(1)))

    weight, bias = (recipe.parameter(seed, f"classifier.BN.{leaf}", (width,)) for leaf in ("weight", "bias"))
    neck = (first - first.mean(0)) / np.sqrt(first.var(0) + 1e-5) * weight.astype(float) + bias.astype(float)
    heads = recipe.parameter(seed, "classifier.classifier.weight", (classes, width)).astype(np.float64)
    scales = [0.3, 1.0]
    found = {
        "id": cross_entropy(neck @ heads.T, labels),
        "orth": crossed.mean(),
        "orth2": crossed.sum(),
        "L_i2t": -np.trace(own) / size**2,
        "L_t2i_sum": sum(-pairs / labels.count(label) for label in labels),
        "I2T_Regular": taught(image, said),
        "T2I_Regular": taught(said, image),
        "wrt_local": soft_margin(weighted(scales[0] * first, labels, others=scales[0] * second))[0],
    }
    for factor in scales:
        found[f"wrt/scale{factor}"] = soft_margin(weighted(factor * first, labels))[0]
        found[f"wrt_normalized/scale{factor}"] = soft_margin(weighted(unit(factor * first), labels))[0]
    config = {"N": size, "D": width, "scales": scales, "num_classes": classes, "logit_scale": scale}
    facts = {"case": "losses", "seed": seed, "config": config, "labels": labels, "noise_float32_vs_float64": {}}
    return {("tvi_lfm", "alone"): (facts, {key: np.float64(value) for key, value in found.items()})}


def renamed(recipe: Any) -> dict[tuple[str, str], Any]:
    """Stored cases whose reference is a program, under other names of files and cases."""
    del recipe
    out: dict[tuple[str, str], Any] = {}
    for path in goldens.cases("htt"):
        golden = goldens.load(path)
        if golden.json.get("case") == "lr_schedules":
            cases = {f"as_{name}": case for name, case in golden.json["cases"].items()}
            arrays = {f"as_{key}": value for key, value in golden.arrays.items()}
            out["htt", "timetables"] = {**golden.json, "cases": cases}, arrays
    for path in goldens.cases("agw"):
        golden = goldens.load(path)
        if "cases" in golden.json and any("'centre'" in words for words in golden.json["cases"].values()):
            cases = {f"my_{name}": words.replace("plain", "my_plain") for name, words in golden.json["cases"].items()}
            out["agw", "scores"] = {**golden.json, "cases": cases}, {f"my_{k}": v for k, v in golden.arrays.items()}
    for path in goldens.cases("tvi_lfm"):
        golden = goldens.load(path)
        if golden.json.get("case") == "color":
            out["tvi_lfm", "paint"] = golden.json, golden.arrays
    return out
