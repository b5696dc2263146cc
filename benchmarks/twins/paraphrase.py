"""Answers in other words: by rules (synonyms of WordNet, sentences in another order), and by the demo model.

WordNet 3.0 is free and in most distributions: Debian's package wordnet-base puts it at /usr/share/wordnet. Without it
a short list stands in, which is enough to see that everything runs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.distillation.teacher import digest
from benchmarks.edits import sentences
from benchmarks.robustness import REWRITE
from watermark.files.writing import write_atomically
from watermark.generate import Answer, Sampling, generate_answers
from watermark.models.folder import load_model

WORDNET = Path("/usr/share/wordnet")
_KINDS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}  # senseidx(5WN): the digit after %
_WORD = re.compile(r"[A-Za-z]+")
_PLAIN = re.compile(r"[a-z]+")
_SHORTEST = 4
_FUNCTION = frozenset(
    "about above after again against almost also although always among another anything around because been before "
    "being below between both cannot could does doing down during each either else enough ever every everything few "
    "from further have having here hers herself himself into itself just like little made make many more most much "
    "must myself neither never next none nothing often once only onto other others ours over quite rather same shall "
    "should since some something still such than that their theirs them themselves then there these they thing things "
    "this those though through throughout thus together under until upon very well were what when where whether which "
    "while will with within without would your yours yourself".split()
)
_FEW = {
    "important": "crucial", "people": "folk", "world": "globe", "help": "assist", "large": "big", "small": "little",
    "beautiful": "lovely", "begin": "start", "history": "past", "story": "tale", "different": "distinct",
    "create": "produce", "place": "spot", "learn": "study", "work": "labour", "life": "existence", "great": "grand",
}  # fmt: skip


@dataclass(frozen=True)
class Thesaurus:
    """Synonyms of single words.

    Attributes
    ----------
    folder
        WordNet's dict files.
    """

    folder: Path = WORDNET

    @cached_property
    def _synonyms(self) -> Mapping[str, Sequence[str]]:
        """By lemma: the others of the commonest sense of its commonest part of speech."""
        if not (self.folder / "cntlist.rev").is_file():
            return {word: (other,) for word, other in _FEW.items()}
        counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for line in (self.folder / "cntlist.rev").read_text().splitlines():
            key, _, count = line.split()
            lemma, rest = key.split("%", 1)
            counts[lemma][_KINDS[rest[0]]] += int(count)
        wanted: dict[str, dict[str, str]] = defaultdict(dict)  # part of speech -> lemma -> synset
        for kind in ("noun", "verb", "adj", "adv"):
            for line in (self.folder / f"index.{kind}").read_text().splitlines():
                fields = line.split()
                if line.startswith(" ") or not _PLAIN.fullmatch(fields[0]):
                    continue
                tagged = counts.get(fields[0], {})
                if tagged and max(tagged, key=lambda name: (tagged[name], name)) == kind:
                    wanted[kind][fields[0]] = fields[-int(fields[2])]
        found: dict[str, Sequence[str]] = {}
        for kind, lemmas in wanted.items():
            sets = {}
            for line in (self.folder / f"data.{kind}").read_text().splitlines():
                if not line.startswith(" "):
                    fields = line.split()
                    size = int(fields[3], 16)
                    sets[fields[0]] = [word.split("(")[0].lower() for word in fields[4 : 4 + 2 * size : 2]]
            for lemma, place in lemmas.items():
                others = [word for word in sets[place] if word != lemma and _PLAIN.fullmatch(word)]
                if others:
                    found[lemma] = others
        return found

    def others(self, word: str) -> list[str]:
        """Words to put in the place of a word, in the same regular form; none where none is known."""
        lower = word.lower()
        if len(lower) < _SHORTEST or lower in _FUNCTION:
            return []
        for lemma, ending in _forms(lower):
            if lemma in self._synonyms:
                return [_cased(_inflected(other, ending), word) for other in self._synonyms[lemma]]
        return []


def _forms(word: str) -> list[tuple[str, str]]:
    """(lemma, ending) that a word may be."""
    found = [(word, "")]
    for ending, stems in (("ies", ["y"]), ("es", ["", "e"]), ("s", [""]), ("ied", ["y"]), ("ed", ["", "e"])):
        if word.endswith(ending):
            found += [(word[: -len(ending)] + stem, "ed" if "ed" in ending else "s") for stem in stems]
    if word.endswith("ing"):
        found += [(word[:-3] + stem, "ing") for stem in ("", "e")]
    return [(lemma, ending) for lemma, ending in found if len(lemma) >= _SHORTEST - 1 and lemma not in _FUNCTION]


def _inflected(lemma: str, ending: str) -> str:
    if not ending:
        return lemma
    if ending == "ing":
        return lemma[:-1] + "ing" if lemma.endswith("e") and not lemma.endswith("ee") else lemma + "ing"
    if lemma.endswith("y") and lemma[-2:-1] not in set("aeiou"):
        return lemma[:-1] + ("ies" if ending == "s" else "ied")
    if ending == "s":
        return lemma + ("es" if lemma.endswith(("s", "x", "z", "ch", "sh")) else "s")
    return lemma + ("d" if lemma.endswith("e") else "ed")


def _cased(word: str, like: str) -> str:
    return word.capitalize() if like[:1].isupper() else word


def by_rules(texts: Sequence[str], share: float, thesaurus: Thesaurus, seed: int) -> list[str]:
    """Replace a share of the content words (those with a synonym first of all), and shuffle the sentences."""
    random = np.random.default_rng([11, seed])
    return [_by_rules(text, share, thesaurus, random) for text in texts]


def _by_rules(text: str, share: float, thesaurus: Thesaurus, random: np.random.Generator) -> str:
    found = list(_WORD.finditer(text))
    content = [match for match in found if len(match[0]) >= _SHORTEST and match[0].lower() not in _FUNCTION]
    known = [(match, others) for match in content if (others := thesaurus.others(match[0]))]
    count = min(len(known), round(share * len(content)))
    chosen = sorted(random.choice(len(known), count, replace=False)) if count else []
    pieces, end = [], 0
    for place in chosen:
        match, others = known[place]
        pieces += [text[end : match.start()], others[int(random.integers(len(others)))]]
        end = match.end()
    parts = sentences("".join([*pieces, text[end:]]))
    return " ".join(parts[place] for place in random.permutation(len(parts)))


def by_model(folder: Path, keep: Path, texts: Sequence[str], seed: int, tokens: int = 64) -> list[str]:
    """Each sentence rewritten by a chat model at T = 0.3."""
    parts = [sentences(text) for text in texts]
    asked = [REWRITE.format(sentence) for some in parts for sentence in some]
    path = keep / "drawn" / f"rewritten-{digest(folder.name, tokens, seed, asked)}.jsonl"
    if not path.exists():
        model, tokenizer = load_model(folder)
        sampling = Sampling(temperature=0.3, max_new_tokens=tokens, batch=64, seed=seed)
        made = list(generate_answers(model, tokenizer, asked, sampling))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"".join(msgspec.json.encode(answer) + b"\n" for answer in made))
    lines = path.read_bytes().splitlines()
    new = iter([" ".join(msgspec.json.decode(line, type=Answer).text.split()) for line in lines])
    return [" ".join(next(new) for _ in some) for some in parts]
