import subprocess
import sys
from pathlib import Path

import pytest

from unc_jax import cli
from unc_jax.errors import InputError, counted


def ended(function, capfd, *flags):
    parser = cli.Parser("unc_jax.toy", "Does a thing.", example="--output there")
    parser.add_output()
    with pytest.raises(SystemExit) as end:
        cli.run_command(function, parser, ["--output", "there", *flags])
    return end.value.code, capfd.readouterr().err


def raising(error):
    def function(arguments):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("wrong\nscan"), 2, "error: wrong scan\n"),
        (FloatingPointError("NaN loss"), 3, "error: NaN loss\n"),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, line, capfd):
    assert ended(raising(error), capfd) == (code, line)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (15, 143, "stopped by signal 15; run again to resume\n"),
        (None, 130, "interrupted; finished cases are kept\n"),
    ],
)
def test_a_signal_ends_a_command_whatever_its_threads_do(number, code, line):
    # At Python's own end, threads that run programs of JAX crash the process.
    program = (
        "import atexit, os, signal\n"
        "from unc_jax import cli, main\n"
        "atexit.register(os.abort)\n"
        # A shell starts what runs in the background with interrupts ignored.
        "signal.signal(2, signal.default_int_handler)\n"
        f"if {number}: signal.signal({number}, main._stop)\n"
        "def run():\n"
        "    try:\n"
        f"        signal.raise_signal({number or 2})\n"
        "    finally:\n"
        "        print('tidied')\n"
        "cli.run_guarded(run, debug=False)\n"
    )
    root = Path(__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root
    )
    assert (ended.returncode, ended.stderr) == (code, line)
    assert ended.stdout == "tidied\n"


def test_an_error_of_the_system_names_the_output(capfd):
    code, line = ended(raising(OSError(28, "full")), capfd)
    assert code == 2
    assert line.startswith("error: there: no space left")
    assert line.count("\n") == 1


def test_debug_lets_the_traceback_through():
    parser = cli.Parser("unc_jax.toy", "Does a thing.", example="--debug")
    with pytest.raises(InputError):
        cli.run_command(raising(InputError("wrong")), parser, ["--debug"])


def test_a_fault_of_the_program_is_no_user_error():
    parser = cli.Parser("unc_jax.toy", "Does a thing.", example="")
    with pytest.raises(ZeroDivisionError):
        cli.run_command(raising(ZeroDivisionError()), parser, [])


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (4, 4)])
def test_the_result_is_the_exit_code(result, code, capfd):
    assert ended(lambda arguments: result, capfd) == (code, "")


def test_a_closed_pipe_is_one_line():
    program = (
        "from unc_jax import cli\n"
        "parser = cli.Parser('toy', 'Prints.', example='')\n"
        "cli.run_command(lambda a: print('x' * 10_000_000), parser, [])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait() == 141
    assert errors == "error: the output was closed by its reader\n"


def test_numbers_have_their_nouns():
    said = [counted(n, "case") for n in range(3)]
    assert said == ["0 cases", "1 case", "2 cases"]


def test_help_ends_with_an_example(capsys):
    parser = cli.Parser("unc_jax.toy", "Does a thing.", example="--output there")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert capsys.readouterr().out.endswith("python -m unc_jax.toy --output there\n")


def test_a_run_is_no_output(tmp_path, capfd):
    (tmp_path / "config.json").write_text("{}")
    code, line = ended(lambda arguments: 0, capfd, "--output", str(tmp_path))
    assert code == 2
    assert "folder of a run" in line


def test_labels_are_numbers_or_names():
    assert cli.labels("1, liver+2") == ((1,), ("liver", 2))
    assert cli.labels("0032767") == ((32767,),)
    for wrong in ("0", "1,,2", "1+,2", "", "32768", "1+40000", "9" * 20, "9" * 5000):
        with pytest.raises(cli.argparse.ArgumentTypeError):
            cli.labels(wrong)
