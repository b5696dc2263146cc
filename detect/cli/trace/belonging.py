"""Options of a race readout and options of the other traces: each is refused where it does nothing."""

from __future__ import annotations

from detect.cli.options.trace import TraceEndpoint, TracePlanning, TraceWeights
from detect.cli.unused import refuse_unused

ASKING = ("api_key_source", "api_key_header", "timeout", "attempts")
"""Of whatever asks an endpoint."""
_OF_RACES = (
    "owner_temperature",
    "owner_top_p",
    "owner_top_k",
    "owner_min_p",
    "device",
    "no_quotes",
    "texts",
    "ask",
    "via",
    "per_answer",
    "dtype",
    "tenant",
    "taken",
    "complete",
    *ASKING,
)
_FAIR = "each bet is fair whatever the suspect says, and decoy keys are the controls"
_OWN_ANSWERS = "the served answers themselves are read (--read)"
_OF_OTHERS = {
    "controls": _FAIR,
    "calibration": "it tells no share of the training data",
    "placebo_answers": _FAIR,
    "readout": "it has its own way to weigh what the suspect says",
    "two_sided": "it looks for what was learnt, and not for what was subtracted",
    "served": _OWN_ANSWERS,
    "served_tenant": "--read-tenant says whose answers are read",
    "prompts_path": _OWN_ANSWERS + ", with the prompts that they were given to",
    "count": "all answers of --read are gone through in the order of serving, until the target is reached",
    "seed": "all answers of --read are gone through in the order of serving, and nothing is drawn",
    "samples": "no free answers are asked for",
    "per_request": "no free answers are asked for",
    "endpoint": "--via says which endpoint is asked",
    "logprobs": "--ask says what is read of the endpoint",
    "temperature": "the suspect is asked for what it finds likeliest; --owner-temperature says at which the answers "
    "were drawn",
    "concurrency": "a request goes out when the one before is answered, as a later one shows what the key chose",
    "no_probe": "how the endpoint can be asked is found by asking it",
    "max_tokens": "answers are read as they were served, or a word at a time is asked for",
}


def refuse_of_races(asked: TraceWeights | TracePlanning | TraceEndpoint, why: str, *but: str) -> None:
    """Refuse what a race readout alone has a use for.

    Parameters
    ----------
    asked
        The command's options; those that it has not are passed over.
    why
        Why this run is none.
    but
        Fields that it has a use for all the same.
    """
    for name in _OF_RACES:
        if hasattr(asked, name) and name not in but:
            refuse_unused(name, True, f"it is of the race readout, {why}")


def refuse_of_others(asked: TraceWeights | TracePlanning | TraceEndpoint) -> None:
    """Refuse what a race readout has no use for."""
    for name, why in _OF_OTHERS.items():
        if hasattr(asked, name):
            refuse_unused(name, True, f"in a race readout {why}")
