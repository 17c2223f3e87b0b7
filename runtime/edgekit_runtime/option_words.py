"""The words of options as values: numbers, shares, ports, hosts.

Refuses words that are none, saying what to write."""

import argparse


def whole(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def wholes(text: str) -> tuple[int, ...]:
    """Some of them."""
    try:
        return tuple(whole(item) for item in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} does not read: write whole numbers, like 4,8") from error


def port(text: str) -> int:
    """A port, 0 for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write a number from 0 to 65535")
    return int(text)


def host(text: str) -> str:
    """A name or an IP address; an IPv6 address may stand in brackets."""
    import ipaddress

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if not text or ":" in text or "/" in text or "[" in text:
            raise argparse.ArgumentTypeError(f"{text!r} is not a host: write --host 0.0.0.0 --port 8000") from None
        return text


def number(text: str) -> float:
    """A number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more: write it without a unit")
    return value


def share(text: str) -> float:
    """A part of a whole, from 0 to 1."""
    value = number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: write a number from 0 to 1")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
