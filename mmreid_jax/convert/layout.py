"""Name maps between PyTorch state_dicts and our variables, read in both directions.

A `Layout` is a table of `Rule`: PyTorch name -> our path, with a `Transform` of the array between them. Names are
templates: ``{i}`` stands for a number. A number that is also in our path names a module (``layer{s}.{b}`` ->
``layer{s}_{b}``); one that is not is STACKED on a leading axis (``blocks.{i}.norm1.weight`` -> ``blocks/norm1/scale``
of shape [depth, width]). Layouts are assembled from parts with `linear`, `conv`, `norm`, `batch_norm`, moved under
prefixes with `nest` and joined with `join`: a new family of files is a short file of such lines.

`import_state` accounts for every key of a file: it is used, dropped for a reason that the layout states, or an error.
Silently partial loads are the field's second most common bug.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mmreid_jax.convert.identify import looks_like
from mmreid_jax.errors import UserError, printable

Entries = dict[str, np.ndarray]
Variables = dict[str, Any]
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# What stands behind the last dot or slash of a name.
_LAST_PART = re.compile(r"[^./]*\Z")
_SHOWN = 4
# Entries of a file; the networks here have at most 3,000.
_MOST_ENTRIES = 20_000


@dataclasses.dataclass(frozen=True)
class Transform:
    """One array's way from PyTorch's layout to ours (`forward`) and back; both are exact.

    `ndim` is the number of axes on PyTorch's side (None: any). `dtype` and `exported` fix the types on our side and on
    PyTorch's (None: unchanged).
    """

    forward: Callable[[np.ndarray], np.ndarray] = lambda x: x
    backward: Callable[[np.ndarray], np.ndarray] = lambda x: x
    ndim: int | None = None
    dtype: str | None = None
    exported: str | None = None


AS_IS = Transform()
VECTOR = Transform(ndim=1)
# Linear: [out, in] -> [in, out]. Convolution: [out, in, height, width] -> [height, width, in, out].
LINEAR = Transform(np.transpose, np.transpose, ndim=2)
CONV = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1), ndim=4)
# A 1x1 convolution of pooled features is a linear layer: [out, in, 1, 1] -> [in, out].
POINT = Transform(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None], ndim=4)
# PyTorch counts batches in int64, JAX (without x64) in int32.
COUNT = Transform(ndim=0, dtype="int32", exported="int64")


@dataclasses.dataclass(frozen=True)
class Rule:
    """PyTorch name -> our path (collection first: ``params/...``, ``batch_stats/...``).

    Attributes:
      source: template of the PyTorch name.
      target: template of our path.
      transform: of the array.
      optional: name of a group that some modules of the family lack as a whole (a model given as `like` decides); the
        rules of one group and scope are there together or not at all. None: always there.
      default: value where a file lacks it (old files have no ``num_batches_tracked``); None: its absence is an error.
      first: the number in the name of what is stacked first; some authors count from 1.
    """

    source: str
    target: str
    transform: Transform = AS_IS
    optional: str | None = None
    default: int | None = None
    first: int = 0

    @functools.cached_property
    def stacked(self) -> tuple[str, ...]:
        """Placeholders that become leading axes, outermost first."""
        inside = set(_PLACEHOLDER.findall(self.target))
        return tuple(name for name in _PLACEHOLDER.findall(self.source) if name not in inside)

    @functools.cached_property
    def scope(self) -> str:
        """The name up to its last number: rules that share it describe the same modules."""
        return self.source[: self.source.rfind("}") + 1]


@dataclasses.dataclass(frozen=True)
class Drop:
    """Names (a pattern with ``*``) that one side has and the other has no use for.

    Attributes:
      pattern: of PyTorch names (`Layout.drops`) or of our paths (`Layout.local`).
      reason: why they may be dropped, for the reader of the accounts.
      fill: exported entries by PyTorch name -> the array to write under `pattern` (then an exact name), so that strict
        loaders accept an exported file; None: nothing is written.
    """

    pattern: str
    reason: str
    fill: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """One family of files.

    Attributes:
      name: of the family.
      rules: see `Rule`.
      drops: PyTorch names that are not imported.
      local: our paths that no file of the family has: kept as initialised on import, left out on export.
      prepare: entries -> (entries, notes): what names and transposes cannot say, such as resizing a position table.
      finish: exported entries -> those to write, for families that `prepare` gives other names.
    """

    name: str
    rules: tuple[Rule, ...]
    drops: tuple[Drop, ...] = ()
    local: tuple[Drop, ...] = ()
    prepare: Callable[[Entries], tuple[Entries, list[str]]] | None = None
    finish: Callable[[Entries], Entries] | None = None


@dataclasses.dataclass(frozen=True)
class Variants:
    """Layouts of which a file follows one: the one that knows most of its names (the first of equals)."""

    name: str
    layouts: tuple[Layout, ...]


AnyLayout = Layout | Variants


@dataclasses.dataclass
class ImportReport:
    """The accounts of an import.

    Attributes:
      layout: name of the layout that the file follows.
      source: what was read, in words.
      used: PyTorch name -> our path.
      dropped: PyTorch name -> reason.
      kept: our path -> why it stayed as initialised.
      filled: our path -> what it was filled with for want of a key.
      notes: other changes.
      values: numbers imported.
    """

    layout: str
    source: str
    used: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    kept: dict[str, str] = dataclasses.field(default_factory=dict)
    filled: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    values: int = 0

    def table(self) -> str:
        """The accounts as a few lines of text."""
        lines = [f"{self.source}: layout {self.layout}, {len(self.used) + len(self.dropped)} keys"]
        arrays = len(set(self.used.values()))
        lines.append(f"  used    {len(self.used):5d}  -> {arrays} arrays, {self.values:,} values")
        for title, group in (("dropped", self.dropped), ("kept", self.kept), ("filled", self.filled)):
            reasons: dict[str, list[str]] = {}
            for name, reason in group.items():
                reasons.setdefault(reason, []).append(name)
            lines += [f"  {title:7} {len(names):5d}  {first_few(names)}: {why}" for why, names in reasons.items()]
        return "\n".join([*lines, *(f"  note           {note}" for note in self.notes)])


# ---------------------------------------------------------------------------------------------- parts of layouts


def linear(source: str, target: str, bias: bool = True, optional: str | None = None) -> tuple[Rule, ...]:
    """A Linear: ``weight`` [out, in] -> ``kernel`` [in, out], and ``bias``."""
    weight = Rule(f"{source}.weight", f"params/{target}/kernel", LINEAR, optional)
    return (weight, Rule(f"{source}.bias", f"params/{target}/bias", VECTOR, optional)) if bias else (weight,)


def conv(source: str, target: str, bias: bool = False, optional: str | None = None) -> tuple[Rule, ...]:
    """A 2-D convolution: ``weight`` OIHW -> ``kernel`` HWIO, and ``bias``."""
    weight = Rule(f"{source}.weight", f"params/{target}/kernel", CONV, optional)
    return (weight, Rule(f"{source}.bias", f"params/{target}/bias", VECTOR, optional)) if bias else (weight,)


def norm(source: str, target: str, optional: str | None = None) -> tuple[Rule, ...]:
    """A layer norm: ``weight`` -> ``scale``, and ``bias``."""
    return (
        Rule(f"{source}.weight", f"params/{target}/scale", VECTOR, optional),
        Rule(f"{source}.bias", f"params/{target}/bias", VECTOR, optional),
    )


def batch_norm(source: str, target: str, optional: str | None = None) -> tuple[Rule, ...]:
    """A batch norm: as `norm`, and running statistics -> ``mean``, ``var``, ``count`` in ``batch_stats``."""
    return (
        *norm(source, target, optional),
        Rule(f"{source}.running_mean", f"batch_stats/{target}/mean", VECTOR, optional),
        Rule(f"{source}.running_var", f"batch_stats/{target}/var", VECTOR, optional),
        Rule(f"{source}.num_batches_tracked", f"batch_stats/{target}/count", COUNT, optional, default=0),
    )


def nest(layout: Layout, source: str = "", target: str = "") -> Layout:
    """The layout of a module held by another one.

    Args:
      layout: of the module alone, which writes the names of its rules (no `finish`).
      source: prefix of the PyTorch names, dot included (``"base."``). Numbers in braces work as in rules, for layouts
        without `prepare` and without drops that fill.
      target: prefix of our paths below the collection, slash included (``"backbone/"``).
    """
    fills = [drop for drop in layout.drops if drop.fill]
    if layout.finish:
        raise ValueError(
            f"{layout.name} cannot be part of another layout: it writes other names than those of its rules"
        )
    if _PLACEHOLDER.search(source) and (layout.prepare or fills):
        raise ValueError(f"{layout.name} cannot be nested under a template: it prepares or fills entries by exact name")
    pattern = _PLACEHOLDER.sub("*", source)

    def moved(path: str) -> str:
        collection, rest = path.split("/", 1)
        return f"{collection}/{target}{rest}"

    def nested(rule: Rule) -> Rule:
        group = rule.optional and source + rule.optional
        return dataclasses.replace(rule, source=source + rule.source, target=moved(rule.target), optional=group)

    def fill_of(drop: Drop) -> Callable[[Mapping[str, np.ndarray]], np.ndarray] | None:
        fill = drop.fill
        return None if fill is None else lambda exported: fill(_below(exported, source))

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        assert layout.prepare is not None
        inner, notes = layout.prepare(_below(entries, source))
        outside = {name: value for name, value in entries.items() if not name.startswith(source)}
        return {**{source + name: value for name, value in inner.items()}, **outside}, notes

    return Layout(
        layout.name,
        tuple(map(nested, layout.rules)),
        tuple(Drop(pattern + drop.pattern, drop.reason, fill_of(drop)) for drop in layout.drops),
        tuple(Drop(moved(drop.pattern), drop.reason) for drop in layout.local),
        prepare if layout.prepare else None,
    )


def join(name: str, *parts: Layout) -> Layout:
    """One layout of several (none with `finish`), which must not overlap; the order is that of the keys on export."""
    prepares = [part.prepare for part in parts if part.prepare]

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        notes: list[str] = []
        for each in prepares:
            entries, more = each(entries)
            notes += more
        return entries, notes

    return Layout(
        name,
        tuple(itertools.chain.from_iterable(part.rules for part in parts)),
        tuple(itertools.chain.from_iterable(part.drops for part in parts)),
        tuple(itertools.chain.from_iterable(part.local for part in parts)),
        prepare if prepares else None,
    )


def unused(layout: Layout, source: str, reason: str, copied_from: str) -> Layout:
    """A module that files hold and networks never use: its keys are dropped, and written as copies of a live module's.

    Args:
      layout: of the module alone, without numbers in its templates.
      source: prefix of the dead module's PyTorch names, dot included.
      reason: why it is dropped.
      copied_from: prefix of a live module with the same entries, for export (strict loaders want every key).
    """

    def copy_of(name: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        return lambda exported: exported[copied_from + name]

    return Layout(layout.name, (), tuple(Drop(source + r.source, reason, copy_of(r.source)) for r in layout.rules))


def _below(entries: Mapping[str, np.ndarray], prefix: str) -> Entries:
    return {name[len(prefix) :]: value for name, value in entries.items() if name.startswith(prefix)}


# ------------------------------------------------------------------------------------------------------- matching


def flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A tree of mappings as {path with slashes: leaf}, in the tree's order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{above}{key}/") if isinstance(value, Mapping) else {f"{above}{key}": value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> Variables:
    """The inverse of `flatten`.

    Raises:
      ValueError: a path leads through an array.
    """
    tree: Variables = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or leaf in node:
            raise ValueError(f"{printable(path)} leads through an array, or to several")
        node[leaf] = value
    return tree


def first_few(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(template)
    seen: set[str] = set()
    for place, text in enumerate(parts):
        if place % 2 == 0:
            parts[place] = re.escape(text)
        elif text in seen:
            parts[place] = f"(?P={text})"
        else:
            seen.add(text)
            parts[place] = f"(?P<{text}>0|[1-9][0-9]{{0,8}})"
    return re.compile("".join(parts))


def _form(name: str) -> tuple[int, int, str]:
    """What a name shares with its template: the counts of dots and slashes (numbers have none), and the last part."""
    return name.count("."), name.count("/"), _LAST_PART.search(name)[0]  # type: ignore[index]


class _Matcher:
    """Finds the rule of a name: plain names by look-up, templates one by one among those of its form."""

    def __init__(self, rules: Iterable[Rule], side: str) -> None:
        self._side = side
        self._plain: dict[str, Rule] = {}
        self._templates: dict[tuple[int, int, str], list[tuple[int, Rule]]] = {}
        for place, rule in enumerate(rules):
            name = getattr(rule, side)
            if "{" not in name:
                self._plain.setdefault(name, rule)
                continue
            dots, slashes, last = _form(name)
            self._templates.setdefault((dots, slashes, "" if "{" in last else last), []).append((place, rule))

    def __call__(self, name: str) -> tuple[Rule, dict[str, int]] | None:
        if name in self._plain:
            return self._plain[name], {}
        dots, slashes, last = _form(name)
        candidates = [*self._templates.get((dots, slashes, last), []), *self._templates.get((dots, slashes, ""), [])]
        for _, rule in sorted(candidates, key=lambda each: each[0]):
            found = _pattern(getattr(rule, self._side)).fullmatch(name)
            if found:
                return rule, {key: int(number) for key, number in found.groupdict().items()}
        return None


class _Dropper:
    """Finds the first drop of a name: exact names by look-up, patterns one by one."""

    def __init__(self, drops: Iterable[Drop]) -> None:
        self._exact: dict[str, tuple[int, Drop]] = {}
        self._patterns: list[tuple[int, Drop]] = []
        for place, drop in enumerate(drops):
            if any(sign in drop.pattern for sign in "*?["):
                self._patterns.append((place, drop))
            else:
                self._exact.setdefault(drop.pattern, (place, drop))

    def __call__(self, name: str) -> Drop | None:
        found = [each for each in self._patterns if fnmatch.fnmatchcase(name, each[1].pattern)][:1]
        if name in self._exact:
            found.append(self._exact[name])
        return min(found, key=lambda each: each[0])[1] if found else None


def choose(layout: AnyLayout, names: Iterable[str], side: str = "source") -> Layout:
    """The variant that knows most of the names (PyTorch names, or our paths with ``side="target"``).

    It knows those of its rules, and those that it drops by their whole name.
    """
    if isinstance(layout, Layout):
        return layout
    names = list(names)

    def known(variant: Layout) -> int:
        match, dropped = _Matcher(variant.rules, side), {drop.pattern for drop in variant.drops}
        return sum(name in dropped or match(name) is not None for name in names)

    return max(layout.layouts, key=known)


# --------------------------------------------------------------------------------------------------------- import


def import_state(
    layout: AnyLayout,
    entries: Mapping[str, np.ndarray],
    like: Any = None,
    *,
    keep: Iterable[str] = (),
    drop: Mapping[str, str] | None = None,
    floating: Any = None,
    source: str = "the file",
    unreadable: Mapping[str, str] | None = None,
) -> tuple[Variables, ImportReport]:
    """Turns a PyTorch state_dict into our variables.

    Args:
      layout: the name map.
      entries: PyTorch name -> array.
      like: tree of arrays or `jax.ShapeDtypeStruct` that the result must fit in paths, shapes and dtypes; None: the
        tree that the file gives, in the file's dtypes.
      keep: patterns of our paths (``"params/sie_embed"``) that stay as they are in `like`, whatever the file holds.
      drop: patterns of PyTorch names to leave out beside the layout's own -> reason.
      floating: dtype of floating leaves instead of `like`'s or the file's.
      source: what the entries are, for messages.
      unreadable: name -> what it is, of tensors that the file has beside the entries and that are not read; an error
        where one of them is needed.

    Returns:
      Variables (dicts of numpy arrays that own their memory) and the accounts.

    Raises:
      UserError: keys are missing, unexpected or of another shape; the line says what the file looks like.
      ValueError: a leaf to keep is only a shape in `like`.
    """
    if len(entries) > _MOST_ENTRIES:
        raise UserError(f"{source} holds {len(entries):,} tensors, more than any network that can be converted")
    chosen = choose(layout, entries)
    report = ImportReport(chosen.name, source)
    prepared = dict(entries)
    if chosen.prepare:
        try:
            prepared, report.notes = chosen.prepare(prepared)
        except (ValueError, LookupError, TypeError) as error:
            reason = printable(str(error))
            raise UserError(f"{source} has shapes that no {chosen.name} file has ({reason})") from error
    wanted = None if like is None else flatten(like)
    result = {} if wanted is None else _kept(chosen, wanted, keep, report)
    requested = [Drop(pattern, reason) for pattern, reason in (drop or {}).items()]
    groups, unexpected = _sort(chosen, prepared, requested, report)
    unread, more = _sort_unreadable(chosen, unreadable or {}, requested, report)
    alien: list[str] = []
    if wanted is None:
        slots = _slots_of_file(chosen, groups, len(prepared))
    else:
        slots, alien = _slots_of_model(chosen, {path: leaf for path, leaf in wanted.items() if path not in result})
    missing, surplus, misfits = _compare(slots, groups, prepared, report)
    problems = {
        "of a kind that is not read": unread,
        "missing": [name for name in missing if name not in (unreadable or {})] + alien,
        "unexpected": unexpected + more + surplus,
        "of another shape or kind": [f"{name}: {words}" for name, words, _ in misfits],
    }
    if any(problems.values()):
        if not any(names for kind, names in problems.items() if kind != "of another shape or kind"):
            _check_classes(source, [(name, shapes) for name, _, shapes in misfits])
        raise UserError(_complaint(chosen.name, source, entries, problems))
    for path, slot in slots.items():
        result[path] = slot.assemble(groups[path].names if path in groups else {}, prepared, floating)
        report.values += result[path].size
    return unflatten({path: result[path] for path in (wanted or result)}), report


@dataclasses.dataclass
class _Group:
    """The entries of a file that make one array of ours: place on the stacked axes -> PyTorch name."""

    rule: Rule
    numbers: dict[str, int]
    names: dict[tuple[int, ...], str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Slot:
    """One array to make: its rule, the numbers in its path, lengths of its stacked axes, and what `like` says of it."""

    rule: Rule
    numbers: dict[str, int]
    stack: tuple[int, ...]
    shape: tuple[int, ...] | None = None
    dtype: np.dtype | None = None

    def names(self) -> dict[tuple[int, ...], str]:
        """Place on the stacked axes -> PyTorch name."""
        places = itertools.product(*map(range, self.stack))

        def name(place: tuple[int, ...]) -> str:
            counted = (number + self.rule.first for number in place)
            return self.rule.source.format(**{**self.numbers, **dict(zip(self.rule.stacked, counted, strict=True))})

        return {place: name(place) for place in places}

    def torch_shape(self) -> tuple[int, ...] | None:
        """Shape of each entry on PyTorch's side; None where nothing is known."""
        if self.shape is None:
            return None
        dummy = np.broadcast_to(np.zeros(()), self.shape[len(self.stack) :])
        try:
            return self.rule.transform.backward(dummy).shape
        except ValueError as error:
            raise ValueError(f"the model's {self.rule.target} has {dummy.ndim} axes, against its layout") from error

    def assemble(self, names: Mapping[tuple[int, ...], str], entries: Entries, floating: Any) -> np.ndarray:
        """The array of ours, in memory of its own; filled with the default where there are no names."""
        transform = self.rule.transform
        if not names:
            return np.full(self.stack if self.shape is None else self.shape, self.rule.default, transform.dtype)
        parts = {place: transform.forward(entries[name]) for place, name in names.items()}
        first = next(iter(parts.values()))
        dtype = self.dtype or np.dtype(transform.dtype or first.dtype)
        if floating is not None and _is_floating(dtype):
            dtype = np.dtype(floating)
        out = np.empty((*self.stack, *first.shape), dtype)
        for place, part in parts.items():
            out[place] = part
        return out


