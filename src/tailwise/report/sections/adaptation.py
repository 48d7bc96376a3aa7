"""What a run was adapted to, and what it changed for each kind of the target."""

from __future__ import annotations

from typing import Any

from ..contents import Tables, section


@section
def adaptation(tables: Tables) -> dict[str, Any]:
    """The last adaptation, its figures and the flagged samples of each kind before and after; None without one."""
    rows = tables.settings.get("adaptations") or ()
    if not rows:
        return {"adaptation": None}
    row = rows[-1]
    return {"adaptation": {**row, "figures": dict(row["figures"]), "kinds": [dict(kind) for kind in row["kinds"]]}}
