"""Which fields of a record hold documents.

Without names from the user fields are chosen by their names, by what they hold and by how much of it: before any key is
used. All that there is stands on record, whether or not it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from detect.readers.batch import Broken, Inspected, ReadOptions, Source, Tally
from detect.readers.fields import lookup
from detect.readers.turns import (
    ABOUT,
    ANSWERS,
    OTHERS,
    PROMPTS,
    Wanted,
    chat_in,
    glance,
    head_of,
    is_reasoning,
    wanted,
    words_of,
)
from detect.records.seen import ColumnSeen

TOKEN_FIELDS = ("token_ids", "input_ids", "tokens", "ids")
_DOCUMENTS = frozenset("text content document body".split())
"""Fields that hold documents even where nothing in them looks like a sentence."""
_BESIDE = frozenset(
    "id ids uid uuid guid url urls uri link path file filename hash sha md5 license licence language lang locale date "
    "time timestamp created updated metadata meta model version category tag tags tool schema definitions type name "
    "key index split subset label status format mask dump".split()
)
"""Words in the names of fields that say something about a document."""
_CALLS = frozenset(["call", "calls"])
_MODELS = frozenset(["model", "meta"])
_SHORT = 32  # characters a record below which a field is no match for a longer one
_MOST_COLUMNS = 64
_DEEPEST = 4

ASSISTANT = Wanted(frozenset(["assistant"]))


def kind_of(value: Any, column: str = "", want: Wanted = ASSISTANT) -> str | None:
    """Tell what a field holds: "text", "messages", "tokens", or None where that can't be seen."""
    if isinstance(value, str):
        return "messages" if _spells_chat(value, column, want) else "text"
    if isinstance(value, dict):
        return None if glance(value, column, want) is None else "messages"
    first = next((one for one in value if one is not None), None) if isinstance(value, list) else None
    while isinstance(first, list) and first and isinstance(first[0], list):
        first = first[0]
    if isinstance(first, list):
        return "messages" if first and isinstance(first[0], str | dict) else None
    if isinstance(first, str | dict):
        return "messages"
    return "tokens" if isinstance(first, int) and not isinstance(first, bool) else None


def _spells_chat(text: str, column: str, want: Wanted) -> bool:
    """Whether a text is a chat or a list of texts, written as JSON."""
    chat = chat_in(text)
    return chat is not None and bool(glance(chat, column, want))


@dataclass
class _Field:
    """What the first records have in a field.

    Attributes
    ----------
    kinds
        How many values are of each kind; "json" are strings that spell chats.
    taken
        Of the characters, those that would be read.
    roles
        Whether there are turns that say whose they are.
    turns_read
        Whether one of them is read.
    prose
        Whether it has more than single words.
    present
        How many records have the field, whether or not something is in it.
    hint
        What it would hold, where nothing is in it.
    within
        Whether it holds fields of its own.
    """

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    taken: int = 0
    roles: bool = False
    turns_read: bool = False
    prose: bool = False
    present: int = 0
    hint: str = ""
    within: bool = False

    @property
    def records(self) -> int:
        """How many have something in it."""
        return sum(self.kinds.values())

    @property
    def kind(self) -> str:
        """What it holds; "" where that can't be seen."""
        if not self.kinds:
            return self.hint
        if self.kinds["text"] >= self.kinds["tokens"] and self.kinds["text"] and not self.kinds["messages"]:
            return "text"
        return max(("messages", self.kinds["messages"] + self.kinds["json"]), ("tokens", self.kinds["tokens"]),
                   key=lambda pair: pair[1])[0]  # fmt: skip

    @property
    def short(self) -> bool:
        """Whether there is hardly anything in it."""
        return self.characters < _SHORT * self.records

    @property
    def seen(self) -> ColumnSeen:
        """As it stands on record."""
        return ColumnSeen(self.name, self.kind, self.records, self.characters, read=False)