def _is_floating(dtype: np.dtype) -> bool:
    # bfloat16 comes from an extension of numpy, where its kind is "V".
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _kept(layout: Layout, wanted: Mapping[str, Any], keep: Iterable[str], report: ImportReport) -> dict[str, Any]:
    stay = (*(Drop(pattern, "kept as initialised, as asked") for pattern in keep), *layout.local)
    first = _Dropper(stay)
    kept = {}
    for path, leaf in wanted.items():
        drop = first(path)
        if drop is None:
            continue
        if not hasattr(leaf, "__array__"):
            raise ValueError(f"{path} is to be kept, but `like` holds only its shape: pass initialised arrays")
        kept[path], report.kept[path] = np.array(leaf), drop.reason
    return kept


def _sort(
    layout: Layout, entries: Entries, requested: Iterable[Drop], report: ImportReport
) -> tuple[dict[str, _Group], list[str]]:
    """Puts every key into its group or into the report's dropped ones; the rest is unexpected."""
    match, asked_for, dropped = _Matcher(layout.rules, "source"), _Dropper(requested), _Dropper(layout.drops)
    groups: dict[str, _Group] = {}
    unexpected = []
    for name in entries:
        left_out = asked_for(name)
        matched = None if left_out else match(name)
        if matched:
            rule, numbers = matched
            path = rule.target.format(**numbers)
            if path in report.kept:
                report.dropped[name] = "the model keeps its own"
                continue
            place = tuple(numbers[key] - rule.first for key in rule.stacked)
            if min(place, default=0) < 0:
                unexpected.append(name)
                continue
            groups.setdefault(path, _Group(rule, numbers)).names[place] = name
            report.used[name] = path
            continue
        left_out = left_out or dropped(name)
        if left_out:
            report.dropped[name] = left_out.reason
        else:
            unexpected.append(name)
    return groups, unexpected


