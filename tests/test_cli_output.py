"""`maxconv filter`: the output appears whole or not at all, and overwrites nothing unasked."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import files, line_of, run_python

import maxconv
from maxconv import _filtering, cli


def test_an_existing_output_is_replaced_only_by_force(run, recording, taps_file, monkeypatch):
    """Without --force nothing is computed and the file stays; with it a new one takes its place and permissions."""
    out = recording.with_name("out.wav")
    out.write_text("precious")
    out.chmod(0o640)
    with monkeypatch.context() as patch:
        patch.setattr(maxconv, "convolve", None)
        code, err = line_of(run("filter", recording, out, "--taps", taps_file))
    assert (code, err) == (1, f"maxconv: OUT: '{out}' already exists; --force overwrites it\n")
    assert out.read_text() == "precious"
    assert run("filter", recording, out, "--taps", taps_file, "--force")[0] == 0
    assert soundfile.info(out).frames == 1000
    assert out.stat().st_mode & 0o777 == 0o640
    assert files(out.parent) == ["in.wav", "out.wav"]


def test_an_output_is_never_an_input(run, recording, taps_file):
    """IN, by its own or another name, and the taps are not overwritten, even by force."""
    before = recording.read_bytes()
    alias = recording.with_name("alias.wav")
    alias.symlink_to(recording)
    os.link(taps_file, recording.with_name("taps.csv"))
    for out in (recording, alias, recording.with_name("taps.csv")):
        code, err = line_of(run("filter", recording, out, "--taps", taps_file, "--force"))
        assert (code, err) == (2, f"maxconv: OUT: '{out}' is also an input; expected another file\n")
    assert recording.read_bytes() == before


def test_an_output_path_that_cannot_be_is_refused(run, recording, taps_file, monkeypatch):
    """A folder, a missing or forbidden folder, a device, and links that lead nowhere are refused as OUT."""
    folder = recording.parent
    (folder / "out.wav").mkdir()
    (folder / "null.wav").symlink_to("/dev/null")
    (folder / "loop.wav").symlink_to(folder / "pool.wav")
    (folder / "pool.wav").symlink_to(folder / "loop.wav")
    nowhere = folder / "no" / "there.wav"
    (folder / "link.wav").symlink_to(nowhere)
    cases = [
        (folder / "out.wav", f"OUT: '{folder / 'out.wav'}' is a directory; expected a file name"),
        (folder / "no" / "out.wav", f"OUT: folder '{folder / 'no'}' does not exist"),
        (folder / "null.wav", "is not a regular file"),
        (folder / "loop.wav", f"OUT: '{folder / 'loop.wav'}' is a link that leads back to itself"),
        (
            folder / "link.wav",
            f"OUT: '{folder / 'link.wav'}' is a link to '{nowhere}', whose folder does not exist",
        ),
    ]
    for out, message in cases:
        code, err = line_of(run("filter", recording, out, "--taps", taps_file, "--force"))
        assert (code, message in err) == (1, True), err
    monkeypatch.setattr(Path, "touch", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    code, err = line_of(run("filter", recording, folder / "new.wav", "--taps", taps_file))
    assert (code, err) == (1, f"maxconv: OUT: no permission to open '{folder / 'new.wav'}'\n")


def test_an_output_link_is_followed(run, recording, taps_file, tmp_path):
    """A link to a file that does not exist yet, in a folder that does, stays a link; the file is made."""
    link = recording.with_name("link.wav")
    link.symlink_to(tmp_path / "out.wav")
    assert run("filter", recording, link, "--taps", taps_file)[0] == 0
    assert (link.is_symlink(), soundfile.info(tmp_path / "out.wav").frames) == (True, 1000)
    assert files(recording.parent) == ["in.wav", "link.wav"]


def test_the_output_is_on_the_disk_before_it_has_its_name(run, recording, taps_file, monkeypatch):
    """The whole file is flushed under its temporary name, so that a power cut leaves it or nothing."""
    out, sync, synced = recording.with_name("out.wav"), os.fsync, []

    def note(descriptor):
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size, files(out.parent)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert run("filter", recording, out, "--taps", taps_file)[0] == 0
    (inode, size, names) = synced[-1]
    assert (inode, size) == (out.stat().st_ino, out.stat().st_size)
    assert [name for name in names if not name.endswith(".part")] == ["in.wav"]


@contextmanager
def permissions_of_anybody():
    """Take from a superuser, while it lasts, the right to write into every folder; see capset(2)."""
    libc, header, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    had = data[0]  # what is in effect of the lower 32
    data[0] = had & ~(1 << 1)  # CAP_DAC_OVERRIDE
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] = had
        assert libc.capset(header, data) == 0


def test_a_folder_without_permission_is_refused(run, recording, taps_file):
    """An output folder that may not be written is one line."""
    recording.parent.chmod(0o500)
    with permissions_of_anybody():
        code, err = line_of(run("filter", recording, recording.with_name("out.wav"), "--taps", taps_file))
    recording.parent.chmod(0o700)
    assert (code, "OUT: no permission" in err) == (1, True)


FAILURES = [
    (maxconv.DeviceError("convolve: no gpu; see `maxconv info`"), 1, "convolve: no gpu; see `maxconv info`"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (ZeroDivisionError("two\nlines"), 1, "unexpected ZeroDivisionError: two lines (--debug shows where)"),
]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("suffix", [".wav", ".npy", ".csv"])
@pytest.mark.parametrize(("failure", "code", "line"), FAILURES)
def test_a_failure_in_the_middle_leaves_no_trace(
    run, recording, taps_file, monkeypatch, existing, suffix, failure, code, line
):
    """When the third block fails or Ctrl-C comes, OUT is as before and nothing else is in the folder."""
    out = recording.with_name(f"out{suffix}")
    if existing:
        out.write_text("precious")
    convolve, calls, folder_meanwhile = maxconv.convolve, [], []

    def fail_late(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            folder_meanwhile.extend(files(out.parent))
            raise failure
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", fail_late)
    monkeypatch.setattr(_filtering, "BLOCK", 200)
    assert line_of(run("filter", recording, out, "--taps", taps_file, "--force")) == (code, f"maxconv: {line}\n")
    assert any(name.endswith(".part") for name in folder_meanwhile)
    assert files(out.parent) == (["in.wav", out.name] if existing else ["in.wav"])
    assert not existing or out.read_text() == "precious"


def test_a_terminated_run_leaves_no_trace(recording, taps_file):
    """SIGTERM in the middle ends the process with 143, one line, and no file."""
    program = """if True:
        import sys, time, maxconv
        from maxconv.cli import main
        def wait(*_, **__):
            print("waiting", flush=True)
            time.sleep(60)
        maxconv.convolve = wait
        sys.exit(main(["filter", "in.wav", "out.wav", "--taps", sys.argv[1]]))
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, taps_file],
        cwd=recording.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        assert len(files(recording.parent)) == 2
        process.terminate()
        assert process.communicate() == ("", "maxconv: terminated\n")
    assert process.returncode == 143
    assert files(recording.parent) == ["in.wav"]


