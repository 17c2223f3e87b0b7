"""What a build found, as plain facts for machines, and the same facts as one HTML page for people.

Refuses nothing; says "not measured" where something was not."""

from importlib.resources import files
from string import Template

from edgekit.report.answers import classes, confusion, differing
from edgekit.report.card import card
from edgekit.report.costs import details, drops, head, tried
from edgekit.report.facts import as_json
from edgekit.report.grounds import again, calibration, open_ends, watched
from edgekit.report.insides import latency, layers, scored
from edgekit.report.parts import text
from edgekit.report.words import Facts, agreement_words, latency_words, megabytes, quality_words, titled

__all__ = ["agreement_words", "as_json", "card", "latency_words", "megabytes", "page", "quality_words"]

PARTS = (
    tried, drops, classes, confusion, differing, layers, latency, scored, calibration, watched, details,
    open_ends, again,
)  # fmt: skip


def page(facts: Facts) -> str:
    """One HTML page: no script, nothing that is fetched, every word of the facts escaped."""
    template = Template(files("edgekit.report").joinpath("page.html").read_text(encoding="utf-8"))
    sections = [section for section in (part(facts) for part in PARTS) if section.body]
    return template.substitute(
        title=text(titled(facts)),
        head=head(facts),
        links="".join(f'<a href="#{one.id}">{text(one.title)}</a>' for one in sections),
        sections="".join(section.html() for section in sections),
    )