class _Fields:
    """All fields of the first records that may hold documents, in the order in which they come up."""

    def __init__(self, want: Wanted) -> None:
        self.want = want
        self.found: dict[str, _Field] = {}

    def see(self, name: str, value: Any, depth: int = 0, *, several: bool = False) -> None:
        """Take note of a value, or of those that a path with "*" gives; of what is inside where it is no document."""
        here = self.found.setdefault(name, _Field(name))
        here.present += 1
        if value is None:
            return
        if value in ("", [], {}):
            here.hint = here.hint or ("text" if value == "" else "tokens" if _is_ids(name) else "messages")
        elif isinstance(value, bool | int | float):
            here.hint = here.hint or "other"  # and so no answer that is still to come
        elif isinstance(value, str):
            json = _spells_chat(value, name, self.want)
            if json:
                self._turns(here, glance(chat_in(value), name, self.want) or [], "json")
            else:
                here.kinds["text"] += 1
                here.characters += len(value)
                here.taken += len(value)
                here.prose = here.prose or _is_prose(value)
        elif isinstance(value, list) and kind_of(value) == "tokens":
            if several:
                return
            here.kinds["tokens"] += 1
            here.characters += len(value)
        elif isinstance(value, list | dict):
            counted = glance(value, name, self.want)
            here.within = here.within or not counted
            if counted:
                self._turns(here, counted, "messages")
                here.prose = here.roles or any(map(_is_prose, _texts(value)))
            elif depth < _DEEPEST and isinstance(value, dict):
                for key, inner in value.items():
                    self.see(f"{name}.{key}", inner, depth + 1)
            elif depth < _DEEPEST and isinstance(value, list):
                star = "" if several else ".*"
                if several and all(isinstance(one, list) for one in value):
                    value, star = [inner for one in value for inner in one], ".*"
                inside = [one for one in value if isinstance(one, dict)]
                for key in dict.fromkeys(key for one in inside for key in one if one[key] is not None):
                    values = [one[key] for one in inside if one.get(key) is not None]
                    self.see(f"{name}{star}.{key}", values, depth + 1, several=True)

    def _turns(self, here: _Field, counted: list[tuple[str, str, bool, int]], kind: str) -> None:
        here.kinds[kind] += 1
        here.characters += sum(characters for *_, characters in counted)
        here.taken += sum(characters for _, _, read, characters in counted if read)
        here.roles = here.roles or any(role for role, *_ in counted)
        here.turns_read = here.turns_read or any(read for _, _, read, _ in counted)
        here.prose = here.prose or kind == "json"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_prose(text: str) -> bool:
    """Whether there is more than one word, or a letter of a script that may have no blanks."""
    return not text.isascii() or len(text.split(None, 1)) > 1


def _is_ids(name: str) -> bool:
    return name in TOKEN_FIELDS or bool(words_of(name) & {"ids", "tokens"})


def inspected(
    records: Sequence[dict[str, Any]], options: ReadOptions, kinds: Mapping[str, str] | None = None
) -> Inspected:
    """Choose fields by a file's first records, whose values are as JSON has them (columnar files: `to_pylist`).

    Read are, each by itself: chats; fields with names of answers; where there is neither, other fields of text; and in
    any case reasoning and calls of tools that stand in fields of their own. Of these, fields with hardly anything in
    them are left out beside longer ones. Where there are none, token ids are read; and questions only where nothing
    else is.

    Parameters
    ----------
    records
        The first ones, some dozens; none at all is no error where ``kinds`` says what there is.
    kinds
        Of columns that a schema names, by their full name: what they would hold, for those in which no record has
        anything.

    Raises
    ------
    Broken
        No field fits, or one that was named is not there.
    """
    seen = _Fields(wanted(options))
    for record in records:
        with suppress(RecursionError):  # which is a broken record when it is read
            for name, value in record.items():
                seen.see(name, value)
    for name, kind in (kinds or {}).items():
        here = seen.found.setdefault(name, _Field(name))
        here.hint, here.present = kind, here.present or 1
    names = list(dict.fromkeys([key for record in records for key in record] + [*(kinds or {})]))
    columns = {name: found.seen for name, found in seen.found.items() if found.records or found.name in (kinds or {})}
    if options.fields:
        chosen = list(_named(records, options, kinds or {}, names, seen.want))
        missing = set(options.fields) - {name for name, _ in chosen}
        columns |= {name: ColumnSeen(name, "", 0, 0, read=False) for name in missing}
    else:
        chosen = [(found.name, found.kind) for found in _chosen(_kept(seen.found.values(), seen.want))]
        if not chosen:
            raise no_field(names, None)
    for name, kind in chosen:
        known = columns.get(name) or _measured(records, name, kind, seen.want)
        columns[name] = ColumnSeen(name, kind, known.records, known.characters, read=True)
    most = sorted(columns.values(), key=lambda column: (not column.read, -column.characters))[:_MOST_COLUMNS]
    id_column = options.id_field or ("id" if "id" in names else None)
    return Inspected(
        tuple(chosen),
        None if id_column in [name for name, _ in chosen] else id_column,
        tuple(column for column in columns.values() if column in most),
    )


