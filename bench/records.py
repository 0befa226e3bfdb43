"""What a benchmark found, kept as JSON and printed as a table."""

import json
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def keep(
    file: Path, rounds: list[dict[str, float]], packages: tuple[str, ...], **facts: Any
) -> None:
    """Writes and prints the median, the least and the most of each figure over all rounds.

    Args:
        file: where to.
        rounds: each round's figures by name.
        packages: whose versions matter.
        facts: what else is to be written.
    """
    results = {
        name: {
            "median": statistics.median(one[name] for one in rounds),
            "least": min(one[name] for one in rounds),
            "most": max(one[name] for one in rounds),
        }
        for name in rounds[0]
    }
    machine = f"{platform.machine()}, {_cpu_model()}, one core for the server"
    record = {
        "command": "make bench",
        "machine": machine,
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "model": "tiny",
        "rounds": len(rounds),
        **facts,
        "results": results,
    }
    file.write_text(json.dumps(record, indent=2) + "\n")
    table = Table("", "median", "least", "most", title=f"{len(rounds)} rounds, {machine}")
    for name, found in results.items():
        table.add_row(name, *(f"{found[key]:,.4g}" for key in ("median", "least", "most")))
    Console().print(table)


def _cpu_model() -> str:
    """Returns the CPU's name as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "unknown CPU")
