"""The command line: what all commands share, and the small ones."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command import line_of, run_python

import maxconv
from maxconv import _filtering, cli


def test_progress_is_shown_only_on_a_terminal_and_only_for_long_recordings(run, recording, taps_file, monkeypatch):
    """A pipe gets no progress bar, a terminal does once the recording is longer than a block."""
    out = recording.with_name("out.wav")
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: True))
    assert run("filter", recording, out, "--taps", taps_file)[2] == ""
    monkeypatch.setattr(_filtering, "BLOCK", 100)
    assert "Filtering" in run("filter", recording, out, "--taps", taps_file, "--force")[2]
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: False))
    assert run("filter", recording, out, "--taps", taps_file, "--force")[2] == ""


def test_debug_shows_the_traceback(recording):
    """--debug, anywhere, raises the error itself."""
    with pytest.raises(maxconv.MaxconvError, match="does not exist"):
        cli.main(["filter", str(recording.with_name("no.wav")), "out.wav", "--lowpass", "9", "--debug"])


def test_version_and_help_are_printed(run):
    """--version gives one line; without arguments, and with --help, there is help."""
    assert run("--version") == (0, f"maxconv {installed_version('maxconv')}\n", "")
    for arguments in ([], ["--help"]):
        code, out, _ = run(*arguments)
        assert (code, "filter" in out, "demo" in out, "info" in out) == (0, True, True, True)
    assert line_of(run("fliter"))[0] == 2


def test_a_shell_can_complete_commands_and_options(monkeypatch, capsys):
    """What Typer's completion scripts ask for is answered, and is no error."""
    monkeypatch.setenv("_MAXCONV_COMPLETE", "complete_bash")
    for words, wanted in (("maxconv fi", "filter"), ("maxconv filter --low", "--lowpass")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert cli.main([]) == 0
        assert capsys.readouterr().out.split() == [wanted]


def test_help_names_the_exit_codes(run):
    """The codes that a script meets stand in the help."""
    text = " ".join(run("--help")[1].split())
    for code in ("0 done", "1 failed", "2 wrong arguments", "130 interrupted", "143 terminated"):
        assert code in text


def test_info_is_readable_and_its_json_parses(run):
    """Info shows every fact as text; --json gives the same as one JSON object."""
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert (code, facts["maxconv"]) == (0, installed_version("maxconv"))
    code, out, _ = run("info")
    assert code == 0
    for name, value in facts.items():
        assert name in out
        for inner in value if isinstance(value, dict) else ():
            assert inner in out


def test_info_shows_nested_lists_and_dicts(run, monkeypatch):
    """Whatever the engine reports is laid out, accelerators one by one, and long paths are not folded in a pipe."""
    facts = {
        "accelerators": [{"id": 0, "name": "first"}, {"id": 1, "name": "second"}],
        "cache": {"folder": "/x" * 200, "entries": ["a", "b"], "none": []},
        "empty": {},
    }
    monkeypatch.setattr("maxconv._engine.report", lambda: facts)
    lines = [line.split() for line in run("info")[1].splitlines()]
    for line in (["-", "id", "1"], ["name", "second"], ["folder", "/x" * 200], ["b"], ["none", "none"]):
        assert line in lines


@pytest.mark.parametrize(("ending", "code"), [(None, 0), (SystemExit(), 0), (SystemExit(3), 3), (SystemExit("bad"), 1)])
def test_demo_exits_as_the_example_does(run, monkeypatch, ending, code):
    """`maxconv demo` runs examples/p15.py, which the package carries as `_p15`, exit code included."""

    def example(module, run_name):
        sys.stdout.write(f"{module} {run_name} {Path(find_spec(module).origin).resolve().name}")
        if ending is not None:
            raise ending

    monkeypatch.setattr("runpy.run_module", example)
    assert run("demo") == (code, "maxconv._p15 __main__ p15.py", "bad\n" if code == 1 else "")


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("typer", ["info"]),
        ("rich.console", ["info"]),
        ("soundfile", ["filter", "IN", "OUT.wav", "--taps", "TAPS"]),
        ("matplotlib", ["filter", "IN", "OUT.wav", "--taps", "TAPS", "--plot", "what.png"]),
        ("scipy.signal", ["filter", "IN", "OUT.npy", "--lowpass", "9"]),
    ],
)
def test_a_missing_extra_is_one_line(run, recording, taps_file, monkeypatch, missing, arguments):
    """Without the packages of the extra, the command says how to install them."""
    monkeypatch.setitem(sys.modules, missing, None)
    names = {"IN": recording, "TAPS": taps_file, "OUT.wav": recording.with_name("out.wav")}
    if missing == "scipy.signal":
        np.save(recording.with_name("in.npy"), np.ones(3))
        names |= {"IN": recording.with_name("in.npy"), "OUT.npy": recording.with_name("out.npy")}
        arguments = [*arguments, "--rate", "99"]
    code, err = line_of(run(*(names.get(word, word) for word in arguments)))
    extra = "plot" if missing == "matplotlib" else "cli"
    assert (code, err) == (1, f"maxconv: the command line needs {missing}: pip install 'maxconv[{extra}]'\n")


def test_importing_the_module_loads_nothing_of_the_extra():
    """`import maxconv.cli` is cheap: neither Typer, Rich, SciPy nor soundfile is loaded."""
    heavy = "{'typer', 'rich', 'scipy', 'soundfile', 'matplotlib', 'max'}"
    program = f"import sys, maxconv.cli; print({heavy} & set(sys.modules))"
    assert run_python(program).stdout == "set()\n"
