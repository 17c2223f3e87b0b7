"""What a feature is called on a page: a few words for a person. Pure.

Refuses nothing: a name that is not known stands as it is."""

WORDS = {
    "not_finite": "missing or broken values",
    "zeros": "share of zeros",
    "mean": "average value",
    "std": "spread of the values",
    "brightness": "brightness of the image",
    "contrast": "contrast of the image",
    "dark": "share of dark pixels",
    "bright": "share of bright pixels",
    "top_bottom": "brighter above than below",
    "left_right": "brighter left than right",
    "sharpness": "sharpness of the image",
    "orientation": "direction of edges",
    "first_colour": "strength of the first colour channel",
    "last_colour": "strength of the last colour channel",
    "length": "length of the text",
    "unknown": "share of unknown words",
    "variety": "variety of the words",
    "token_mean": "average number of a token",
    "token_spread": "spread of the tokens' numbers",
    "token_steps": "jumps between neighbouring tokens' numbers",
    "not_ascii": "share of characters beyond plain ASCII",
    "digits": "share of digits",
    "capitals": "share of capital letters",
    "class": "predicted class",
    "confidence": "how sure the model is",
    "entropy": "how undecided the model is",
    "output_zeros": "share of zeros in the output",
    "output_not_finite": "missing or broken values in the output",
    "output_mean": "average of the output",
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
