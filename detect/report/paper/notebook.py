"""A story's first page as a piece of HTML for notebooks (`_repr_html_`): its style reaches nothing around it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from detect.records.written import clean
from detect.report.runs import Runs, said, to_html
from detect.report.story import Story

_COLOURS = {"marked": "#0a8a66", "unmarked": "#7a8794", "refused": "#b87412"}  # to be read on light and on dark
_STYLE = Markup(
    "<style>.dyetrace { max-width: 56rem; line-height: 1.45 } "
    ".dyetrace-answer { border-left: 4px solid; padding: .4rem .9rem; margin: .5rem 0 } "
    ".dyetrace-answer strong { font-size: 1.15em } .dyetrace p { margin: .3rem 0; overflow-wrap: anywhere } "
    ".dyetrace dl { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: .6rem 0 } .dyetrace dt { opacity: .7 } "
    ".dyetrace dd { margin: 0; font-weight: 600 } .dyetrace dd span { font-weight: 400; opacity: .7 } "
    ".dyetrace li { overflow-wrap: anywhere }</style>"
)


def fragment(story: Story) -> str:
    """Draw the answer, its facts and the lists of sentences under it."""
    return f'<div class="dyetrace">{_STYLE}{_answer(story)}{_facts(story)}{_parts(story)}</div>'


def _answer(story: Story) -> Markup:
    lead = Markup("").join(Markup("<p>{}</p>").format(to_html(line)) for line in story.lead)
    headline = Markup("<p><strong>{}</strong></p>").format(_line(story.headline))
    answer = '<div class="dyetrace-answer" style="border-color: {}">{}{}</div>'
    return Markup(answer).format(_COLOURS[story.tone], headline, lead)


def _facts(story: Story) -> Markup:
    fact = Markup("<div><dt>{}</dt><dd>{} <span>{}</span></dd></div>")
    facts = [fact.format(*map(_line, (one.name, one.value, one.note))) for one in story.facts]
    return Markup("<dl>{}</dl>").format(Markup("").join(facts)) if facts else Markup()


def _parts(story: Story) -> Markup:
    return Markup("").join(
        Markup("<details><summary>{}</summary><ul>{}</ul></details>").format(_line(title), _items(lines))
        for title, lines in story.parts
    )


def _items(lines: Sequence[Runs]) -> Markup:
    return Markup("").join(Markup("<li>{}</li>").format(to_html(line)) for line in lines)


def _line(given: str) -> Markup:
    return to_html(said(clean(given), 600))
