"""Foreign formats: marks that other systems write and that dyetrace reads with those systems' keys.

How to add a format
-------------------
One file with one frozen dataclass, and one line in `watermark.registry.FORMATS` (or, in a package of your own, an
entry point in the group ``dyetrace.formats``). The class follows `watermark.formats.protocol.Format`:

1. Fields are what may be published (width, green share, layers, vocabulary size). The key is no field.
2. ``words(key, contexts, tokens)`` is the other system's function, bit for bit and vectorised; ``statistic`` turns
   words into integers, and ``law`` says how these are distributed for a random key (`watermark.laws`).
3. ``inputs(key, contexts, tokens)`` numbers what is really hashed: two tuples that share their word by construction
   (a context of which only the smallest hash counts, a seed cut to 32 bits) must share the number. They count once.
4. ``draw_key(seed)`` draws a key as an operator would, ``parse_key(text)`` reads it as the configuration spells it.
5. Be honest in ``exact``, ``why_not_exact`` and ``seed_bits``: where the words are no match for a cipher, p-values
   come from decoy keys of the format and not from the law (`detect.keyed.calibration`).

A test compares words with the system's own code, and tests/detect/document/test_formats.py takes the format up by
itself: p-values under fresh keys on prose, code and repetitive text must be uniform or larger. Then ``detect``,
``scan`` and ``trace`` take a spec whose ``scheme`` is the format's name, with a key file from ``dyetrace spec import``.
"""
