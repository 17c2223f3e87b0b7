"""`edgekit pull-samples`: fetch what a device kept, part by part, and gather it as data for the next build.

Refuses what a parcel or a collection refuses, and a device that goes on without end; what came before is kept."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from edgekit_runtime.errors import EdgeKitError

from edgekit.calling import Access, Answer, Ask, Place, calling, parse_place
from edgekit.collection import SIDES, Collection, collecting, refuse_others
from edgekit.parcels import bad, open_parcel, shown
from edgekit.refusals import said

MOST = 1_000_000
"""Samples, and parts, beyond which a device is taken to have no end."""
RESERVE = 256 * 2**20
"""Bytes that stay free on the disk."""
Tell = Callable[[str], None]
Fetch = Callable[[str, Mapping[str, str]], bytes]
"""A path and its query, to the body of the answer."""


@dataclass(frozen=True)
class Wish:
    """Where samples go, of which model (None: the one that there is), and whether to look only."""

    out: Path
    model: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Pulled:
    """What the device has (`kept` samples of so many `bytes`), how many of them are `new` here, and what lies here
    now: how many are labelled or not, and the commands that use them."""

    place: str
    model: str | None
    out: str
    dry_run: bool
    kept: int
    bytes: int
    new: int
    labelled: int = 0
    unlabelled: int = 0
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A sample in the device's list. It is known here by what is told of it; its content was not sent yet."""

    name: str
    model: str
    bytes: int
    told: tuple[Any, ...]


def pull(where: str, access: Access, wish: Wish, tell: Tell) -> Pulled:
    """Fetch what is new at `where`: a device's admin address, or a folder that it kept samples in.

    Raises:
        EdgeKitError: it cannot be had, or is not to be trusted, or the folder holds something else.
    """
    refuse_others(wish.out)
    folder = folder_of(where)
    if folder is not None:
        from edgekit.mounted import opened

        with opened(folder) as fetch:
            return _pull(fetch, str(folder), wish, tell)
    place = parse_place(where)
    with calling(place, access) as ask:
        return _pull(_fetching(ask, place), str(place), replace(wish, model=wish.model or place.name), tell)


def folder_of(where: str) -> Path | None:
    """The folder that `where` names, as a path or as file://; None where it is an address."""
    if where.startswith("file:"):
        parts = urlsplit(where)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise EdgeKitError(f"{where[:200]!r} names no folder here", hint="say file:///path/of/the/folder")
        return Path(unquote(parts.path))
    return Path(where) if "://" not in where and Path(where).is_dir() else None


def to_json(found: Pulled) -> dict[str, Any]:
    """The facts as JSON values."""
    return asdict(found)


def lines(found: Pulled) -> list[str]:
    """The same for a person."""
    size = f"{found.bytes / 1e6:,.1f} MB"
    if found.dry_run:
        return [f"{found.place} keeps {found.kept:,} samples, {size}; {found.new:,} of them are new or changed"]
    here = f"{found.out} holds {found.labelled:,} labelled and {found.unlabelled:,} unlabelled samples"
    first = f"{found.new:,} new of {found.kept:,} samples ({size}) at {found.place}; {here}"
    odd = "most were kept for being odd: put them beside ordinary samples, and judge accuracy by those"
    return [first, *(f"  {command}" for command in found.commands), *([odd] if found.commands else [])]


def _pull(fetch: Fetch, place: str, wish: Wish, tell: Tell) -> Pulled:
    every = list(_index(fetch))
    model = wish.model or _only_model(every, place)
    mine = [one for one in every if one.model == model]
    if wish.model is not None and not mine and every:
        names = ", ".join(sorted({one.model for one in every})[:20])
        raise EdgeKitError(f"{place} keeps no samples of {shown(wish.model)}", hint=f"say --model {names}")
    size = sum(one.bytes for one in mine)
    if wish.dry_run:
        known = _known(Collection(wish.out)) if wish.out.is_dir() else set()
        new = sum(one.told not in known for one in mine)
        return Pulled(place, model, str(wish.out), True, len(mine), size, new)
    if not mine:
        raise EdgeKitError(f"{place} keeps no samples yet", hint="ask again after some requests")
    _refuse_to_fill(wish.out, size)
    with collecting(wish.out) as collection:
        new = 0
        for number in _parts(fetch, str(model), mine, collection):
            new += number
            tell(f"pulling samples: {len(collection.rows):,} here, {len(mine):,} at {place}")
        collection.finish()
        counts = [collection.count(side) for side in SIDES]
        return Pulled(
            place, model, str(wish.out), False, len(mine), size, new, sum(counts[0]), sum(counts[1]),
            tuple(_commands(wish.out, collection)),
        )  # fmt: skip


