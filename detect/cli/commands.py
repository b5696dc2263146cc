"""All commands: where each is declared, and the groups that hold them."""

from __future__ import annotations

import click

from detect.cli.declaring import Commands

_TRACE = """Prove that a model was trained on marked outputs: from its weights, or through its endpoint.

\b
Example: dyetrace trace weights ./suspect --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
"""
_REPORT = """Check, draw and sign reports of scans, traces and detections.

\b
Example: dyetrace report verify evidence/report.json --public-key owner.pub
"""
_LEDGER = """Look into ledgers of served contexts, which servers write and traces read, and add them up.

\b
Example: dyetrace ledger merge server-*.ledger -o served.ledger
         dyetrace ledger info served.ledger
"""
_TWINS = """Look into private ledgers of twins, commit to them, show single pairs to experts, and erase pairs.

\b
Example: dyetrace twins info twins.ledger --twin-key file:twins.key
         dyetrace twins commit twins.ledger --twin-key file:twins.key -o twins.json
"""

COMMANDS = Commands(
    {
        "keygen": "marking:Keygen",
        "spec": "marking:Spec",
        "commit": "marking:Commit",
        "verify-commitment": "marking:VerifyCommitment",
        "generate": "marking:Generate",
        "detect": "detection:Detect",
        "demo": "detection:Demo",
        "scan": "scanning:Scan",
        "plan": "planning:Plan",
        "trace": click.Group(
            "trace",
            Commands(
                {
                    "weights": "trace:TraceWeights",
                    "plan": "trace:TracePlanning",
                    "api": "trace:TraceEndpoint",
                    "twins": "trace:TraceTwins",
                }
            ),
            help=_TRACE,
        ),
        "recompute": "detection:Recompute",
        "report": click.Group(
            "report",
            Commands(
                {
                    "verify": "reports:Verify",
                    "render": "reports:Render",
                    "sign": "reports:Sign",
                    "keygen": "reports:SigningKey",
                }
            ),
            help=_REPORT,
        ),
        "ledger": click.Group(
            "ledger",
            Commands({"info": "ledger:LedgerInfo", "hashes": "ledger:LedgerHashes", "merge": "ledger:LedgerMerge"}),
            help=_LEDGER,
        ),
        "twins": click.Group(
            "twins",
            Commands(
                {
                    "info": "twins:TwinsInfo",
                    "commit": "twins:TwinsCommit",
                    "reveal": "twins:TwinsReveal",
                    "verify": "twins:TwinsVerify",
                    "export": "twins:TwinsExport",
                    "erase": "twins:TwinsErase",
                    "regenerate": "twins_regenerate:TwinsRegenerate",
                }
            ),
            help=_TWINS,
        ),
        "serve-check": "serving:ServeCheck",
        "gateway": "gateway:Gateway",
        "schema": "ledger:Schema",
    }
)
