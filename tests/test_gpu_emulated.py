"""GPU kernels executed without a GPU, their PTX by the emulator of tests/emulator; and that it finds what is wrong."""

from __future__ import annotations

import re

import emulated
import pytest
from mojo_jobs import ROOT, Job

pytestmark = pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing())

FAULTS = Job(ROOT / "tests/mojo/faults_gpu.mojo", "sm_80", becomes="program")

#: Memory of a device for a program that takes a few kilobytes, in MiB.
LITTLE = 64

#: Fault -> what strict emulation says of it.
FOUND = {
    "bounds": "copy of memory that nobody wrote",  # MAX's arrays are parts of larger ones: what is behind is one, too
    "barrier": "another warp (wrote|read), without a barrier between",
    "await": "before the copy to it is awaited",
}


@pytest.mark.parametrize("job", [FAULTS], ids=str)
def test_a_right_kernel_has_no_fault(done, job):
    """What is right is not refused, however strict the emulator is."""
    ran = emulated.run(done(job)[0], "none", strict="all", memory=LITTLE)
    assert ran.stdout == "mirrored\n"
    assert ran.returncode == 0


@pytest.mark.parametrize("job", [FAULTS], ids=str)
@pytest.mark.parametrize("fault", FOUND)
def test_strict_emulation_names_the_fault(done, job, fault):
    """A read behind an array, a missing barrier and a missing wait each stop the kernel, with their name."""
    ran = emulated.run(done(job)[0], fault, strict="races", memory=LITTLE)
    assert re.search(FOUND[fault], ran.stdout)
    assert ran.returncode != 0


@pytest.mark.emulated
@pytest.mark.parametrize("job", [FAULTS], ids=str)
@pytest.mark.parametrize("order", ["reverse", "random"])
def test_a_missing_barrier_shows_in_results(done, job, order):
    """Without a barrier results are wrong, and with it right, in other orders of warps too."""
    assert emulated.run(done(job)[0], "barrier", order=order, memory=LITTLE).returncode != 0
    assert emulated.run(done(job)[0], "none", order=order, memory=LITTLE).returncode == 0


def checks(*names: str) -> list[Job]:
    """List the programs that hold GPU kernels to CPU kernels."""
    return [Job(ROOT / f"tests/mojo/check_{name}_gpu.mojo", "sm_80", becomes="program") for name in names]


@pytest.mark.emulated
@pytest.mark.parametrize("job", checks("direct"), ids=str)
def test_direct_kernels_agree_with_the_cpu(done, job):
    """The kernels of direct sums give what the CPU's give, in every type, without races, whatever warp comes first."""
    ran = emulated.run(done(job)[0], "brief", order="random", strict="races")
    assert "calls agree with the CPU kernels" in ran.stdout, ran.stdout[-2000:]
    assert ran.returncode == 0


@pytest.mark.emulated
@pytest.mark.parametrize("job", checks("columns", "depthwise", "layers", "overlap_save", "polyphase"), ids=str)
@pytest.mark.parametrize("order", ["", "reverse"])
def test_kernels_pass_their_checks(done, job, order):
    """The kernels of each algorithm pass the short form of their check, without races."""
    ran = emulated.run(done(job)[0], "least" if "overlap_save" in str(job) else "brief", order=order, strict="races")
    assert ran.returncode == 0, ran.stdout[-2000:]
