"""The card of a dataset: README.md, whose front matter tells the Hub's viewer which files are which table. Pure.

A card may hold more than one export, each under a directory of its own, and whatever people wrote: of an old card only
what an export of the same directory put there is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from eventlog.errors import UsageError
from eventlog.exporting.layout import DATA, INDEX

_FRONT: Final = re.compile(r"\A---[ \t]*\n(.*?)\n?---[ \t]*(?:\n|\Z)", re.DOTALL)
_TAGS: Final = ("eventlog", "experiment-tracking")


def make_card(project: str, repo: str, path: str, tables: Sequence[str], old: str | None) -> str:
    """Return the text of a card.

    Args:
        project: that was exported.
        repo: where the dataset is, for the commands in the text.
        path: the directory of the export in it, "" for all of it.
        tables: those that have files, the one to show first in front.
        old: the card that is there, or None.

    Raises:
        UsageError: the front matter of the old card is not as it must be, or PyYAML, which reads it, is missing.
    """
    configs = [_config(path, table, first=not path and index == 0) for index, table in enumerate(tables)]
    body = _body(project, repo, path, tables)
    if old is None:
        front = {"pretty_name": project, "tags": list(_TAGS), "configs": configs}
        return f"---\n{_lines(front)}---\n\n{body}"
    match = _FRONT.match(old)
    known = {} if match is None else _parse(match[1])
    listed = known.get("configs") or []
    if not isinstance(listed, list):
        raise UsageError("the configs in the dataset's README.md are no list, mend them first")
    others = [config for config in listed if not _is_ours(config, path)]
    if any(isinstance(config, dict) and config.get("default") for config in others):
        configs = [{key: value for key, value in config.items() if key != "default"} for config in configs]
    front = {**known, "configs": [*configs, *others]}
    head = f"---\n{_dump(front)}---\n" if front != known else old[: match.end()] if match else ""
    rest = old if match is None else old[match.end() :]
    return head + _with_body(rest, path, body)


def _config(path: str, table: str, *, first: bool) -> dict[str, Any]:
    name = f"{path.replace('/', '-')}-{table}" if path else table
    config: dict[str, Any] = {"config_name": name, "data_files": f"{_below(path)}{DATA}/{table}/*.parquet"}
    return {**config, "default": True} if first else config


def _below(path: str) -> str:
    return f"{path}/" if path else ""


def _is_ours(config: Any, path: str) -> bool:
    files = config.get("data_files") if isinstance(config, dict) else None
    return (
        isinstance(files, str)
        and re.fullmatch(re.escape(f"{_below(path)}{DATA}/") + r"\w+/\*\.parquet", files) is not None
    )


def _marks(path: str) -> tuple[str, str]:
    label = f"eventlog {path}".strip()
    return f"<!-- {label}: begin -->", f"<!-- {label}: end -->"


def _with_body(rest: str, path: str, body: str) -> str:
    begin, end = _marks(path)
    start, stop = rest.find(begin), rest.find(end)
    if 0 <= start < stop:
        return rest[:start] + body.rstrip("\n") + rest[stop + len(end) :]
    return f"{rest.rstrip()}\n\n{body}" if rest.strip() else f"\n{body}"


def _body(project: str, repo: str, path: str, tables: Sequence[str]) -> str:
    begin, end = _marks(path)
    names = {
        "metrics": "what was logged as numbers: one row a `log()`, one column a metric, null where it was not logged",
        "system": "system metrics, likewise",
        "events": "everything else: texts, tables, media, alerts, and how each run began and ended; `payload` is JSON",
        "runs": "one row a run: name, config, summary, status, times, and statistics of each metric",
    }
    listed = "\n".join(f"- `{_config(path, table, first=False)['config_name']}`: {names[table]}" for table in tables)
    base = f"{repo}{f'/{path}' if path else ''}"
    return f"""{begin}
# {_inert(project)}

Runs of machine-learning experiments, exported by `eventlog`. The tables are plain parquet:

{listed}

In `metrics`, `system` and `events`, `_run_id` is the `run_id` of `runs`, `_step` the step, `_time` the time in UTC, and
(`_writer`, `_seq`) the order in which one process logged. A metric whose name begins with `_` or `.` has one dot more.
Media are under `{_below(path)}blobs/`, by the `sha256` in the payload.

```python
import pandas

metrics = pandas.read_parquet("{base}/{DATA}/metrics")
```

All of it, with types and blobs, back into a store: `eventlog import {base} ./eventlog-store`. `{INDEX}` is for that.
{end}
"""


def _inert(text: str) -> str:
    """Return a name that cannot be markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def _lines(front: dict[str, Any]) -> str:
    # JSON is YAML: no name needs a quoting of its own.
    return "".join(f"{key}:{_value(value)}\n" for key, value in front.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "".join(f"\n- {json.dumps(item, ensure_ascii=True)}" for item in value)
    return " " + json.dumps(value, ensure_ascii=True)


def _parse(text: str) -> dict[str, Any]:
    yaml = _yaml()
    try:
        front = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"the front matter of the dataset's README.md is no YAML, mend it first: {error}") from None
    if front is None:
        return {}
    if not isinstance(front, dict):
        raise UsageError("the front matter of the dataset's README.md is no mapping, mend it first")
    return front


def _dump(front: dict[str, Any]) -> str:
    return str(_yaml().safe_dump(front, sort_keys=False, allow_unicode=True))


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise UsageError(
            "the README.md that is there can only be kept with PyYAML: pip install 'eventlog[hub]'"
        ) from None
    return yaml
