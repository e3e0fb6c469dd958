"""Peak memory of a new process that convolves 10^8 float32 samples with 10^4 taps, beside the size of its arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SAMPLES, TAPS = 10**8, 10**4
LIMIT = 1.3
"""Input and output once each, and a third of that for work space."""

#: Prints bytes: peak of the process after a small call of the same kind, peak at the end, input, output.
PROGRAM = """
import json, sys
from resource import RUSAGE_SELF, getrusage
import numpy, maxconv
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: getrusage(RUSAGE_SELF).ru_maxrss * unit
rng = numpy.random.default_rng()
maxconv.convolve(rng.standard_normal(10**5, "f4"), rng.standard_normal(1000, "f4"), method="{method}")
before = peak()
x, k = rng.standard_normal({samples}, "{dtype}"), rng.standard_normal({taps}, "{dtype}")
y = maxconv.convolve(x, k, method="{method}")
print(json.dumps([before, peak(), x.nbytes + k.nbytes, y.nbytes]))
"""


def peak_memory(samples: int, taps: int, dtype: str = "f4", method: str = "auto") -> float:
    """Return by how much a process grows for a convolution, in sizes of its input and output."""
    program = PROGRAM.format(samples=samples, taps=taps, dtype=dtype, method=method)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    before, after, inputs, output = json.loads(done.stdout)
    return float((after - before) / (inputs + output))


def bench() -> list[dict[str, Any]]:
    """Measure, print, and refuse a result above the limit."""
    ratio = peak_memory(SAMPLES, TAPS)
    print(f"float32 N={SAMPLES} K={TAPS}, auto: the process grows by {ratio:.3f} times input + output, limit {LIMIT}")
    if ratio > LIMIT:
        message = f"memory: {ratio:.3f} is above {LIMIT}"
        raise SystemExit(message)
    return [{"case": f"float32 N={SAMPLES} K={TAPS} auto", "peak_over_arrays": ratio, "limit": LIMIT}]