def _sort_unreadable(
    layout: Layout, unreadable: Mapping[str, str], requested: Iterable[Drop], report: ImportReport
) -> tuple[list[str], list[str]]:
    """Of the tensors that are not read: those that a rule asks for, in words, and those that are unexpected."""
    match, asked_for, dropped = _Matcher(layout.rules, "source"), _Dropper(requested), _Dropper(layout.drops)
    needed, unexpected = [], []
    for name, what in unreadable.items():
        left_out = asked_for(name)
        matched = None if left_out else match(name)
        if matched and matched[0].target.format(**matched[1]) not in report.kept:
            needed.append(f"{name}: {what}")
        elif matched:
            report.dropped[name] = "the model keeps its own"
        elif left_out := left_out or dropped(name):
            report.dropped[name] = left_out.reason
        else:
            unexpected.append(name)
    return needed, unexpected


def _slots_of_model(layout: Layout, wanted: Mapping[str, Any]) -> tuple[dict[str, _Slot], list[str]]:
    """The arrays that a model needs, and those of them that no file of the family has."""
    match = _Matcher(layout.rules, "target")
    slots, alien = {}, []
    for path, leaf in wanted.items():
        matched = match(path)
        if matched is None:
            alien.append(f"{path} (no {layout.name} file holds it)")
            continue
        rule, numbers = matched
        shape = tuple(leaf.shape)
        slots[path] = _Slot(rule, numbers, shape[: len(rule.stacked)], shape, np.dtype(leaf.dtype))
    return slots, alien


