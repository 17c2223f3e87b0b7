"""Text of others as a terminal may see it: what it would obey is written out.

Refuses nothing."""


def safe(text: str) -> str:
    """`text` without what a terminal would obey; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
