"""Two ways to do the same, each in a process of its own: so the peak of its memory is its own."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Way = Callable[[Path], None]


def compare(module: str, make: Callable[[Path], str], ways: Mapping[str, Way]) -> None:
    """Measure the first way and the second; called by a module's own ``main``.

    ``python -m MODULE WAY FOLDER`` goes one of the ways, which is how each gets its process.

    Args:
        module: the benchmark's name.
        make: fills a temporary folder, and says with what.
        ways: two, by their names, each given the folder.
    """
    if len(sys.argv) > 2:
        ways[sys.argv[1]](Path(sys.argv[2]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as name:
        print(make(Path(name)), flush=True)
        found = {way: _measured(module, way, name) for way in ways}
    for way, (seconds, peak) in found.items():
        print(f"{way}: {seconds:.1f} s, at most {peak:.0f} MB")
    first, second = ways
    ratios = [found[second][i] / found[first][i] for i in range(2)]
    print(f"{second} takes {ratios[0]:.2f} times the time, {ratios[1]:.1f} times the memory")


def _measured(module: str, way: str, folder: str) -> tuple[float, float]:
    """Seconds and peak MB."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, way, folder], check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - started, float(done.stdout.split()[-1])