def _parts(fetch: Fetch, model: str, mine: list[Entry], collection: Collection) -> Iterator[int]:
    """Merge part after part; yields how many samples of each were new. Where nothing is new, none is fetched."""
    known, after = _known(collection), ""
    for _ in range(MOST):
        wanted = [place for place, one in enumerate(mine) if one.name > after and one.told not in known]
        if not wanted:
            return
        if wanted[0]:
            after = max(after, mine[wanted[0] - 1].name)
        parcel = open_parcel(fetch("/samples", {"model": model, "after": after}))
        if parcel.model != model:
            raise bad(f"is of {parcel.model}, not of {model}")
        yield collection.add(parcel)
        if parcel.next is None:
            return
        if parcel.next <= after:
            raise bad("has no end: a part comes again")
        after = parcel.next
    raise bad("has no end")


def _known(collection: Collection) -> set[tuple[Any, ...]]:
    return {_as_told(row) for row in collection.rows.values()}


def _as_told(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one sample, as it is labelled, from all others, without its content."""
    return tuple(row.get(key) for key in ("id", "when_ms", "version", "label"))


def _index(fetch: Fetch) -> Iterator[Entry]:
    """What the device says that it keeps, sorted by name."""
    after = ""
    for count in range(MOST):
        try:
            told = json.loads(fetch("/samples/index", {"after": after} if after else {}))
            entries = [
                Entry(str(one["name"]), str(one["model"]), int(one["bytes"]), _as_told(one)) for one in told["samples"]
            ]
            following = told["next"]
            hash(tuple(entries))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise bad("is no list of samples") from error
        names = [one.name for one in entries]
        if any(low >= high for low, high in zip([after, *names], names, strict=False)) or count * 1000 > MOST:
            raise bad("is a list without order or end")
        if any(not re.fullmatch("[0-9a-f]{32}", name) for name in names) or any(one.bytes < 0 for one in entries):
            raise bad("is no list of samples")
        yield from entries
        if following is None:
            return
        if not names or following != names[-1]:
            raise bad("is a list without order or end")
        after = names[-1]


def _only_model(every: list[Entry], place: str) -> str | None:
    names = sorted({one.model for one in every})
    if len(names) > 1:
        told = ", ".join(shown(name) for name in names[:20])
        raise EdgeKitError(f"{place} keeps samples of {len(names)} models", hint=f"say --model with one of {told}")
    return names[0] if names else None


def _refuse_to_fill(out: Path, size: int) -> None:
    """Raise where the disk has no room for `size` bytes. Tensors are kept twice: alone, and joined."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if 2 * size > free - RESERVE:
        raise EdgeKitError(
            f"{size / 1e6:,.0f} MB of samples, and {free / 1e6:,.0f} MB free at {there}",
            hint="free some space, or say --out on another disk",
        )


def _commands(out: Path, collection: Collection) -> Iterator[str]:
    """How to use what lies here now."""
    for side, flag in zip(SIDES, ("--data", "--calibration"), strict=True):
        sources, tensors = collection.count(side)
        places = [out / side] * (sources > 0) + [out / file for file in collection.archives(side)[: tensors > 0]]
        for place in places:
            rest = "" if flag == "--data" else " --data DATA"
            yield f"edgekit build MODEL --target TARGET{rest} {flag} {shlex.quote(str(place))}"


def _fetching(ask: Ask, place: Place) -> Fetch:
    """Answers of a device, of which everything but 200 is an error."""

    def fetch(path: str, query: Mapping[str, str]) -> bytes:
        answer = ask("GET", f"{path}?{urlencode(query)}" if query else path, None, {"Accept": "*/*"})
        if answer.status != 200:
            raise _refused(answer, place)
        return answer.body

    return fetch


def _refused(answer: Answer, place: Place) -> EdgeKitError:
    what, hint = said(answer)
    if answer.status == 401:
        return EdgeKitError(f"not allowed: {what}", hint="say --token FILE, or set EDGEKIT_TOKEN")
    if answer.status == 404:
        hint = hint or "give the address that edgekit-runtime was started with as --admin, with --keep-samples"
    return EdgeKitError(f"{place} refuses: {what}", hint=hint or "look into its log")
