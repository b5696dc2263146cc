"""How the numbers of a race readout came about, with formulas."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator, Sequence

from detect.race.bets import CLIP, PARTS, RAISES, RARE, SHARPNESS, STAKES, THETAS, bet_of
from detect.race.conclude import LOG10_CONTRADICTION
from detect.records.race import RaceRecord
from detect.report.method import papers, words
from detect.report.story import Leaf, formula, heading, text
from watermark.laws import Bernoulli

PAPERS = papers("Aaronson", "Bahadur", "Dathathri", "Kirchenbauer", "Shafer", "Ville", "Vovk")


def method(record: RaceRecord) -> list[Leaf]:
    """Write the method of this record's readout."""
    parts = (_chances, _choice, _places, _bets, _answers, _verdict, _hits, _accounts, _controls)
    return [block for part in parts for block in part(record)]


def _chances(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("The owner’s chances")
    yield text(
        "At each place in a served answer the owner’s model, which has read what stands before it, gives each of its "
        "likeliest words <i>v</i> a chance <i>p</i>(<i>v</i>), by the settings with which answers were drawn. "
        "They are computed anew for this readout, without the key, and stand in <code>race.npz</code>. Whatever they "
        "are, all that follows is exact; the nearer they are to those at serving, the more it sees."
    )


def _choice(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("What the key chose")
    spec = record.spec
    yield words(
        spec,
        "Null hypothesis: the suspect never learnt from anything that depends on these words. Then, given all that was "
        "shown to it, the words of a context that is used for the first time are as good as newly drawn, and whatever "
        "the suspect says has no part in them.",
    )
    law = spec.build_scheme().law
    if spec.scheme == "gumbel":
        yield text(
            "Scheme <code>gumbel</code> chooses the word that wins a race in which each runs for the time −ln "
            "<i>u</i><sub><i>v</i></sub> / <i>p</i>(<i>v</i>) (Aaronson 2022). It wins with the chance <i>p</i>("
            "<i>v</i>). So <i>K</i>(<i>v</i>) is 1 for it and 0 for all others:"
        )
        yield formula("<i>v</i>* = argmax<sub><i>v</i></sub> ln(<i>u</i><sub><i>v</i></sub>) / <i>p</i>(<i>v</i>)")
    elif isinstance(law, Bernoulli):
        yield text(
            "Scheme <code>$name</code> makes words of a green list likelier, on which a share of γ = $gamma of all "
            "words is (Kirchenbauer et al. 2023). <i>g</i><sub><i>v</i></sub> being 1 for a green word and 0 for "
            "another, and e<sup><i>ω</i></sup> how much likelier a word of the chance <i>p</i>(<i>v</i>) that was said "
            "is to be green than any word,",
            name=spec.scheme,
            gamma=f"{law.gamma:.6g}",
        )
        yield formula(
            "<i>K</i>(<i>v</i>) = <i>p</i>(<i>v</i>) e<sup><i>ω g</i><sub><i>v</i></sub></sup> / (1 − γ + γ e<sup>"
            "<i>ω</i></sup>)"
        )
    else:
        yield text(
            "Scheme <code>$name</code> lets words that are drawn by <i>p</i> play a tournament, layer by layer, by "
            "bits of their words (Dathathri et al. 2024). <i>K</i>(<i>v</i>) is the chance that <i>v</i> comes out of "
            "it under this key.",
            name=spec.scheme,
        )
    yield text(
        "Over the draw of the key the mean of <i>K</i>(<i>v</i>) is <i>p</i>(<i>v</i>), or less where numbers are "
        "rounded, which the bets allow for. Where it is not on record which sub-key marked an answer, each may have, "
        "and an answer’s bets are averaged over all of them."
    )


def _places(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("The places")
    chosen = {
        "weights": "All such places were read, as long as a tested key marks them.",
        "prompt-logprobs": "All such places of an answer come with one request.",
        "echo": "All such places of an answer come with one request.",
    }.get(
        record.ask,
        "Each request asks for one word. So in every answer the first few of these places were asked where the chances "
        "are spread, that is where 1 − Σ <i>p</i>(<i>v</i>)<sup>2</sup> is above a number that was fixed before. An "
        "answer is gone on with as long as the bets on it win, which rests on places before alone: to leave it is no "
        "more than to stake nothing on its later places.",
    )
    yield text(
        "A context counts once under the key that marks it, where it is used for the first time in all answers in the "
        "order of serving: what the suspect was shown then holds nothing that the key chose for it. What comes after a "
        "place has no say in whether it is asked, nor has the length of an answer or the number of answers. "
        f"{chosen}"
    )


_STAKED = "1 − <i>w</i> + <i>w</i>"
_WEIGHED = (
    "<i>e</i> = Σ<sub><i>v</i></sub> <i>K</i>(<i>v</i>) <i>h</i>(<i>v</i>) / Σ<sub><i>v</i></sub> <i>p</i>(<i>v</i>) "
    "<i>h</i>(<i>v</i>)"
)


def _bets(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("The bets")
    yield from {"words": _on_words, "known": _on_known, "whole": _on_all}[bet_of(record.ask)](record)
    yield text(
        "Over the draw of the key the mean of <i>e</i> is 1 at most, whatever the suspect says (Shafer 2021). The "
        "values share the first stake evenly."
    )


def _on_words(record: RaceRecord) -> Iterator[Leaf]:
    yield text(
        "The suspect’s likeliest word is <i>y</i>. Of each word <i>v</i> it is reckoned how likely a suspect says "
        "<i>y</i> if the key chose <i>v</i>, and learnt from it: by the owner’s chances, sharpened to <i>s</i>, "
        "which is <i>p</i><sup><i>κ</i></sup> but for a factor, with <i>κ</i> = $kappa, and the odds of <i>v</i> "
        "raised by e<sup><i>β</i></sup>:",
        kappa=f"{SHARPNESS[record.ask]:g}",
    )
    yield formula(
        f"{_WEIGHED}, \N{EM SPACE}<n><i>h</i>(<i>y</i>) = <i>s</i>(<i>y</i>) e<sup><i>β</i></sup> / (1 − <i>s</i>"
        "(<i>y</i>) + <i>s</i>(<i>y</i>) e<sup><i>β</i></sup>),</n> <n>else <i>h</i>(<i>v</i>) = <i>s</i>(<i>y</i>) / "
        "(1 − <i>s</i>(<i>v</i>) + <i>s</i>(<i>v</i>) e<sup><i>β</i></sup>)</n>"
    )
    yield from _usual(record, "<i>s</i> is made of <i>r</i> in the same way")
    yield text("<i>β</i> has the values $grid.", grid=_grid(RAISES))


def _on_known(_: RaceRecord) -> Iterator[Leaf]:
    yield text(
        "The suspect’s chances <i>q</i>(<i>v</i>) are known of some words. A bettor stakes the part <i>w</i>, spread "
        "over these by <i>q</i>, and keeps the rest; what is not known of <i>q</i> counts nothing:"
    )
    yield formula(
        f"<i>e</i> = {_STAKED} Σ<sub><i>v</i></sub> <i>K</i>(<i>v</i>) <i>q</i>(<i>v</i>) / <i>p</i>(<i>v</i>)"
    )
    yield text("<i>w</i> has the values $grid.", grid=_grid(STAKES))


def _usual(record: RaceRecord, how: str) -> Iterator[Leaf]:
    if record.reference is not None:
        yield text(
            "The reference’s chances <i>r</i>(<i>v</i>) stand for what the suspect would say anyway: where they are "
            f"known, {how}. They are made without the key, so that the mean of <i>e</i> stays 1 at most."
        )


def _on_all(record: RaceRecord) -> Iterator[Leaf]:
    yield text(
        "The suspect’s chances <i>q</i>(<i>v</i>) of the words are known. A bettor stakes more on words that the "
        "suspect finds likelier than the owner does, and less so where they are rare:"
    )
    yield formula(
        f"{_WEIGHED}, \N{EM SPACE}<n><i>h</i> = exp(<i>θ</i> max(0, 1 + ln(<i>p</i>) / $rare) clip(ln(<i>q</i> / "
        "<i>p</i>), −$most, $most))</n>",
        most=f"{CLIP:g}",
        rare=f"{RARE:g}",
    )
    yield from _usual(record, "ln(<i>q</i> / <i>r</i>) stands for ln(<i>q</i> / <i>p</i>)")
    yield text("<i>θ</i> has the values $grid.", grid=_grid(THETAS))


def _grid(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _answers(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("Few of many answers")
    yield text(
        "A suspect may have learnt from few of the answers. So for each bet the products <i>E</i><sub><i>d</i></sub> "
        "over the places of single answers are put together in several ways as well, in each of which but the part "
        "<i>π</i> of what there is goes on an answer:"
    )
    yield formula("Π<sub><i>d</i></sub> (1 − <i>π</i> + <i>π</i> <i>E</i><sub><i>d</i></sub>)")
    yield text(
        "<i>π</i> has the values $grid; with 1 it is the plain product over all places. The evidence is the mean over "
        "all of these. The answer that is being read counts with its product so far.",
        grid=_grid(PARTS),
    )


def _verdict(_: RaceRecord) -> Iterator[Leaf]:
    yield heading("The verdict")
    yield text(
        "Place after place in the order of serving this is a test supermartingale: the chance that it ever reaches 1/α "
        "under the null hypothesis is at most α (Ville 1939), whatever made one stop. So <i>p</i> = min(1, 1/"
        "<i>e</i>). In this report p-values are rounded up and e-values down."
    )


def _hits(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("Hits")
    yield text(
        "The number of hits beside the bets is Σ <i>K</i>(<i>y</i>) over the suspect’s likeliest words <i>y</i>, and "
        "by chance it is Σ <i>p</i>(<i>y</i>)."
    )
    if any(found.log10_pvalue is not None for found in record.hypotheses):
        yield text(
            "The tail of the number of hits is that of a sum of independent events with these chances, brought into "
            "the bulk by exponential tilting (Bahadur and Ranga Rao 1960). It would be exact had the places and their "
            "chances been fixed beforehand. Both go by the words before, so no verdict rests on it."
        )


def _accounts(record: RaceRecord) -> Iterator[Leaf]:
    if not record.accounts:
        return
    yield heading("Accounts")
    both = (
        "A keyed bit of each context says whether the global key or the account’s own marks it. "
        if 0 < record.spec.global_share < 1
        else ""
    )
    yield text(
        f"{both}The verdict bets on all places together, each under the key that marks it. The same bets run on an "
        "account’s own places alone, and their e-value is divided by the number of accounts, $n. An account is named "
        "where that reaches 1/α, which holds whoever else is guilty (Vovk and Wang 2021).",
        n=len(record.accounts),
    )


def _controls(record: RaceRecord) -> Iterator[Leaf]:
    yield heading("Controls")
    decoys = record.controls
    if not decoys.decoy_log10_evalues:
        yield text("No decoy keys were run, so this report holds no check of its own e-values.")
        return
    yield text(
        "The same bets ran under $n keys derived from the public seed <code>$seed</code>. They are as independent of "
        "the suspect as the true key is under the null hypothesis, so that the mean of their e-values is an e-value "
        "itself, 1 or less on average. From $limit on the result is refused.",
        n=len(decoys.decoy_log10_evalues),
        seed=decoys.decoy_seed,
        limit=f"{10**LOG10_CONTRADICTION:,.0f}",
    )
