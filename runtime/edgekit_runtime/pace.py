"""Whether a model is quick: learned from each run, by the bytes that it was given.

Refuses nothing; a model that was slow once is not taken for quick until it has been quick many times."""

QUICK_NS = 500_000
"""A run below this is shorter than handing it to a thread and back is worth, and delays nobody."""
LONG_NS = 20 * QUICK_NS
"""A run that long is no hiccup of the machine: the model is not quick for all inputs."""
TRUST = 100
"""After such a run, so many quick ones in a row make it quick again."""


class Pace:
    """What a model's runs took so far. One thread at a time may call it."""

    def __init__(self) -> None:
        self._bytes = 0
        self._ns = 0.0
        self._doubts = 0

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
            self._bytes, self._doubts = 0, TRUST
            return
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
