"""Hooks of inference servers: thin files per engine over the `hook` that all of them share.

A request names an account; the server derives that account's key.
"""
