"""A trace's record as one HTML page: no scripts, no network, nothing but the record in it (see `html`)."""

from __future__ import annotations

from markupsafe import Markup

from detect.records.trace import TraceRecord
from detect.records.written import key_label, percent
from detect.report.detection.page import drawn, pretty_json, shared
from detect.report.paper import plots
from detect.report.trace import plots as trace_plots
from detect.report.trace.manifest import asked, manifest, models
from detect.report.trace.method import method, references
from detect.report.trace.sceptic import hypotheses, objections
from detect.report.trace.text import share_lines, summary
from detect.report.trace.wording import (
    RECOMPUTE,
    VERIFY,
    control_lines,
    decoys_beside,
    deviations,
    number,
    readouts,
    signed,
    strongest_keys,
    tenants_tested,
)

KEYS = 200  # of the table of keys
ROWS = 200  # of every other table


def render_trace_html(record: TraceRecord) -> str:
    """Render the record as one self-contained HTML page."""
    return drawn(
        "trace.html.j2",
        record=record,
        **shared(record),
        summary=summary(record),
        hypotheses=hypotheses(),
        objections=objections(record),
        keys=strongest_keys(record)[:KEYS],
        tenants=tenants_tested(record),
        readouts=readouts(record),
        rows=ROWS,
        key_label=key_label,
        percent=percent,
        number=number,
        signed=signed,
        deviations=deviations,
        plots=_plots(record),
        control_lines=control_lines(record),
        share_lines=list(share_lines(record)),
        sections=method(record),
        references=references(),
        models=models(record)[:ROWS],
        asked=asked(record),
        facts=manifest(record),
        spec=pretty_json(record.spec),
        verify=VERIFY,
        command=RECOMPUTE,
    )


def _plots(record: TraceRecord) -> dict[str, Markup | None]:
    """Draw what the record has numbers for; a refused record shows no p-value of a true key."""
    drawn: dict[str, Markup | None] = dict.fromkeys(("evidence", "by_key", "comparison", "doses", "strip", "curve"))
    if record.refused is None:
        drawn["evidence"] = trace_plots.evidence(record, "evidence-plot")
        drawn["by_key"] = trace_plots.keys(record, "keys-plot")
        drawn["comparison"] = trace_plots.comparison(record, "readouts-plot")
        drawn["doses"] = trace_plots.dose_response(record.share, "doses-plot")
    decoys = record.controls.decoy_log10_pvalues
    if decoys:
        drawn["strip"] = plots.decoy_strip(decoys, decoys_beside(record), "strip-plot")
        drawn["curve"] = plots.decoy_curve(decoys, decoys_beside(record), "curve-plot")
    return drawn
