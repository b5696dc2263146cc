"""Records in which a model's words stand somewhere: under every name and in every form that was seen or is alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


Shape = Callable[[str, str], dict[str, Any]]


def said_by(role: str) -> Shape:
    return lambda m, c: {"messages": [user(c), {"role": role, "content": m}]}


SHAPES: dict[str, Shape] = {
    # reasoning, by every name, in chats and beside them
    "reasoning_content": lambda m, c: {"messages": [user(c), says("w1", reasoning_content=m)]},
    "reasoning": lambda m, c: {"messages": [user(c), says("w1", reasoning=m)]},
    "thinking": lambda m, c: {"messages": [user(c), says("w1", thinking=m)]},
    "thoughts": lambda m, c: {"messages": [user(c), says(c, modelThoughts=m)]},
    "reasoning_details": lambda m, c: {
        "messages": [says("", reasoning_details=[{"type": "reasoning.text", "text": m}])]
    },
    "thinking part": lambda m, c: {
        "messages": [says([{"type": "thinking", "thinking": m}, {"type": "text", "text": c}])]
    },
    "nested thinking part": lambda m, c: {
        "messages": [says([{"type": "thinking", "thinking": [{"type": "text", "text": m}]}])]
    },
    "thought part": lambda m, c: {"contents": [{"role": "model", "parts": [{"text": m, "thought": True}]}]},
    "reasoning column": lambda m, c: {"prompt": c, "reasoning": m, "answer": "w1 w2"},
    "struct of reasoning": lambda m, c: {"prompt": c, "reply": {"thinking": m, "text": "w1 w2"}},
    "Amazon's reasoning": lambda m, c: {
        "output": {"message": {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": m}}}]}}
    },
    "content of reasoning and answer": lambda m, c: {"messages": [says({"reasoning": m, "answer": "w1"})]},
    "plan of tools": lambda m, c: {"message": {"role": "assistant", "tool_plan": m, "tool_calls": []}},
    "details of reasoning in a pair": lambda m, c: {"chat": [{"question": c, "thinking": m, "answer": "w1"}]},
    # arguments of tools
    "tool_calls": lambda m, c: {
        "messages": [says("", tool_calls=[{"function": {"name": "write", "arguments": json.dumps({"text": m})}}])]
    },
    "tool_calls as objects": lambda m, c: {
        "messages": [says("", tool_calls=[{"function": {"name": "write", "arguments": {"text": m, "mode": None}}}])]
    },
    "tool_calls as JSON": lambda m, c: {
        "messages": [says("", tool_calls=json.dumps([{"function": {"name": "write", "arguments": {"text": m}}}]))]
    },
    "function_call": lambda m, c: {"messages": [says("", function_call={"name": "write", "arguments": m})]},
    "role of a call": lambda m, c: {
        "conversations": [
            {"from": "human", "value": c},
            {"from": "function_call", "value": json.dumps({"name": "write", "arguments": {"text": m}})},
        ]
    },
    "answers that are calls": lambda m, c: {
        "query": c,
        "answers": json.dumps([{"name": "write", "arguments": {"text": m}}]),
    },
    "Responses in a batch": lambda m, c: {
        "response": {
            "body": {
                "model": "gpt-5",
                "text": {"format": {"type": "text"}},
                "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": m}]}],
            }
        }
    },
    "LangChain's turns": lambda m, c: {
        "messages": [{"type": "human", "data": {"content": c}}, {"type": "ai", "data": {"content": m}}]
    },
    "tree of replies": lambda m, c: {
        "prompt": {
            "role": "prompter",
            "text": c,
            "replies": [{"role": "assistant", "text": "w1", "replies": [{"role": "prompter", "text": c, "replies": [
                {"role": "assistant", "text": m, "replies": []}]}]}],
        }
    },
    "responses of an evaluation": lambda m, c: {"doc": {"question": c, "answer": "42"}, "resps": [[m]]},
    "numpy's words for a chat": lambda m, c: {
        "messages": f"[{user(c)}\n {says(m)}]"
    },
    "Bedrock's output": lambda m, c: {"modelInput": {"prompt": c}, "modelOutput": {"generation": m, "stop": "x"}},
    "a model's output": lambda m, c: {"prompt": c, "model_output": m},
    "name of Meta's model": lambda m, c: {"prompt": c, "meta-llama/Llama-3-8B": m},
    "patch": lambda m, c: {
        "output": [{"type": "apply_patch_call", "call_id": "1", "operation": {"type": "create_file", "diff": m}}]
    },
    "prompt of a picture": lambda m, c: {
        "output": [{"type": "image_generation_call", "result": "x" * 50, "revised_prompt": m}]
    },
    "tool's invocation": lambda m, c: {
        "messages": [says([{"type": "tool-invocation", "toolInvocation": {"args": {"text": m}, "result": c}}])]
    },
    "LangChain's dump": lambda m, c: {
        "messages": [
            {"lc": 1, "type": "constructor", "kwargs": {"content": c, "type": "human"}},
            {"lc": 1, "type": "constructor", "kwargs": {"content": m, "type": "ai"}},
        ]
    },
    "blocks": lambda m, c: {"messages": [{"role": "assistant", "blocks": [{"block_type": "text", "text": m}]}]},
    "parts as JSON": lambda m, c: {"messages": [user(c), says(json.dumps([{"type": "text", "text": m}]))]},
    "names with dots": lambda m, c: {"attributes": {"gen_ai.output.messages": json.dumps([says(m)]), "a.b": "1"}},
    "streamed tokens": lambda m, c: {"input": c, "output": [f"{word} " for word in m.split()[:-1]] + m.split()[-1:]},
    "label": lambda m, c: {"prompt": c, "label": m},
    "tool_use part": lambda m, c: {"messages": [says([{"type": "tool_use", "name": "write", "input": {"text": m}}])]},
    "functionCall part": lambda m, c: {
        "contents": [{"role": "model", "parts": [{"functionCall": {"name": "write", "args": {"text": m}}}]}]
    },
    # roles
    **{
        f"role {role!r}": said_by(role)
        for role in ("chatgpt", "claude", "assistant ", "GPT-4o", "Assistant (v2)", "gemini-pro", "vicuna_13b", "AI")
    },
    "type as role": lambda m, c: {"messages": [{"type": "human", "content": c}, {"type": "ai", "content": m}]},
    "role by any name": lambda m, c: {"messages": [{"source": "assistant", "content": m, "type": "TextMessage"}]},
    "content by another name": lambda m, c: {"messages": [user(c), {"role": "assistant", "response": m}]},
    "log of an agent": lambda m, c: {"type": "assistant", "message": says([{"type": "text", "text": m}]), "uuid": "1"},
    "text far larger than its answer": lambda m, c: {"text": m * 9, "answer": "It is the third one that is right."},
    "author": lambda m, c: {"conversation": [{"author": "bot", "text": m}, {"author": "Ann", "text": c}]},
    # fields
    "solution beside answer": lambda m, c: {"problem": c, "solution": m, "answer": "42"},
    "content that is a prompt": lambda m, c: {"content": c, "response": m},
    "empty text beside response": lambda m, c: {"text": "", "response": m},
    "two answers": lambda m, c: {"prompt": c, "chosen": c, "rejected": m},
    "names nobody thought of": lambda m, c: {"id": "a", "left": c, "right": m},
    "an answer some way down": lambda m, c: {"meta": {"model": "x"}, "data": {"sample": {"llm_output": m}}},
    "text beside ids of another tokenizer": lambda m, c: {"text": m, "token_ids": [1, 2, 3]},
    # lists, pairs and JSON
    "generations": lambda m, c: {"question": c, "generations": [c, m]},
    "list of turns": lambda m, c: {"data": [c, m]},
    "lists of lists": lambda m, c: {"conversations": [[c], [c, m]]},
    "list of answers": lambda m, c: {"question": c, "answers": [{"body": c, "score": 1}, {"body": m, "score": 3}]},
    "JSON of messages": lambda m, c: {"messages": json.dumps([user(c), says(m)])},
    "messages as Python prints them": lambda m, c: {"messages": repr([user(c), says(m)])},
    "pairs": lambda m, c: {"conversation": [{"human": c, "assistant": m}]},
    "instruction and output": lambda m, c: {"conversation": [{"instruction": c, "output": m}]},
    "one list a key": lambda m, c: {"conversations": {"role": ["user", "gpt"], "content": [c, m]}},
    "turns by number": lambda m, c: {"turns": {"0": user(c), "1": says(m)}},
    # answers of interfaces
    "OpenAI batch": lambda m, c: {
        "custom_id": "1", "response": {"status_code": 200, "body": {"choices": [{"index": 0, "message": says(m)}]}},
    },
    "chat completion": lambda m, c: {"object": "chat.completion", "choices": [{"message": says("w1", reasoning=m)}]},
    "completion": lambda m, c: {"object": "text_completion", "choices": [{"index": 0, "text": m, "logprobs": None}]},
    "Responses": lambda m, c: {
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": c}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": m}]},
        ],
    },
    "Responses' reasoning": lambda m, c: {
        "output": [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": m}]}]
    },
    "Responses' call": lambda m, c: {"output": [{"type": "function_call", "name": "write", "arguments": m}]},
    "Anthropic batch": lambda m, c: {
        "custom_id": "1", "result": {"type": "succeeded", "message": says([{"type": "text", "text": m}])},
    },
    "Anthropic answer": lambda m, c: {"type": "message", "role": "assistant", "content": [{"type": "text", "text": m}]},
    "Gemini batch": lambda m, c: {
        "key": "1", "request": {"contents": [{"role": "user", "parts": [{"text": c}]}]},
        "response": {"candidates": [{"content": {"role": "model", "parts": [{"text": m}]}, "finishReason": "STOP"}]},
    },
    "exported conversation": lambda m, c: {
        "mapping": {
            "a": {"message": None},
            "b": {"message": {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": [m]}}},
        }
    },
}  # fmt: skip
