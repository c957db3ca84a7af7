"""Members of one tar file -> its images and what they say of their class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import UserError
from ...files import json_text
from .. import walk
from ..regions import Regions
from .headers import FILE, FOLDER, SPARSE, Member, members

_LONGEST_PATH, _LONGEST_LABEL, _LARGEST_JSON = 1_000, 1_000, 1 << 20  # bytes
_CLS, _JSON = ".cls", ".json"
_KEYS = ("label", "cls")  # that JSON has the class under


@dataclass
class Images:
    """What a tar file holds: lists with an entry for each image, and what is left out.

    Attributes:
        files, texts: path of each image, and what it says its class is, as bytes; empty texts in class folders.
        offsets, lengths: where its bytes are.
        endings: number of files by ending, of those that are neither images nor labels.
        odd: what is named like an image but is no regular file.
        alone: keys that have a label and no image.
    """

    files: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)


def images(regions: Regions, number: int, name: str, size: int) -> Images:
    """The images of file `number` of `regions`, which is called `name`.

    Raises UserError, which names the file and the member, for anything that would have to be guessed.
    """
    found, seen = Images(), set[str]()
    labels: dict[str, dict[str, Member]] = {_CLS: {}, _JSON: {}}
    for member in _unpacked(regions, number, name, size):
        if member.path in seen and member.kind == FILE:
            raise UserError(f"{name}: {member.path} is in it twice; make the tar file anew, from a folder")
        seen.add(member.path)
        ending = os.path.splitext(member.path)[1].lower()
        if walk.is_image(member.path):
            _add(found, member, name)
        elif member.kind == FILE and ending in labels:
            labels[ending][_key(member.path)] = member
        elif member.kind == FILE:
            found.endings[ending] += 1
    _label(found, labels, regions, number, name)
    return found


def _unpacked(regions: Regions, number: int, name: str, size: int) -> Iterator[Member]:
    """The visible members but folders; those of a tar file within are in a folder of its name."""

    def read(offset: int, length: int) -> bytes:
        return regions.read(number, offset, length)

    for member in members(read, 0, size, name):
        path = _visible(member, name)
        if not path or member.kind == FOLDER:
            continue
        if member.kind != FILE or not path.lower().endswith(".tar"):
            yield member._replace(path=path)
            continue
        for inner in members(read, member.offset, member.offset + member.size, f"{name}: {path}"):
            if (below := _visible(inner, f"{name}: {path}")) and inner.kind != FOLDER:
                yield inner._replace(path=f"{path[:-4]}/{below}")


def _visible(member: Member, name: str) -> str:
    """A member's path without `./`; empty where it is hidden. Raises UserError where it leads out of the folder."""
    parts = [part for part in member.path.split("/") if part not in ("", ".")]
    if ".." in parts or member.path.startswith("/"):
        raise UserError(
            f"{name}: {member.path} leads out of the folder; make the tar file anew, with paths in the folder"
        )
    if len(os.fsencode(member.path)) > _LONGEST_PATH:
        raise UserError(f"{name}: {member.path[:60]}... is a path of over {_LONGEST_PATH:,} bytes; rename the file")
    return "" if any(part.startswith(".") for part in parts) else "/".join(parts)


def _key(path: str) -> str:
    """What the files of one sample have in common: the path as far as the first dot of the file's name."""
    folder, name = os.path.split(path)
    return os.path.join(folder, name.partition(".")[0])


def _add(found: Images, member: Member, name: str) -> None:
    if member.kind == SPARSE:
        raise UserError(f"{name}: {member.path} is a sparse file; make the tar file anew, without --sparse")
    if member.kind != FILE:
        found.odd.append(f"{name}: {member.path} ({member.kind})")
        return
    found.files.append(os.fsencode(member.path))
    found.offsets.append(member.offset)
    found.lengths.append(member.size)


def _label(found: Images, labels: dict[str, dict[str, Member]], regions: Regions, number: int, name: str) -> None:
    """Give each image its text, where there are any. Raises UserError for a key with no label or two images."""
    keys = [_key(os.fsdecode(file)) for file in found.files]
    texts = {key: _cls(member, regions, number, name) for key, member in labels[_CLS].items()}
    for key in keys:
        if key not in texts and (member := labels[_JSON].get(key)) and (text := _json(member, regions, number, name)):
            texts[key] = text
    if not texts:
        found.texts = [b""] * len(keys)
        found.endings.update({_JSON: len(labels[_JSON])} if labels[_JSON] else {})
        return
    image_of: dict[str, bytes] = {}
    for key, file in zip(keys, found.files, strict=True):
        if key not in texts:
            raise UserError(
                f"{name}: {os.fsdecode(file)} has no {os.path.basename(key)}.cls, as others have; add the class, or "
                "leave the image out"
            )
        if (first := image_of.setdefault(key, file)) != file:
            raise UserError(
                f"{name}: key {key} has two images, {os.fsdecode(first)} and {os.fsdecode(file)} (a key ends at the "
                "first dot); keep one of them"
            )
    found.texts = [texts[key].encode("utf-8", "surrogateescape") for key in keys]
    found.alone = [f"{name}: {key}" for key in labels[_CLS] if key not in image_of]


def _cls(member: Member, regions: Regions, number: int, name: str) -> str:
    where = f"{name}: {member.path}"
    if member.size > _LONGEST_LABEL:
        raise UserError(f"{where}: {member.size:,} bytes; expected the number or name of a class")
    try:
        text = regions.read(number, member.offset, member.size).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: no UTF-8 text; expected the number or name of a class") from error
    return _checked(text, where)


def _json(member: Member, regions: Regions, number: int, name: str) -> str | None:
    """The class that a JSON file has, None where it has none."""
    where, remedy = f"{name}: {member.path}", "correct it, or write the class into a .cls"
    if member.size > _LARGEST_JSON:
        raise UserError(f"{where}: {member.size:,} bytes; {remedy}")
    text = regions.read(number, member.offset, member.size).decode("utf-8-sig", "replace")
    value = json_text.parse(text, where, remedy)
    found = next((value[key] for key in _KEYS if key in value), None) if isinstance(value, dict) else None
    if found is None:
        return None
    if not isinstance(found, str) and not json_text.is_integer(found):
        raise UserError(f"{where}: expected the number or name of one class, got {str(found)[:60]}; {remedy}")
    return _checked(str(found), where)


def _checked(text: str, where: str) -> str:
    if not text or any(character in text for character in "\0\n\r"):
        raise UserError(f"{where}: {text[:60]!r}; expected the number or name of a class, on one line")
    return text
