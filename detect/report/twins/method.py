"""How the numbers of a test by twins came about, with formulas."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator

from detect.records.twins import TwinRecord
from detect.records.written import percent
from detect.report.method import papers
from detect.report.runs import listed, runs
from detect.report.story import Leaf, formula, heading, text
from detect.twins.experts import IDLE_WEIGHT, LEADING_WEIGHT, LEARNERS_WEIGHT, WIN_CHANCES

PAPERS = papers("Clopper", "Fisher", "Grünwald", "MacKay", "Shafer", "Ville", "Vovk")


def method(record: TwinRecord) -> list[Leaf]:
    """Write the method of this record's test."""
    parts = (_coin, _differences, _bets, _sign_test, _law, _accounts, _share, _together)
    return [block for part in parts for block in part(record)]


def _coin(record: TwinRecord) -> Iterator[Leaf]:
    yield heading("The coin")
    if record.level == "withheld":
        yield text(
            "For a share of its requests the owner’s server drew two answers from the same model under the same "
            "settings and delivered one of them. Which one is the lowest bit of HMAC-SHA-256 of a random number under "
            "a secret key, and was settled before either answer existed. The other answer was kept and shown to nobody."
        )
    else:
        yield text(
            "The owner’s server had delivered one answer to each request. The same model under the same settings has "
            "now drawn a second one. If both follow one law, each of the two might as well have been the delivered "
            "one, as if by a coin. Whether they do is what the law test looks at."
        )
    yield text(
        "A pair’s two answers are put in an order by a hash, in which the coin has no part. Its sign <i>s</i> is 1 "
        "where the first of them was delivered and −1 where the second was. Null hypothesis: the suspect never learnt "
        "from anything that depends on these coins. Then, given both answers, all that the suspect says of them and "
        "all earlier pairs with their coins, <i>s</i> is a fair coin."
    )


def _differences(record: TwinRecord) -> Iterator[Leaf]:
    yield heading("What is compared")
    how = {
        "answers": "The suspect answers the pair’s prompt freely, and each number says how much more like the first "
        "answer than like the second one its words are. The leading number counts words in a row that it shares with "
        "one of the two and would hardly have said without having learnt them, by weights that were fixed before.",
        "parting": "The suspect is asked how a beginning of an answer goes on: where the two answers part, and at "
        "later places of each where the owner’s own model would have gone on in another way. Each number counts the "
        "turns of the first answer that it takes, less those of the second.",
        "logprobs": "Each number is how likely the suspect finds the first answer after the prompt (the mean or the "
        "sum of its tokens’ log-probabilities), less the same of the second one"
        + (", and less the same difference of the reference." if record.reference is not None else "."),
    }[record.ask]
    numbers = listed([runs("<code>$name</code>", name=found.name) for found in record.measures])
    yield text(f"{how} Here: $names.", names=numbers)
    yield text(
        "A difference changes its sign, and nothing else, when the two answers are swapped. None of them is computed "
        "from the coin. All of them, with the coins, stand in <code>twins.npz</code>."
    )


def _bets(record: TwinRecord) -> Iterator[Leaf]:
    bias = 0.0 if record.law is None else record.law.bias
    yield heading("The bets")
    yield text(
        "Before a pair’s coin is laid open a bettor says with which chance <i>P</i>(<i>s</i>) it will fall, from the "
        "pair’s differences and from earlier pairs and coins. Its stake is multiplied by"
    )
    if bias:
        yield formula(
            "<i>f</i>(<i>s</i>) = <i>P</i>(<i>s</i>) / <i>Q</i>(<i>s</i>), \N{EM SPACE}<i>Q</i>(1) = <i>P</i>(1) cut "
            "to ½ − δ … ½ + δ"
        )
        yield text(
            "which has a mean of 1 or less for every coin whose chance lies within δ = $bias of a half (Grünwald, de "
            "Heide and Koolen 2024).",
            bias=f"{bias:.4f}",
        )
    else:
        yield formula("<i>f</i>(<i>s</i>) = 2 <i>P</i>(<i>s</i>)")
        yield text("which has the mean 1 under a fair coin, whatever <i>P</i> is.")
    yield text(
        "Several bettors share the first stake of 1, and the e-value is what they have together: the mean, by their "
        "shares <i>w</i>, of their products over the pairs in the order in which the requests came."
    )
    yield formula("<i>e</i> = Σ<sub><i>b</i></sub> <i>w</i><sub><i>b</i></sub> Π<sub><i>i</i></sub> "
                  "<i>f</i><sub><i>b</i></sub>(<i>s</i><sub><i>i</i></sub>)")  # fmt: skip
    yield text(
        "It is a test martingale (Ville 1939; Shafer 2021): the chance that it ever reaches 1/α under the null "
        "hypothesis is at most α, so that the verdict’s <i>p</i> = min(1, 1/<i>e</i>) holds whenever one looks."
    )
    if record.law is not None:
        yield text(
            "Of twins that were drawn later the sign of the leading number alone is bet on, by the same stake for "
            "every pair, less what lengths and the owner’s own model account for (a regression through the origin on "
            "earlier pairs): the limits of the controls are of shares of pairs, and say nothing of the largest ones."
        )
        return
    yield text(
        "Bettors that go by the sign of a number hold a fixed chance of being right, from $low to $high; $lead of the "
        "stake is the leading number’s at the surest. Others let their chance grow with the size of the difference, in "
        "typical differences so far, on several scales; for some of them small differences hardly count, as where few "
        "of many pairs were used. $learners are of bettors that learn from coins that were laid open, by logistic "
        "regression without an intercept (MacKay 1992), and $idle never bets.",
        low=f"{min(WIN_CHANCES):g}",
        high=f"{max(WIN_CHANCES):g}",
        lead=percent(LEADING_WEIGHT),
        learners=percent(LEARNERS_WEIGHT),
        idle=percent(IDLE_WEIGHT),
    )
    yield text(
        "What differs between two answers without any training, their lengths and how likely the owner’s own model "
        "finds them, is taken out of each number as well, by a regression through the origin on earlier pairs. Such "
        "numbers change their sign with the pair too, so that no coin is asked."
    )