def _slots_of_file(layout: Layout, groups: Mapping[str, _Group], entries: int) -> dict[str, _Slot]:
    """The arrays that a file should give without a model to compare with: whole modules, numbered without gaps."""
    modules: dict[str, dict[frozenset[tuple[str, int]], dict[str, int]]] = {}
    begun = set()
    for group in groups.values():
        for place in group.names:
            numbers = {**group.numbers, **dict(zip(group.rule.stacked, place, strict=True))}
            modules.setdefault(group.rule.scope, {})[frozenset(numbers.items())] = numbers
            begun.add((group.rule.scope, group.rule.optional, frozenset(numbers.items())))
    slots: dict[str, _Slot] = {}
    for rule in layout.rules:
        none: list[dict[str, int]] = [dict.fromkeys(_PLACEHOLDER.findall(rule.source), 0)]
        lengths: dict[str, tuple[int, ...]] = {}
        for numbers in list(modules.get(rule.scope, {}).values()) or none:
            path = rule.target.format(**numbers)
            # A number beyond the count of keys leaves gaps anyway, and must not cost memory.
            reach = tuple(min(numbers[key], entries) + 1 for key in rule.stacked)
            lengths[path] = tuple(map(max, lengths.get(path, reach), reach))
            if rule.optional is None or (rule.scope, rule.optional, frozenset(numbers.items())) in begun:
                slots.setdefault(path, _Slot(rule, numbers, ()))
        for path in lengths.keys() & slots.keys():
            slots[path].stack = lengths[path]
    return slots