def _kept(fields: Iterable[_Field], want: Wanted) -> list[_Field]:
    """Fields without those of reasoning and calls that are not wanted."""
    kept = [found for found in fields if want.reasoning or not is_reasoning(found.name)]
    return [found for found in kept if want.tools or not words_of(found.name) & _CALLS]


def _named(
    records: Sequence[dict[str, Any]],
    options: ReadOptions,
    kinds: Mapping[str, str],
    names: Iterable[str],
    want: Wanted,
) -> Iterator[tuple[str, str]]:
    """The fields that were named, with what they hold; one that is missing is none where others are there."""
    missing: list[Broken] = []
    for name in dict.fromkeys(options.fields):
        values = list(_values(records, name))
        counts = Counter(kind for value in values if (kind := kind_of(value, name, want)) is not None)
        if len(counts) > 1 and "messages" in counts:  # strings that spell chats are chats only where all are
            chats = any(isinstance(value, list | dict) and kind_of(value, name, want) == "messages" for value in values)
            counts = Counter({"messages" if chats else "text": 1})
        kind = counts.most_common(1)[0][0] if counts else ""
        kind = kind or kinds.get(name, "") or ("text" if "" in values else "tokens" if [] in values else "")
        if kind or (values and len(options.fields) > 1):
            yield name, kind or "text"
        else:
            missing.append(no_field(names, name))
    if len(missing) == len(set(options.fields)):
        raise missing[0]


def _measured(records: Sequence[dict[str, Any]], name: str, kind: str, want: Wanted) -> ColumnSeen:
    """What is in a field that was named, and is none of those that were looked for."""
    fields = _Fields(want)
    for value in _values(records, name):
        fields.see(name, value)
    found = fields.found.get(name, _Field(name))
    return ColumnSeen(name, kind, found.records, found.characters, read=True)


_A_TOKEN = 3  # characters of text, about


def _chosen(fields: Sequence[_Field]) -> list[_Field]:
    """Fields to read, the likeliest first (see `inspected`)."""
    filled = [found for found in fields if found.kind in ("text", "messages") and found.records]
    ranks = {found.name: _rank(found) for found in filled}
    likely = [found for found in filled if ranks[found.name] in ("chat", "answer", "other", "beside")]
    if any(not found.short for found in likely):
        likely = [found for found in likely if not found.short or ranks[found.name] in ("chat", "beside")]
    of = {
        rank: [found for found in likely if ranks[found.name] == rank] for rank in ("chat", "answer", "other", "beside")
    }
    chosen = of["chat"] + of["answer"]
    much = 2 * (sum(one.taken for one in chosen) or sum(one.characters for one in chosen))  # doubtful beyond
    chosen += [found for found in of["other"] if not chosen or (found.characters > much and not found.short)]
    ids = [found for found in fields if found.kind == "tokens" and found.name in TOKEN_FIELDS and found.records]
    ids.sort(key=lambda found: TOKEN_FIELDS.index(found.name))
    few = max((found.records for found in chosen), default=0)
    if ids and chosen and ids[0].records > 2 * few and _A_TOKEN * ids[0].characters > much:  # and few have a label
        chosen = ids[:1] + [found for found in chosen if not found.short]
    if chosen or of["beside"]:
        return chosen + of["beside"] + _unfilled(fields)
    tokens = [found for found in fields if found.kind == "tokens" and _is_ids(found.name)]
    for name in TOKEN_FIELDS:
        if any(found.name == name for found in tokens):
            return [found for found in tokens if found.name == name]
    tokens = [found for found in tokens if not words_of(found.name) & PROMPTS] or tokens
    asked = [found for found in filled if ranks[found.name] == "asked"]
    asked = [found for found in asked if not found.short] or asked
    # Whatever its name: sentences beside what was asked, or alone.
    asked += [found for found in filled if ranks[found.name] == "about" and found.prose and not found.short]
    empty = [found for found in fields if not found.records and found.hint in ("text", "messages")]
    empty = [found for found in empty if _rank(found) in ("chat", "answer", "other")]
    if tokens or asked:
        return tokens or asked + _unfilled(fields)
    return empty


