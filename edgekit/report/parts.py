"""The pieces that every part of the page is made of: sections, tables, lists, folds, tags.

Refuses to pass anything on as markup that was not made as markup: plain values are escaped here."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.words import NONE, VERDICTS, Facts, number

FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """One part of the page. `note` says how to read it; a section without a body is left out."""

    id: str
    title: str
    note: str
    body: str

    def html(self) -> str:
        """The section as HTML."""
        return (
            f'<section id="{self.id}" aria-labelledby="{self.id}-h">'
            f'<header><h2 id="{self.id}-h">{text(self.title)}</h2>'
            f"<p>{text(self.note)}</p></header><div>{self.body}</div></section>"
        )


def text(value: Any) -> Markup:
    """A value as HTML text; `Markup` is left as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(NONE if value is None or value == "" else html.escape(str(value)))


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]], label: str, css: str = "") -> Markup:
    """A table that scrolls inside its frame; the first cell of every row is its heading."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
        if row
    )
    return Markup(
        f'<div class="wide" role="region" aria-label="{text(label)}" tabindex="0"><table class="{css}">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def strips(head: Sequence[Any], rows: Sequence[Sequence[Any]], label: str) -> Markup:
    """A table of three columns (name, drawing, numbers) that becomes a stack on a narrow screen."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return Markup(
        f'<table class="strips" aria-label="{text(label)}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    )


def folded(summary: str, body: str) -> Markup:
    """What is there for who wants it."""
    return Markup(f"<details><summary>{text(summary)}</summary>{body}</details>" if body else "")


def bullets(lines: Sequence[Any]) -> Markup:
    """A list of lines, the empty ones left out."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines if line)
    return Markup(f"<ul>{items}</ul>" if items else "")


def pairs(facts: Mapping[str, Any]) -> Markup:
    """Names and values; lists with commas, nothing for what is unknown."""

    def words(value: Any) -> Any:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}"
        if isinstance(value, float):
            return NONE if number(value) is None else f"{value:.4g}"
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    rows = "".join(
        f"<dt>{text(name)}</dt><dd>{text(words(value))}</dd>"
        for name, value in facts.items()
        if value is not None and value != "" and value != []
    )
    return Markup(f"<dl>{rows}</dl>" if rows else "")


def tag(verdict: Any) -> Markup:
    """A verdict as a word with a sign, so that colour is not all that tells."""
    sign, words = VERDICTS.get(str(verdict), ("·", str(verdict)))
    css = str(verdict) if str(verdict) in VERDICTS else "refused"
    return Markup(f'<span class="tag {css}"><b aria-hidden="true">{sign}</b> {text(words)}</span>')


def family(one: Facts) -> str:
    """The class that gives a candidate its colour and shape: its format, or `other`."""
    told = str(one.get("format"))
    return told if told in FORMATS else "other"


def code(value: Any) -> Markup:
    """A fingerprint or a file name."""
    return Markup(f"<code>{text(value)}</code>")
