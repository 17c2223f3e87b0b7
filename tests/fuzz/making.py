"""Inputs for parsers, made by hypothesis: values near what is wanted, and whole texts with a few bytes wrong.

Refuses nothing. `FUZZ_SECONDS` in the environment has `fuzz` go on with new random inputs for so long."""

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = 150
SLOWEST = 5.0
"""Seconds that one small input may take: past that, a parser hangs."""
BOUNDED = settings(
    derandomize=True, deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(deadline=None, max_examples=2000, database=None, suppress_health_check=list(HealthCheck))

ODD = [0, 1, -1, 2, 3, 4, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64, 10**30, 1.5, -0.0, 1e308]
ODD += [float("nan"), float("inf"), True, False, None, "", "x", "\x00", "\ud800", "\u202e", "x" * 300, [], {}, [[]]]
TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"-", b"0x1"]
TOKENS += [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"--", b"[" * 500, b'{"a":' * 300, b"9" * 5000, b"null"]


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    """`check` every input of a fixed set, then of random ones while FUZZ_SECONDS last."""

    def one(value: Any) -> None:
        began = time.monotonic()
        check(value)
        assert time.monotonic() - began < SLOWEST, "it hangs"

    BOUNDED(given(strategy)(one))()
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "0"))
    while time.monotonic() < end:
        seed(random.getrandbits(32))(LONG(given(strategy)(one)))()


def only_ours(call: Callable[[], Any]) -> Any:
    """What `call` gives; None where it refuses with an error of ours. Any other error goes on up."""
    try:
        return call()
    except EdgeKitError as caught:
        error = caught
    assert 0 < len(error.what) < 4000, "an error that says nothing, or is as long as the input"
    return None


def values(words: Sequence[str]) -> st.SearchStrategy[Any]:
    """JSON values; `words` come often as keys and strings."""
    word = st.sampled_from(list(words))
    leaves = st.one_of(st.sampled_from(ODD), word, st.integers(), st.floats(), st.text(max_size=8))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.one_of(word, st.text(max_size=4)), inner, max_size=5)
        ),
        max_leaves=12,
    )


def changed(good: Any, words: Sequence[str]) -> st.SearchStrategy[Any]:
    """A good JSON value in which up to three places hold something else, are gone or are there twice."""

    @st.composite
    def made(draw: st.DrawFn) -> Any:
        value = json.loads(json.dumps(good))
        for _ in range(draw(st.integers(0, 3))):
            value = _changed_once(draw, value, words)
        return value

    return made()


def _changed_once(draw: st.DrawFn, value: Any, words: Sequence[str]) -> Any:
    holder: list[Any] = [value]
    at: tuple[Any, Any] = (holder, 0)
    while True:  # walk down to some place
        inside = at[0][at[1]]
        keys = (
            list(inside) if isinstance(inside, dict) else list(range(len(inside))) if isinstance(inside, list) else []
        )
        if not keys or (draw(st.booleans()) and draw(st.booleans())):
            break
        at = (inside, draw(st.sampled_from(keys)))
    what = draw(st.sampled_from(["put", "put", "put", "drop", "more", "nest"]))
    if what == "drop" and at[0] is not holder:
        del at[0][at[1]]
    elif what == "more" and isinstance(at[0][at[1]], list):
        at[0][at[1]] = at[0][at[1]] * draw(st.sampled_from([0, 2, 3]))
    elif what == "nest":
        at[0][at[1]] = [at[0][at[1]]]
    else:
        at[0][at[1]] = draw(values(words))
    return holder[0]


def damaged(good: Sequence[bytes], most: int = 4) -> st.SearchStrategy[bytes]:
    """One of `good` with up to `most` cuts, copies, flips or insertions."""

    @st.composite
    def made(draw: st.DrawFn) -> bytes:
        text = draw(st.sampled_from(list(good)))
        for _ in range(draw(st.integers(0, most))):
            start = draw(st.integers(0, len(text)))
            length = draw(st.sampled_from([0, 1, 2, 8, 64]))
            piece = draw(st.one_of(st.sampled_from([*TOKENS, b""]), st.binary(max_size=8)))
            how = draw(st.sampled_from(["put", "cut", "copy", "end"]))
            if how == "put":
                text = text[:start] + piece + text[start + length :]
            elif how == "cut":
                text = text[:start] + text[start + length :]
            elif how == "copy":
                text = text[:start] + text[start : start + length] * 3 + text[start:]
            else:
                text = text[:start]
        return text

    return made()


def texts(good: Any, words: Sequence[str]) -> st.SearchStrategy[bytes]:
    """JSON texts: of changed values, of any values, and with damaged bytes."""
    dumped = st.one_of(changed(good, words), values(words)).map(_dumped)
    return st.one_of(dumped, dumped, damaged([_dumped(good)]), st.binary(max_size=60))


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()