@pytest.mark.parametrize("own", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_the_handler_of_sigterm_is_put_back(run, recording, taps_file, monkeypatch, own):
    """Only the default of SIGTERM is replaced, only while filtering, and after a failure too it is as before."""
    convolve, during = maxconv.convolve, []

    def note(*arguments, **options):
        during.append(signal.getsignal(signal.SIGTERM))
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", note)
    before = signal.signal(signal.SIGTERM, own)
    try:
        for source, code in ((recording, 0), (recording.with_name("no.wav"), 1)):
            assert run("filter", source, recording.with_name("out.wav"), "--taps", taps_file, "--force")[0] == code
            assert signal.getsignal(signal.SIGTERM) is own
        assert (during[0] is own) == (own is not signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_filtering_works_in_a_thread(recording, taps_file):
    """Outside the main thread, where Python sets no handlers, the command does without."""
    arguments = ["filter", str(recording), str(recording.with_name("out.wav")), "--taps", str(taps_file)]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, arguments).result() == 0


def test_an_output_that_appears_meanwhile_is_not_overwritten(run, recording, taps_file, monkeypatch):
    """A file that somebody else makes under OUT's name during the run is theirs."""
    out, convolve = recording.with_name("out.wav"), maxconv.convolve

    def be_late(*arguments, **options):
        out.write_text("precious")
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", be_late)
    code, err = line_of(run("filter", recording, out, "--taps", taps_file))
    assert (code, "already exists" in err, out.read_text()) == (1, True, "precious")
    assert files(out.parent) == ["in.wav", "out.wav"]
    out.unlink()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    code, err = line_of(run("filter", recording, out, "--taps", taps_file))
    assert (code, "already exists" in err, out.read_text()) == (1, True, "precious")


def test_without_hard_links_the_output_is_renamed(run, recording, taps_file, monkeypatch):
    """On a file system without hard links the output still appears at once and alone."""
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    assert run("filter", recording, recording.with_name("out.wav"), "--taps", taps_file)[0] == 0
    assert files(recording.parent) == ["in.wav", "out.wav"]


def test_a_full_disk_leaves_no_trace(rng, taps_file, tmp_path):
    """When the disk takes no more, in every format, that is one line about OUT, and no file is left."""
    work = tmp_path / "work"
    work.mkdir()
    np.save(work / "in.npy", rng.uniform(-1, 1, 20_000))
    program = """if True:
        import resource, sys
        from maxconv.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        for out in ("out.npy", "out.csv", "out.wav", "out.flac"):
            print(main(["filter", "in.npy", out, "--rate", "8000", "--taps", sys.argv[1]]))
    """
    done = run_python(program, taps_file, cwd=work)
    assert done.stdout.split() == ["1"] * 4
    assert [line.split(":")[:3] for line in done.stderr.splitlines()] == [
        ["maxconv", " OUT", f" 'out{suffix}'"] for suffix in (".npy", ".csv", ".wav", ".flac")
    ]
    assert files(work) == ["in.npy"]