def _rank(found: _Field) -> str:
    """What a field is by its name: "chat", "answer", "beside" an answer, "other" text, "asked", or "about" the text."""
    words = words_of(found.name)
    about, asked, answered = words & (_BESIDE | ABOUT), words & (PROMPTS | OTHERS), words & ANSWERS
    head = head_of(found.name)
    if head in ANSWERS or (answered and about <= _MODELS and head not in about):
        about = frozenset()  # "model_output" is an output, and "output_model" says something about one
    if found.kind == "messages" and words & _CALLS:
        return "beside"
    if found.kind == "messages" and found.roles:
        return "chat" if found.turns_read or not asked else "asked"
    if is_reasoning(found.name) or (words & _CALLS and not words & ABOUT):
        return "beside"
    if answered and not about:
        return "answer"
    if about:
        return "about"
    if found.name in _DOCUMENTS or (found.prose and not asked):
        return "other"
    return "asked"


def _unfilled(fields: Iterable[_Field]) -> list[_Field]:
    """Fields in which the first records have nothing, and further ones may have answers, reasoning or calls."""
    found = [one for one in fields if not (one.records or one.within) and one.present and "." not in one.name]
    found = [one for one in found if one.hint in ("", "text", "messages")]
    found = [one for one in found if _rank(one) in ("answer", "beside")]
    for one in found:
        one.hint = one.hint or "messages"  # of any kind (see `converter`)
    return found


def no_field(names: Iterable[str], field: str | None) -> Broken:
    """Say that no field fits, and which there are."""
    names = list(names)
    seen = ", ".join(repr(name[:40]) for name in names[:12]) + (", ..." if len(names) > 12 else "")
    if field is None:
        return Broken(f"has no field that looks like a document; name one with --field (its fields: {seen or 'none'})")
    return Broken(f"has no text, chat or token ids in field {field!r}; name another with --field (its fields: {seen})")


def _values(records: Sequence[dict[str, Any]], name: str) -> Iterable[Any]:
    for record in records:
        try:
            yield lookup(record, name)
        except Broken:
            continue


def watcher(source: Source, options: ReadOptions) -> Callable[[dict[str, Any], Tally], None] | None:
    """What looks at records here and there for fields with text that the file's first records did not have.

    They are counted as not read. None where fields were named, and for all but the first of several fields of a file.
    """
    read = [seen.name for seen in source.columns if seen.read]
    if options.fields or read[:1] != [source.column]:
        return None
    known = {seen.name.split(".")[0] for seen in source.columns if seen.read or seen.records}
    want = wanted(options)

    def watch(record: dict[str, Any], tally: Tally) -> None:
        if record.keys() <= known:
            return
        seen = _Fields(want)
        for name in record.keys() - known:
            seen.see(name, record[name])
        for found in seen.found.values():
            if found.records and found.kind != "tokens" and not found.short and _rank(found) not in ("about", "asked"):
                tally.add("", f"field {found.name[:40]}", False, found.characters)

    return watch