_Shapes = tuple[tuple[int, ...], tuple[int, ...] | None]
"""Of an entry in the file, and in the model where one is given."""


def _compare(
    slots: Mapping[str, _Slot], groups: Mapping[str, _Group], entries: Entries, report: ImportReport
) -> tuple[list[str], list[str], list[tuple[str, str, _Shapes]]]:
    """Names that are missing, that nothing needs, and misfits (name, words, shapes); notes defaults in the report."""
    missing: list[str] = []
    misfits: list[tuple[str, str, _Shapes]] = []
    unclaimed = dict.fromkeys(report.used)
    for path, slot in slots.items():
        present = groups[path].names if path in groups else {}
        if not present and slot.rule.default is not None:
            report.filled[path] = f"the file has no such key, filled with {slot.rule.default}"
            continue
        names = slot.names()
        missing += [name for place, name in names.items() if place not in present]
        expected = slot.torch_shape()
        for place in present.keys() & names.keys():
            unclaimed.pop(names[place])
            value = entries[names[place]]
            misfit = _misfit(value, expected, slot)
            misfits += [(names[place], misfit, (value.shape, expected))] if misfit else []
            expected = value.shape if expected is None else expected
    return missing, list(unclaimed), misfits


def _misfit(value: np.ndarray, expected: tuple[int, ...] | None, slot: _Slot) -> str | None:
    if slot.rule.transform.ndim is not None and value.ndim != slot.rule.transform.ndim:
        return f"{list(value.shape)} in the file, where {slot.rule.transform.ndim} axes belong"
    if expected is not None and value.shape != expected:
        return f"{list(value.shape)} in the file, {list(expected)} in the model"
    if slot.dtype is not None and _is_floating(slot.dtype) != _is_floating(value.dtype):
        return f"{value.dtype} in the file, {slot.dtype} in the model"
    return None


