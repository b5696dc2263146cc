"""Hooks of inference servers: one thin file per engine over what all of them share.

A request names an account; the server derives that account's key. What they share: `settings` (what the operator
decides), `admission` (what a request may ask), `answers` (the tokens of one answer and which of them are marked),
`rows` (a step of a batch), `watch` (whether the mark is really there) and `hook` (all of it put together).
"""
