"""What every engine's hook is made of.

`settings` (what the operator decides), `admission` (what a request may ask), `epoch` (spec and keys of a period),
`answers` (the tokens of one answer and which of them are marked), `rows` (a step of a batch), `watch` (whether the mark
is really there), `selftest`, `counters`, and `hook` (all of it put together).
"""
