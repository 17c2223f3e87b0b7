"""Machines as text: the files of /proc and /sys that such a machine has, with their units and oddities, for a test.

Refuses nothing. The names are those of the kernels' sources and of published readings. `== path` begins
a file, `== path -> target` is a link, and `== path !` is one that does not read."""

from pathlib import Path

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in HERE.glob("*.txt")))


def machine(name: str, root: Path) -> Path:
    """The machine under `root`, which it makes."""
    for block in ("\n" + (HERE / f"{name}.txt").read_text()).split("\n== ")[1:]:
        head, _, body = block.partition("\n")
        path, _, link = head.partition(" -> ")
        place = root / path.removesuffix(" !")
        place.parent.mkdir(parents=True, exist_ok=True)
        if link:
            place.symlink_to(link)
        elif head.endswith(" !"):
            place.mkdir()  # to read it fails, as root too
        else:
            place.write_text(body.rstrip("\n") + ("\0" if path.endswith("/model") else "\n"))
    return root
