"""What a true label that is told says: the word and the class that a model has for it. Pure.

Refuses a label that the model does not have, and one that is no line."""

from collections.abc import Sequence

from edgekit_runtime.errors import BadRequest

LONGEST_LABEL = 200
NAMED = 20
"""Labels that a refusal names."""


def read_label(label: str | int, known: Sequence[str]) -> tuple[str, int | None]:
    """The word and the class of a label that was told: by its word, or by its number."""
    if isinstance(label, str) and label in known:
        return label, known.index(label)
    number = _number(label)
    if known:
        if number is not None and 0 <= number < len(known):
            return known[number], number
        more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
        named = ", ".join(word[:40] for word in known[:NAMED])
        raise BadRequest("the model has no such label", hint=f"say one of {named}{more}, or its number from 0")
    if number is not None and not 0 <= number < 10**9:
        raise BadRequest("no such class", hint="number the classes from 0")
    word = str(label)
    if not word or len(word) > LONGEST_LABEL or not word.isprintable():
        raise BadRequest(
            f"a label is a line of at most {LONGEST_LABEL} characters", hint="say the label, or its number"
        )
    return word if number is None else str(number), number


def _number(label: str | int) -> int | None:
    """The class that a label names by its number; None where it is a word."""
    if isinstance(label, int):
        return label
    return int(label) if label.isascii() and label.isdigit() and len(label) < 10 else None


def uneven(labels: int, rows: int) -> BadRequest:
    """The refusal of more or fewer labels than a request had rows."""
    said = f"{labels} label{'s' if labels != 1 else ''} for a request of {rows} row{'s' if rows != 1 else ''}"
    return BadRequest(said, hint='send "label": [...] with a label for each row, in the order of the rows')