def _check_classes(source: str, misfits: list[tuple[str, _Shapes]]) -> None:
    """`UserError` that names the setting, where files and model differ in the number of identities alone."""
    counts = set()
    for name, (theirs, ours) in misfits:
        if "classifier" not in name or ours is None or len(theirs) != len(ours) or theirs[1:] != ours[1:]:
            return
        counts.add((theirs[0], ours[0]))
    if len(counts) == 1:
        name, (theirs, ours) = misfits[0]
        shapes = f"{printable(name)}: {list(theirs)} in the file, {list(ours or ())} in the model"
        raise UserError(f"{source} was trained on another number of identities ({shapes}); {set_classes(theirs[0])}")


def set_classes(count: int) -> str:
    """What to do about weights that were trained on so many identities."""
    return f"give the model its {count} classes with --config.model.num_classes={count}"


def _complaint(layout: str, source: str, entries: Mapping[str, np.ndarray], problems: Mapping[str, list[str]]) -> str:
    parts = [
        f"{len(names)} {'key is' if len(names) == 1 else 'keys are'} {kind} ({first_few(names)})"
        for kind, names in problems.items()
        if names
    ]
    looks = looks_like({name: tuple(value.shape) for name, value in entries.items()})
    return (
        f"{source} does not fit the layout {layout!r}: {'; '.join(parts)}; the file looks like {looks}: "
        f"choose the layout and the model that match it"
    )


