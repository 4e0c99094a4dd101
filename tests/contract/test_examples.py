"""The documentation's example spans are what the integrations make: `WRITE_EXAMPLES=1` writes docs/examples.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from spanbridge.testing import encode
from tests.contract.test_contract import ENTRIES, instrumentor, name, trial  # noqa: F401 - fixtures

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples.json"
# What differs from run to run.
_VOLATILE = ("port", "size", "id", "pid", "agent", "thread", "latency", "time", "hostname", "to")


def shown(key: str, value: Any) -> Any:
    return "…" if key.replace("_", ".").rpartition(".")[2] in _VOLATILE else value


def as_documented(span: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {
        "span": f"{span['name']} ({span['kind']})",
        "attributes": {key: shown(key, span["attributes"][key]) for key in sorted(span["attributes"])},
        "datadog": {key: row[key] for key in ("name", "resource", "service", "type")},
    }


def test_example(name: str, instrumentor: Any, trial: Any, spans: Any) -> None:  # noqa: F811
    instrumentor.instrument()
    trial.operate()
    rows = {row["span_id"]: row for chunk in msgspec.msgpack.decode(encode(spans.finished)) for row in chunk}
    made = [as_documented(span, rows[span["span_id"]]) for span in spans]
    known = json.loads(EXAMPLES.read_text()) if EXAMPLES.exists() else {}
    if os.environ.get("WRITE_EXAMPLES"):
        known[name] = made
        EXAMPLES.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False, default=str) + "\n")
    for example in (*made, *known.get(name, [])):  # values may differ between versions, names may not
        example["attributes"] = sorted(example["attributes"])
    assert known.get(name) == made, "run WRITE_EXAMPLES=1 pytest tests/contract/test_examples.py"


def test_every_integration_has_an_example() -> None:
    assert json.loads(EXAMPLES.read_text()).keys() == ENTRIES.keys()
