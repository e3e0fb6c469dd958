"""Peak memory of a new process that convolves 10^8 float32 samples with 10^4 taps, beside the size of its arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SAMPLES, TAPS = 10**8, 10**4
LIMIT = 1.3
"""Input and output once each, and a third of that for work space."""

#: Prints bytes: memory of the process after a small call of the same kind, its peak at the end, the arrays. Linux only:
#: `resource.getrusage` counts the parent's memory before exec as the child's peak.
PROGRAM = """
import json, pathlib, re
import numpy, maxconv
def status(field):
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(field + r":\\s+(\\d+) kB", text)[1])
rng = numpy.random.default_rng()
maxconv.convolve(rng.standard_normal(10**5, "f4"), rng.standard_normal(1000, "f4"), method="{method}")
before = status("VmRSS")
x, k = rng.standard_normal({samples}, "{dtype}"), rng.standard_normal({taps}, "{dtype}")
y = maxconv.convolve(x, k, method="{method}")
print(json.dumps([before, status("VmHWM"), x.nbytes + k.nbytes + y.nbytes]))
"""


def peak_memory(samples: int, taps: int, dtype: str = "f4", method: str = "auto") -> float:
    """Return by how much a process grows for a convolution, in sizes of its input and output."""
    program = PROGRAM.format(samples=samples, taps=taps, dtype=dtype, method=method)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    before, after, arrays = json.loads(done.stdout)
    return float((after - before) / arrays)


def bench() -> list[dict[str, Any]]:
    """Measure, print, and refuse a result above the limit."""
    ratio = peak_memory(SAMPLES, TAPS)
    print(f"float32 N={SAMPLES} K={TAPS}, auto: the process grows by {ratio:.3f} times input + output, limit {LIMIT}")
    if ratio > LIMIT:
        message = f"memory: {ratio:.3f} is above {LIMIT}"
        raise SystemExit(message)
    return [{"case": f"float32 N={SAMPLES} K={TAPS} auto", "peak_over_arrays": ratio, "limit": LIMIT}]