# --------------------------------------------------------------------------------------------------------- export


def export_state(layout: AnyLayout, variables: Mapping[str, Any]) -> Entries:
    """Turns our variables into a PyTorch state_dict: the exact inverse of `import_state`.

    Dropped keys that strict loaders ask for are written as the layout's `Drop.fill` says.

    Args:
      layout: the name map.
      variables: {"params": ..., "batch_stats": ...}, whole.

    Returns:
      PyTorch name -> numpy array, in the order of the reference's modules.

    Raises:
      UserError: a leaf has no PyTorch name, or one that files of the family need is missing.
    """
    flat = flatten(variables)
    chosen = choose(layout, flat, "target")
    match, local = _Matcher(chosen.rules, "target"), _Dropper(chosen.local)
    index = {rule: number for number, rule in enumerate(chosen.rules)}
    # The entries of one module stay together: blocks.0.*, then blocks.1.*.
    start: dict[str, int] = {}
    for rule, number in index.items():
        start.setdefault(rule.source.partition("{")[0], number)
    found: list[tuple[tuple[Any, ...], str, np.ndarray]] = []
    unknown, used = [], set()
    for path, leaf in flat.items():
        hit = match(path)
        if hit is None:
            unknown += [] if local(path) else [path]
            continue
        rule, numbers = hit
        used.add(rule)
        value = np.asarray(leaf)
        for place, name in _Slot(rule, numbers, value.shape[: len(rule.stacked)]).names().items():
            entry = np.array(rule.transform.backward(value[place]), rule.transform.exported or value.dtype, order="C")
            every = {**numbers, **dict(zip(rule.stacked, place, strict=True))}
            counted = tuple(every[key] for key in _PLACEHOLDER.findall(rule.source))
            found.append(((start[rule.source.partition("{")[0]], counted, index[rule]), name, entry))
    absent = [r.target for r in chosen.rules if r not in used and r.optional is None and r.default is None]
    if unknown or absent:
        wrong = [f"{first_few(unknown)} has no name in it"] if unknown else []
        wrong += [f"{first_few(absent)} is missing"] if absent else []
        raise UserError(f"these variables cannot be exported in the layout {chosen.name!r}: {'; '.join(wrong)}")
    exported = {name: entry for _, name, entry in sorted(found, key=lambda item: item[0])}
    for drop in chosen.drops:
        if drop.fill:
            exported[drop.pattern] = drop.fill(exported)
    return chosen.finish(exported) if chosen.finish else exported
