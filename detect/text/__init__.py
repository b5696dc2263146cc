"""From files to token ids, and from token ids to distinct (context, token) tuples; no key has a part in it."""
