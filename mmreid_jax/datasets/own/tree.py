"""The images of a folder with the labels that folders and file names say."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from mmreid_jax.data import listing
from mmreid_jax.datasets.own import naming
from mmreid_jax.datasets.own.arrange import FoundImage
from mmreid_jax.datasets.own.faults import Faults
from mmreid_jax.errors import UserError, is_text, printable


def read(root: pathlib.Path, faults: Faults, pattern: str = "") -> list[FoundImage]:
    """All images at any depth below a folder.

    Outer folders may be modalities (``rgb``, ``thermal``) and splits (``train``, ``query``, ``gallery``, ``test``), in
    any order; the innermost may be modalities instead. The first other folder is the identity, unless a pattern says
    it; where there is none, names are read as those of Market-1501 are.

    Args:
      root: the folder.
      faults: gets what is wrong.
      pattern: of the ends of paths, see `naming.groups_of`; "" for folders alone, or the names of Market-1501.

    Raises:
      UserError: there is no such folder, no image in it, or the pattern is none.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {printable(root)}; give a folder of images with --folder")
    listed = listing.list_images(root, below=True)
    faults.add(
        "files cannot be used",
        [f"{name} ({why})" for name, why in listed.unusable.items() if not pathlib.PurePath(name).name.startswith(".")],
    )
    faults.add(
        "names are not UTF-8 (rename the files or their folders)",
        [name for name in listed.files if not is_text(name)],
    )
    if not listed.files:
        raise UserError(f"{printable(root)} holds no image that can be used ({', '.join(listing.SUFFIXES)})")
    paths = [pathlib.PurePosixPath(file) for file in listed.files]
    folders = [list(path.parent.parts) for path in paths]
    modalities = [""] * len(paths)
    splits = [""] * len(paths)
    for _ in range(2):
        modalities = _outer(folders, naming.modality_of, "modalities", faults) or modalities
        splits = _outer(folders, lambda word: naming.SPLITS.get(word.lower(), ""), "splits", faults) or splits
    if not any(modalities) and all(parts and naming.modality_of(parts[-1]) for parts in folders):
        modalities = [naming.modality_of(parts.pop()) for parts in folders]
    if not pattern and not any(folders):
        pattern = naming.MARKET
    found = []
    for path, parts, modality, split in zip(paths, folders, modalities, splits, strict=True):
        bare = "/".join([*parts, path.stem])
        said = naming.groups_of(pattern, bare) if pattern else {}
        if said is None:
            faults.add(f"names do not end in the form {pattern} (--pattern names another)", str(path))
            continue
        identity = said.get("identity") or (parts[0] if parts else "")
        if not identity:
            faults.add("images lie outside of the folders of the identities", str(path))
            continue
        if word := said.get("modality"):
            modality = naming.modality_of(word)
            if not modality:
                faults.add(f"names have an unknown modality (known are {_words()})", f"{path} ({word})")
        if word := said.get("split"):
            split = naming.SPLITS.get(word.lower(), "")
            if not split:
                faults.add(f"names have an unknown split (known are {', '.join(naming.SPLITS)})", f"{path} ({word})")
        found.append(
            FoundImage(
                root / path,
                str(path),
                identity,
                camera=said.get("camera", ""),
                scene=said.get("scene", ""),
                modality=modality or "rgb",
                split=split,
                key="/".join([split, naming.without_modality(pattern, bare) if pattern else bare]),
            )
        )
    return found


def _outer(folders: list[list[str]], meaning: Callable[[str], str], what: str, faults: Faults) -> list[str] | None:
    """What the outermost folders mean, which are then taken away; None where they are no such folders."""
    outer = {parts[0] if parts else "" for parts in folders}
    known = {word for word in outer if meaning(word)}
    if not known:
        return None
    faults.add(
        f"names beside the folders of {what} ({', '.join(sorted(known))}) are none themselves",
        sorted(word or "images without a folder" for word in outer - known),
    )
    return [meaning(parts.pop(0)) if parts else "" for parts in folders]


def _words() -> str:
    return ", ".join(word for words in naming.FOLDER_NAMES.values() for word in words)
