"""Whether every kind of normal keeps the share of false alarms that was allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contents import Tables, section
from ..numbers import counted, percent

_LISTED = 6


@section
def gate(tables: Tables) -> dict[str, Any]:
    """What `--max-group-fpr` asked for and whether it is kept; None where it was not asked."""
    said = tables.settings.get("group_fpr")
    return {"gate": _sentence(said) if said else None}


def _sentence(said: Mapping[str, Any]) -> dict[str, Any]:
    """`ok`, and a `text`."""
    rows, limit = [*said["kinds"], *said.get("test", [])], percent(said["limit"])
    over = [row for row in rows if row["name"] in said["broken"]]
    text = f"No kind of normal has clearly more than {limit} of false alarms (--max-group-fpr)"
    if over:
        listed = ", ".join(f"'{row['name']}' with {counted(row)}" for row in over[:_LISTED])
        more = f" and {len(over) - _LISTED} more" if len(over) > _LISTED else ""
        text = f"More than the {limit} of false alarms allowed (--max-group-fpr): kind {listed}{more}"
    elif told := [row for row in rows if row["of"] and row["name"] not in said["too_few"]]:
        most = max(told, key=lambda row: row["share"])
        text += f". Kind '{most['name']}' has the most, {counted(most)}"
    if few := said["too_few"]:
        listed = ", ".join(few[:_LISTED]) + (f" and {len(few) - _LISTED} more" if len(few) > _LISTED else "")
        text += f". Too few samples to judge kind {listed}"
    return {"ok": not over, "text": text}
