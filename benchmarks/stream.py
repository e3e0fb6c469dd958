"""`maxconv filter` on an hour of stereo sound: memory, time, the progress bar, and the bits of the in-memory result."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

RATE, CHANNELS, TAPS = 48_000, 2, 4097
DEFAULT_MINUTES = 60.0
LIMIT_BYTES = 200e6

#: Filters a second of sound first, so that everything is loaded, then the rest of the command line; prints the peak
#: memory of both on standard output.
PROGRAM = """
import json, pathlib, re, sys
from maxconv.cli import main
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
short, source, out, *options = sys.argv[1:]
assert main(["filter", short, out, "--force", *options]) == 0
before = peak()
assert main(["filter", source, out, "--force", "--json", *options]) == 0
print(json.dumps([before, peak()]))
"""


def make(path: Path, minutes: float) -> int:
    """Write minutes of tones in a little noise; return how many samples."""
    import soundfile

    samples, block = round(minutes * 60 * RATE), 10 * RATE
    rng = np.random.default_rng()
    with soundfile.SoundFile(str(path), "w", RATE, CHANNELS, "PCM_16") as file:
        for begin in range(0, samples, block):
            t = np.arange(begin, min(begin + block, samples)) / RATE
            tones = 0.3 * np.sin(2 * np.pi * np.outer(t, [220.0, 330.0]))
            file.write((tones + 0.001 * rng.standard_normal(tones.shape)).astype(np.float32))
    return samples


def run(arguments: list[str]) -> tuple[float, float, int, set[str]]:
    """Run the program on a terminal of its own; return seconds, bytes above start-up, and the percentages shown."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def listen() -> None:
        try:
            while piece := os.read(ours, 4096):
                shown.append(piece)
        except OSError:  # how a terminal says that nobody writes any more
            return

    listener = threading.Thread(target=listen)
    listener.start()
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    listener.join()
    os.close(ours)
    report, _, peaks = done.stdout.rstrip().rpartition("\n")
    before, after = json.loads(peaks)
    seconds = json.loads(report[report.index("{") :])["seconds"]
    return seconds, after - before, before, set(re.findall(r"\d+%", b"".join(shown).decode()))


def bench(minutes: float = DEFAULT_MINUTES) -> list[dict[str, Any]]:
    """Measure streaming, then filter in memory, and compare the files byte by byte."""
    with tempfile.TemporaryDirectory() as folder:
        short, source, out, taps = (str(Path(folder) / name) for name in ("s.flac", "in.flac", "out.flac", "taps.npy"))
        make(Path(short), 1 / 60)
        samples = make(Path(source), minutes)
        low_pass = np.hanning(TAPS)
        np.save(taps, low_pass / low_pass.sum())
        digests, figures = {}, {}
        for way in ("--stream", "--no-stream"):
            figures[way] = run([short, source, out, "--taps", taps, way])
            digests[way] = hashlib.sha256(Path(out).read_bytes()).hexdigest()
    seconds, growth, start, percentages = figures["--stream"]
    same = digests["--stream"] == digests["--no-stream"]
    megabytes = {way: figures[way][1] / 1e6 for way in figures}
    print(f"{minutes:g} min of FLAC, {TAPS} taps: {seconds:.1f} s, {megabytes['--stream']:.0f} MB above start-up")
    print(f"in memory: {figures['--no-stream'][0]:.1f} s, {megabytes['--no-stream']:.0f} MB; same bytes: {same}")
    print(f"the progress bar showed {len(percentages)} percentages")
    if not same or growth > LIMIT_BYTES:
        message = f"stream: the same bytes and at most {LIMIT_BYTES / 1e6:.0f} MB are promised"
        raise SystemExit(message)
    row = {
        "case": f"FLAC {RATE} Hz stereo {minutes:g} min K={TAPS}",
        "samples": samples,
        "seconds": {"stream": seconds, "in memory": figures["--no-stream"][0]},
        "bytes_above_start": {"stream": growth, "in memory": figures["--no-stream"][1]},
        "bytes_at_start": start,
        "percentages_shown": len(percentages),
        "same_bytes": same,
    }
    return [row]