def _sign_test(record: TwinRecord) -> Iterator[Leaf]:
    bias = 0.0 if record.law is None else record.law.bias
    yield heading("The sign test")
    yield text(
        "Of <i>n</i> pairs in which a number differs it speaks for the delivered answer in <i>w</i>. Pairs in which it "
        "doesn’t differ are dropped, which no coin decides. The chance that as many coins fall so is exact:"
    )
    if bias:
        yield formula(
            "<i>p</i> = Σ<sub><i>k</i> = <i>w</i> … <i>n</i></sub> <i>n</i>! / (<i>k</i>! (<i>n</i> − <i>k</i>)!) "
            "<n>(½ + δ)<sup><i>k</i></sup></n> <n>(½ − δ)<sup><i>n</i> − <i>k</i></sup></n>"
        )
    else:
        yield formula(
            "<i>p</i> = 2<sup>−<i>n</i></sup> Σ<sub><i>k</i> = <i>w</i> … <i>n</i></sub> <i>n</i>! / (<i>k</i>! "
            "(<i>n</i> − <i>k</i>)!)"
        )
    yield text(
        "It is a p-value where the number of pairs was fixed beforehand and no client asked anything because of an "
        "earlier answer. The bets need neither. In this report p-values are rounded up and e-values down."
    )


def _law(record: TwinRecord) -> Iterator[Leaf]:
    law = record.law
    if law is None:
        return
    yield heading("The law test")
    yield text(
        "Models that never saw the delivered answers, the owner’s own among them, and a classifier that is learnt on "
        "some pairs and asked about others, must find fair coins. Each control’s p-value is exact and two-sided. The "
        "upper limit of its bias |P(win) − ½| is that of Clopper and Pearson at 99%. The verdict allows for the bias δ "
        "= $bias.",
        bias=f"{law.bias:.4f}",
    )


def _accounts(record: TwinRecord) -> Iterator[Leaf]:
    if not record.accounts:
        return
    yield heading("Accounts")
    bounded = (
        ""
        if record.law is None
        else " Where twins were drawn later all pairs that are bet on must be the account’s own as well: the law test "
        "limits the bias of all of them together, and not that of a part."
    )
    yield text(
        "An account’s pairs have coins of their own. The same bets run on them alone, in their order, and their "
        "e-value is divided by the number of accounts, $n. An account is named where that reaches 1/α, which holds "
        f"whoever else is guilty.{bounded}",
        n=len(record.accounts),
    )


def _share(record: TwinRecord) -> Iterator[Leaf]:
    yield heading("How many answers were used")
    if record.share is None:
        yield text("No share is given.")
        return
    yield text("Method: $method.", method=record.share.method)


def _together(record: TwinRecord) -> Iterator[Leaf]:
    if record.watermark is None:
        return
    yield heading("Both lines together")
    yield text(
        "The watermark’s key and the coins are different secrets. Given one of them the other’s e-value has a mean of "
        "1 or less, so that their product is an e-value too. Where the trace read delivered answers, which these coins "
        "decided about, their mean is taken: that is an e-value whatever two of them have in common (Vovk and Wang "
        "2021)."
    )
