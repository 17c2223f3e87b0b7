"""Whether a model is quick: learned from each run, by the bytes that it was given.

Refuses nothing; a model that was slow is not taken for quick until it has been quick some times in a row, and the more
often it was slow of late, the more times."""

QUICK_NS = 500_000
"""A run below this is shorter than handing it to a thread and back is worth, and delays nobody."""
LONG_NS = 20 * QUICK_NS
"""A run that long may be the machine's doing once; if it comes again, the model is not quick for all inputs."""
TRUST = (10, 30, 100)
"""After the first, second or third such run of late, so many quick ones make it quick again."""
FORGIVEN = 10_000
"""After so many runs that are not that long, one such run is forgotten."""


class Pace:
    """What a model's runs took so far. One thread at a time may call it."""

    def __init__(self) -> None:
        self._bytes = 0
        self._ns = 0.0
        self._doubts = self._strikes = self._since = 0

    @property
    def quick(self) -> bool:
        """Whether it is quick for inputs of some size."""
        return self._bytes > 0

    def fits(self, size: int) -> bool:
        """Whether it is quick for inputs of so many bytes."""
        return 0 < size <= self._bytes

    def learn(self, size: int, took: int) -> None:
        """A run on so many bytes took so many nanoseconds; once runs of a size are not quick any more, begin anew."""
        if took > LONG_NS:
            self._bytes, self._doubts, self._since = 0, TRUST[self._strikes], 0
            self._strikes = min(self._strikes + 1, len(TRUST) - 1)
            return
        if self._strikes:
            self._since += 1
            if self._since >= FORGIVEN:
                self._strikes, self._since = self._strikes - 1, 0
        self._doubts = max(0, self._doubts - 1) if took < QUICK_NS else self._doubts
        if self._doubts:
            return
        if size > self._bytes:
            if took < QUICK_NS:
                self._bytes, self._ns = size, float(took)
            return
        self._ns += (min(took, 2 * QUICK_NS) - self._ns) * 0.1  # one hiccup of the machine is no news
        if self._ns > QUICK_NS:
            self._bytes = 0
