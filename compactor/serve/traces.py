"""The calls that read traces: conversations and spans that a run logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import msgspec

from compactor.serve.hub import Hub
from compactor.serve.project import Project
from compactor.serve.reads import OfRun
from compactor.serve.typed import TRACES
from compactor.serve.typedrows import dump
from eventlog.runs import RunPart
from eventlog.view import name_of

_MOST_TRACES: Final = 10_000


class Traces(msgspec.Struct):
    """Arguments of `get_traces`."""

    project: str
    run: str | None = None
    run_id: str | None = None
    search: str | None = None
    sort: str | None = None
    limit: int | float | str | None = None
    offset: int | float | str | None = 0
    step: int | float | str | None = None


def get_trace_steps(hub: Hub, call: OfRun) -> dict[str, Any]:
    """Return how many traces a run logged at each step."""
    counts: dict[int | None, int] = {}
    for trace in _traces(hub, call.project, call.run, call.run_id):
        counts[trace["step"]] = counts.get(trace["step"], 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (item[0] is not None, item[0] or 0))
    return {"total": sum(counts.values()), "steps": [{"step": step, "count": count} for step, count in ordered]}


def get_traces(hub: Hub, call: Traces) -> list[dict[str, Any]]:
    """Return the traces of a run that contain a text, sorted, one page of them."""
    found = _traces(hub, call.project, call.run, call.run_id)
    step = _number(call.step)
    needle = dump((call.search or "").strip().lower())[1:-1].decode()
    traces = [
        trace
        for trace in found
        if (step is None or trace["step"] == step) and (not needle or needle in _searched(trace))
    ]
    key = "step" if (call.sort or "").startswith("step") else "timestamp"
    order = [
        ((trace[key] is not None, trace[key] if trace[key] is not None else 0, position), trace)
        for position, trace in enumerate(traces)
    ]
    order.sort(key=lambda item: item[0], reverse=not (call.sort or "").endswith("asc"))
    start = max(_number(call.offset) or 0, 0)
    limit = _number(call.limit)
    count = _MOST_TRACES if limit is None else max(min(limit, _MOST_TRACES), 0)
    return [trace for _, trace in order[start : start + count]]


def _number(value: float | str | None) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None


def _searched(trace: dict[str, Any]) -> str:
    """Return what a search looks at; inputs and outputs of spans repeat the conversation and are left out."""
    spans = [
        {key: value for key, value in span.items() if key not in ("input", "output")}
        if isinstance(span, dict)
        else span
        for span in trace["spans"]
    ]
    return dump([trace["id"], trace["key"], trace["messages"], trace["metadata"], spans]).decode().lower()


def _traces(hub: Hub, project: str, run: str | None, run_id: str | None) -> list[dict[str, Any]]:
    state = hub.find(project)
    part = state.resolve(run, run_id) if state is not None else None
    return [] if state is None or part is None else list(_of_run(state, part))


def _of_run(project: Project, part: RunPart) -> Iterator[dict[str, Any]]:
    earlier: Counter[str] = Counter()
    for row in project.typed(part.run_id, lambda rows: rows.of_kinds(TRACES)):
        # The dashboard shows the first characters of an id's second part: they tell one `log()` from another.
        moment = row["timestamp"]
        label = blake2b(
            f"{part.run_id} {moment} {earlier[moment]}".encode("utf-8", "replace"), digest_size=8
        ).hexdigest()
        earlier[moment] += 1
        for key, value in row.items():
            several = isinstance(value, list)
            for index, item in enumerate(value if several else [value]):
                if isinstance(item, dict) and item.get("_type") in TRACES:
                    suffix = f":{index}" if several else ""
                    yield {
                        "id": f"{part.run_id}:{label}:{row['step']}:{key}{suffix}",
                        "key": key,
                        "index": index if several else None,
                        "run": name_of(part),
                        "run_id": part.run_id,
                        "step": row["step"],
                        "timestamp": row["timestamp"],
                        **{field: _listed(item.get(field), field) for field in ("messages", "metadata", "spans")},
                    }


def _listed(value: Any, field: str) -> Any:
    wanted = dict if field == "metadata" else list
    return value if isinstance(value, wanted) else wanted()
