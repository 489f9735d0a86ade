"""How long the commands of a shell take to start, in seconds and as a ratio to Python doing nothing.

python tests/benchmarks/bench_start.py --json
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "playbill.cli", "--help"],
    "check": [sys.executable, "-m", "playbill.cli", "check"],
}


@click.command()
@click.option("--runs", default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(runs, as_json):
    """Time each command, after one run that is not counted, in turn."""
    seconds = {name: [] for name in COMMANDS}
    for number in range(runs + 1):
        for name, command in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            if number:
                seconds[name].append(time.perf_counter() - begun)
    medians = {f"{name}_seconds": statistics.median(values) for name, values in seconds.items()}
    for name in ("help", "check"):
        medians[f"{name}_ratio"] = medians[f"{name}_seconds"] / medians["python_seconds"]
        print(f"playbill {name}: {medians[f'{name}_seconds']:.2f} s, {medians[f'{name}_ratio']:.1f} times python")
    if as_json:
        print(json.dumps(medians))


if __name__ == "__main__":
    main()
