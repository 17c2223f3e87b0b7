"""What becomes of a signed bundle that somebody changed: every byte flipped, files moved, signatures made up.

Refuses nothing; ends with 1 where a changed bundle was let in, or was refused for another reason than it should be."""

import base64
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import MANIFEST
from edgekit_runtime.errors import Untrusted
from edgekit_runtime.keypair import new_private_key
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.verified import Rules, open_verified

from tests.runtime.bundles import make_bundle
from tests.runtime.signing import bytes_of, in_memory, relisted, rules, sign_folder, trusting

Data = Mapping[str, bytes]
ENVELOPE = frozenset({"signature", "wrong_key"})


@dataclass(frozen=True)
class Class:
    """One way to tamper: what is done, each bundle that comes of it, and the reasons that are right."""

    what: str
    made: Callable[[], Iterator[Data]]
    reasons: frozenset[str]


@dataclass(frozen=True)
class Found:
    """What became of a class: how many were tried, why they were refused, and how many were let in."""

    what: str
    tried: int
    why: Mapping[str, int]
    wrong: int


def classes(good: Data, older: Data) -> list[Class]:
    """All ways, over a bundle and an older one by the same key."""
    files = [name for name in sorted(good) if name != SIGNATURE]
    listed = [name for name in files if name != MANIFEST]
    ways = [Class(f"each byte of {name} flipped", _flips(good, name), _only("touched")) for name in files]
    ways += [
        Class(f"each byte of {SIGNATURE} flipped", _flips(good, SIGNATURE), ENVELOPE),
        Class(f"each byte of {SIGNATURE} removed", _cuts(good, SIGNATURE), ENVELOPE),
        Class("each byte of what was signed flipped", _payloads(good), _only("signature")),
        Class("each byte of the signature itself flipped", _values(good), _only("signature")),
        Class("another hint, type, or media type", _structures(good), ENVELOPE),
        Class("a file cut short, emptied, or longer", _sizes(good, files), _only("touched")),
        Class("a file added", _edits([{**good, name: b"x"} for name in (".hidden", "sub/a.bin", ".git/config")]),
              _only("unlisted")),
        Class("a file removed", _edits([_without(good, name) for name in files]), _only("missing")),
        Class("a file renamed", _edits([{**_without(good, name), f"{name}x": good[name]} for name in files]),
              _only("unlisted")),
        Class("two files swapped", _edits([{**good, a: good[b], b: good[a]} for a in listed for b in listed if a < b]),
              _only("touched")),
        Class("the signature removed", _edits([_without(good, SIGNATURE)]), _only("unsigned")),
        Class("an older manifest, the new signature", _edits([{**good, MANIFEST: older[MANIFEST]}]), _only("touched")),
        Class("an older signature, the new manifest", _edits([{**good, SIGNATURE: older[SIGNATURE]}]),
              _only("touched")),
        Class("an older bundle, whole, with its own signature", _edits([older]), _only("downgrade")),
    ]  # fmt: skip
    return ways


def tried(way: Class, by: Rules) -> Found:
    """What becomes of every bundle of one class."""
    why: Counter[str] = Counter()
    for data in way.made():
        try:
            open_verified(in_memory(data), by).close()
            why["LET IN"] += 1
        except Untrusted as error:
            why[error.reason] += 1
    return Found(way.what, why.total(), why, sum(count for reason, count in why.items() if reason not in way.reasons))


def table(folder: Path) -> list[Found]:
    """All classes, on a small real bundle that is made in `folder`."""
    root, key = new_private_key(), new_private_key()
    new = sign_folder(relisted(make_bundle(folder / "new"), release=2), key)
    old = sign_folder(relisted(make_bundle(folder / "old"), release=1), key)
    by = rules(trusting(root, bench=key), floor=2)
    open_verified(in_memory(bytes_of(new)), by).close()  # untouched, it is let in
    return [tried(way, by) for way in classes(bytes_of(new), bytes_of(old))]


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        found = table(Path(folder))
    sys.stdout.write(f"{'done to a signed bundle':<48} {'tried':>6} {'let in':>6}  refused as\n")
    for row in found:
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(row.why.items()) if reason != "LET IN")
        sys.stdout.write(f"{row.what:<48} {row.tried:>6} {row.why.get('LET IN', 0):>6}  {why}\n")
    wrong = sum(row.wrong for row in found)
    sys.stdout.write(f"{sum(row.tried for row in found)} changed bundles, {wrong} not refused as they should be\n")
    return 1 if wrong else 0


def _flips(good: Data, name: str) -> Callable[[], Iterator[Data]]:
    """One bit of each byte in turn, not always the same one."""

    def made() -> Iterator[Data]:
        for at in range(len(good[name])):
            yield {**good, name: _flipped(good[name], at)}

    return made


def _cuts(good: Data, name: str) -> Callable[[], Iterator[Data]]:
    def made() -> Iterator[Data]:
        for at in range(len(good[name])):
            yield {**good, name: good[name][:at] + good[name][at + 1 :]}

    return made


def _payloads(good: Data) -> Callable[[], Iterator[Data]]:
    return _inside(good, lambda envelope: envelope, "payload")


def _values(good: Data) -> Callable[[], Iterator[Data]]:
    return _inside(good, lambda envelope: envelope["signatures"][0], "sig")


def _inside(good: Data, find: Callable[[Any], Any], key: str) -> Callable[[], Iterator[Data]]:
    """One bit of each byte of a base64 field, whose base64 is right."""

    def made() -> Iterator[Data]:
        whole = base64.b64decode(find(json.loads(good[SIGNATURE])["dsseEnvelope"])[key])
        for at in range(len(whole)):
            raw = json.loads(good[SIGNATURE])
            find(raw["dsseEnvelope"])[key] = base64.b64encode(_flipped(whole, at)).decode()
            yield {**good, SIGNATURE: json.dumps(raw).encode()}

    return made


def _structures(good: Data) -> Callable[[], Iterator[Data]]:
    """The parts of the signature file told otherwise, each part of the right kind."""

    def made() -> Iterator[Data]:
        for change in (
            lambda raw: raw.update(mediaType="application/vnd.dev.sigstore.bundle.v0.2+json"),
            lambda raw: raw["verificationMaterial"]["publicKey"].update(hint="0" * 64),
            lambda raw: raw["verificationMaterial"].update(tlogEntries=[{"logIndex": "1"}]),
            lambda raw: raw["dsseEnvelope"].update(payloadType="application/vnd.edgekit.trust+json"),
            lambda raw: raw["dsseEnvelope"].update(signatures=[]),
            lambda raw: raw["dsseEnvelope"].update(signatures=raw["dsseEnvelope"]["signatures"] * 2),
            lambda raw: raw["dsseEnvelope"]["signatures"][0].update(sig=""),
            lambda raw: raw.update(more={}),
        ):
            raw = json.loads(good[SIGNATURE])
            change(raw)
            yield {**good, SIGNATURE: json.dumps(raw).encode()}

    return made


def _sizes(good: Data, files: list[str]) -> Callable[[], Iterator[Data]]:
    def made() -> Iterator[Data]:
        for name in files:
            for changed in (good[name][:-1], good[name][1:], b"", good[name] + b"\0", b"\0" + good[name]):
                yield {**good, name: changed}

    return made


def _edits(made: list[dict[str, bytes]]) -> Callable[[], Iterator[Data]]:
    return lambda: iter(made)


def _without(good: Data, name: str) -> dict[str, bytes]:
    return {other: data for other, data in good.items() if other != name}


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def _only(reason: str) -> frozenset[str]:
    return frozenset({reason})


if __name__ == "__main__":
    sys.exit(main())
