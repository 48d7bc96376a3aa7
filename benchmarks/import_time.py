"""Time of importing tailwise with its plug-ins against `import torch`, in fresh processes. Must be at most 1.2.

python benchmarks/import_time.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial

import timing

STATEMENTS = {
    "tailwise": "import tailwise; tailwise.importance_weights, tailwise.ImportanceWeightedLoss, tailwise.Weighting",
    "torch": "import torch",
    # What `tailwise --help` and a plain `import tailwise` wait for.
    "nothing used": "import tailwise",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    jobs = {
        name: partial(subprocess.run, [sys.executable, "-c", statement], check=True)
        for name, statement in STATEMENTS.items()
    }
    timing.show("import_time", timing.interleaved(jobs, options.repeats), ("tailwise", "torch"))


if __name__ == "__main__":
    main()
