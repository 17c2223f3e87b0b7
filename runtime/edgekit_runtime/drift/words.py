"""What a feature is called on a page: a few words for a person. Pure.

Refuses nothing: a name that is not known stands as it is."""

WORDS = {
    "not_finite": "share of values that are no numbers",
    "zeros": "share of zeros",
    "mean": "mean of the values",
    "std": "spread of the values",
    "brightness": "brightness of the image",
    "contrast": "contrast of the image",
    "dark": "share of dark pixels",
    "bright": "share of bright pixels",
    "top_bottom": "how much brighter the upper half is",
    "left_right": "how much brighter the left half is",
    "sharpness": "sharpness of the image",
    "orientation": "edges across or down",
    "first_colour": "weight of the first colour",
    "last_colour": "weight of the last colour",
    "length": "length of the text",
    "unknown": "share of unknown words",
    "variety": "share of different tokens",
    "token_mean": "mean number of the tokens",
    "token_spread": "spread of the tokens' numbers",
    "token_steps": "steps between the numbers of neighbouring tokens",
    "not_ascii": "share of characters beyond ASCII",
    "digits": "share of digits",
    "capitals": "share of capital letters",
    "class": "predicted class",
    "confidence": "lead of the best class",
    "entropy": "indecision between classes",
    "output_zeros": "share of zeros in the output",
    "output_not_finite": "share of output values that are no numbers",
    "output_mean": "mean of the output",
    "output_std": "spread of the output",
}
NUMBERED = {
    "mean": "level of channel",
    "std": "spread of channel",
    "range": "range of channel",
    "band": "energy in frequency band",
    "value": "column",
    "output": "output",
}


def words(name: str) -> str:
    """The words for a feature's name; counting starts at 1 for a person."""
    what, of, tensor = name.partition(" of ")
    if what in WORDS:
        return WORDS[what] + of + tensor
    kind, _, number = what.rpartition("_")
    if kind in NUMBERED and number.isdecimal() and len(number) < 4:
        return f"{NUMBERED[kind]} {int(number) + 1}{of}{tensor}"
    return name
