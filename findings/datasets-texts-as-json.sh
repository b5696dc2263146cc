#!/usr/bin/env bash
# datasets 5.2.0: one chat whose content has parts makes every text of the column JSON inside a string.
#
# `load_dataset("json", ...)` of a file of chats gives `content` the feature `Json` as soon as one turn of one record has
# content parts (or one record has a number where others have text), and `save_to_disk` and `to_parquet` write it as the
# extension type `arrow.json`. Through datasets all is as before. Others, pyarrow's `to_pylist` and polars among them,
# read each text with quotes around it, `\n` as two characters and every letter beyond ASCII as an escape (`\u00e9`),
# and raise nothing. Whoever counts, tokenises or scores such a file without datasets sees other texts than were written:
# a watermark in them, say, is gone wherever a quote, a line or an accent changes the tokens.
#
# Seen with datasets 5.2.0, pyarrow 26.0.1 and polars 2.1.0, Python 3.11. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1 polars==2.1.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - <<'PY'
import json

import datasets
import polars
from pyarrow import parquet

datasets.disable_progress_bars()
said = 'She said "é".\nThen she left.'
plain = [{"messages": [{"role": "assistant", "content": said}]}]
parts = [{"messages": [{"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}]}]
texts = {}
for name, records in (("texts alone", plain), ("texts and one turn with parts", plain + parts)):
    with open("chats.jsonl", "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    loaded = datasets.load_dataset("json", data_files="chats.jsonl", split="train", cache_dir=name)
    assert loaded[0]["messages"][0]["content"] == said
    loaded.to_parquet("chats.parquet")
    table = parquet.read_table("chats.parquet")
    by_polars = polars.read_parquet("chats.parquet")["messages"].to_list()
    texts[name] = table["messages"].to_pylist()[0][0]["content"]
    assert by_polars[0][0]["content"] == texts[name], by_polars
    print(f"{name}: {table.schema.field('messages').type}\n  {texts[name]!r}")
assert texts["texts alone"] == said
assert texts["texts and one turn with parts"] == json.dumps(said)
PY
