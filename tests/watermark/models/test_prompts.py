"""How prompts become tokens: templates of every form, and the token that begins a text, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from tests.tiny_models import tokenizer
from watermark.errors import DyetraceError
from watermark.models.prompts import as_chat, encode_prompt, leading_tokens, template_of

PLAIN = "{% for m in messages %}7 {{ m.content }} 8 {% endfor %}"
IN_PARTS = (
    "{% for m in messages %}7 {% for part in m.content %}{% if part.type == 'text' %}{{ part.text }} {% endif %}"
    "{% endfor %}8 {% endfor %}"
)
PARTS_OF_USERS = (
    "{% for m in messages %}{% if m.role == 'system' %}7 {{ m.content + ' ' }}{% else %}"
    "{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }} {% endfor %}{% endif %}"
    "{% endfor %}8"
)
NO_STRINGS = "{% for m in messages %}{% if m.content is string %}{{ raise_exception('parts') }}{% endif %}"
NO_STRINGS += "7 {{ m.content[0]['text'] }} {% endfor %}8"
ASKED = [{"role": "user", "content": "3 4"}]
TOLD = [{"role": "system", "content": "5"}, *ASKED]


def beginning(template: Any = None) -> Any:
    """A tokenizer that puts token 1 in front of a text and token 2 behind it."""
    words = tokenizer()
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="1 $A 2", special_tokens=[("1", 1), ("2", 2)]
    )
    words.chat_template = template
    return words


def test_without_a_template_a_prompt_stands_behind_the_token_that_begins_a_text_and_before_none_that_ends_one() -> None:
    for chat in (True, False):
        assert encode_prompt(beginning(), "3 4", chat=chat) == [1, 3, 4]
    assert encode_prompt(beginning(PLAIN), "3 4", chat=False) == [1, 3, 4]
    assert leading_tokens(beginning()) == leading_tokens(beginning().backend_tokenizer) == (1,)
    assert encode_prompt(tokenizer(), "3 4") == [3, 4] and leading_tokens(tokenizer()) == ()


def test_a_template_that_writes_the_first_token_itself_has_it_once() -> None:
    assert encode_prompt(beginning("1 " + PLAIN), "3 4") == [1, 7, 3, 4, 8]
    assert encode_prompt(beginning(PLAIN), "3 4") == [7, 3, 4, 8]  # its will


@pytest.mark.parametrize("template", [IN_PARTS, NO_STRINGS, PARTS_OF_USERS])
def test_templates_that_take_texts_in_parts_get_them_so(template: str) -> None:
    ids = encode_prompt(beginning(template), "", TOLD)
    assert [token for token in ids if token not in (7, 8)] == [5, 3, 4]


def test_texts_that_stand_in_a_template_by_chance_are_not_taken_for_told() -> None:
    assert encode_prompt(beginning(IN_PARTS), "8") == [7, 8, 8]


def test_what_a_template_does_to_a_text_is_its_own_will() -> None:
    assert as_chat(beginning("{{ messages[-1].content | trim | upper }}"), [{"role": "user", "content": " b "}]) == "B"
    assert as_chat(beginning("{{ messages[-1].content }}"), TOLD) == "3 4"  # no system prompt, as in some real ones


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no\n users') }}", "can't take this chat: TemplateError: no users"),
        ("{% for", "can't take this chat: TemplateSyntaxError"),
        ("{{ messages[0].content.foo.bar }}", "can't take this chat: UndefinedError"),
        ("{{ messages[0].content + 1 }}", "can't take this chat: TypeError"),
        ("7 8", "leaves out what the user asks"),
    ],
)
def test_templates_that_refuse_a_chat_or_leave_it_out_are_one_line(template: str, reason: str) -> None:
    with pytest.raises(DyetraceError, match=reason) as caught:
        as_chat(beginning(template), ASKED)
    assert "\n" not in str(caught.value)


def test_of_named_templates_the_one_for_plain_chats_is_taken() -> None:
    for named in (
        {"default": PLAIN, "tool_use": "5"},
        {"chat": PLAIN, "rag": "5", "tool_use": "6"},
        [{"name": "default", "template": PLAIN}, {"name": "other", "template": "5"}],
    ):
        assert encode_prompt(beginning(named), "3 4") == [7, 3, 4, 8]
    with pytest.raises(DyetraceError, match=r"several chat templates \('one', 'other'\)"):
        template_of(beginning({"one": PLAIN, "other": PLAIN}))


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": PLAIN},
        {"chat_template.jinja": PLAIN, "additional_chat_templates/tool_use.jinja": "5"},
        {"chat_template.json": json.dumps({"chat_template": PLAIN})},
        {"chat_template.json": "[", "processor_config.json": json.dumps({"chat_template": {"default": PLAIN}})},
    ],
)
def test_templates_are_found_in_all_files_of_a_folder(tmp_path: Path, files: dict[str, str]) -> None:
    import transformers

    tokenizer().save_pretrained(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert encode_prompt(transformers.AutoTokenizer.from_pretrained(tmp_path), "3 4") == [7, 3, 4, 8]


def test_text_that_no_tokenizer_takes_is_replaced() -> None:
    assert encode_prompt(beginning(), "3 \ud800 4") == [1, 3, 0, 4]
    assert encode_prompt(beginning(PLAIN), "3 \ud800 4") == [7, 3, 0, 4, 8]
