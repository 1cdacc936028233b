"""Every command explains itself (the wording of help is tested here), and none that asks the daemon imports much."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mountd.cli.main import COMMANDS, cli, main
from mountd.cli.options import Options

HEAVY = ["pydantic", "aiohttp", "structlog", "yaml", "rich", "asyncio", "http.client", "psutil", "mountd.settings"]
ROOT = Path(__file__).parents[2]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group, info_name="mountd")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_the_command_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == COMMANDS[name][2]


@pytest.mark.parametrize(("path", "command"), list(commands(cli)), ids=str)
def test_every_command_and_option_has_help(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path, "--help"]) == 0
    assert f"Usage: mountd {' '.join(path)}" in capsys.readouterr().out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.show_default, f"{path} {parameter.opts} has no help"


def test_no_arguments_shows_the_help_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    captured = capsys.readouterr()
    assert "Exit codes:" in captured.out + captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "mountd 0.1.0\n"


def test_unknown_command_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stauts"]) == 2
    assert "Did you mean status?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_MOUNTD_COMPLETE" in capsys.readouterr().out


def test_completion_of_a_command_name() -> None:
    environment = {"_MOUNTD_COMPLETE": "bash_complete", "COMP_WORDS": "mountd vers", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mountd"], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "plain,versions\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "-o", "json"],
        ["versions", "-o", "json"],
        ["logs"],
        ["switch", "v23"],
        ["rollback"],
        ["restart", "webui"],
        ["start", "webui"],
        ["stop", "webui"],
        ["signal", "webui", "HUP"],
        ["switch", "v23", "--at", "03:00"],
        ["rollback", "--to", "7"],
        ["cancel", "7"],
        ["logs", "--since", "2026-01-31T03:00"],
        ["profile"],
        ["wait", "--for", "ready", "--timeout", "0"],
        ["--help"],
        ["completion", "zsh"],
    ],
    ids=" ".join,
)
def test_remote_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import json, sys; from mountd.cli.main import main; "
        f"main({['--socket', str(tmp_path / 'none'), *arguments]!r}); "
        "print(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    found = {name for name in HEAVY if any(module == name or module.startswith(name + ".") for module in loaded)}
    assert found == set(), done.stderr


def examples(command: click.Command) -> list[str]:
    """The lines of the section `Examples:` of its help, without what a shell does with the output."""
    _before, title, section = inspect.cleandoc(command.help or "").partition("\nExamples:\n")
    lines = section.partition("\n\n")[0].splitlines() if title else []
    return [re.split(r" [>|] ", line.strip())[0] for line in lines]


@pytest.mark.parametrize(("path", "command"), list(commands(cli)), ids=str)
def test_every_command_has_examples_that_can_be_parsed(path: tuple[str, ...], command: click.Command) -> None:
    found = examples(command)
    assert found
    own = [each for each in found if each.startswith(f"mountd {' '.join(path)}")]
    assert own, "one of the command itself"
    for line in found:
        program, *words = shlex.split(line)
        assert program == "mountd"
        group: click.Command = cli
        context = cli.make_context("mountd", words, obj=Options())
        while isinstance(group, click.Group):
            name, below, rest = group.resolve_command(context, [*context._protected_args, *context.args])
            assert below is not None
            group, context = below, below.make_context(name, rest, parent=context)  # raises what is wrong


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["stauts"], "status"),
        (["vesrions"], "versions"),
        (["switch", "--modle", "x", "v23"], "--model"),
        (["switch", "--dryrun", "v23"], "--dry-run"),
        (["--sokcet", "x", "status"], "--socket"),
        (["drill", "kil"], "kill"),
        (["warm", "v23", "--level", "metdata"], "metadata"),
        (["status", "-o", "jsno"], "json"),
        (["completion", "zhs"], "zsh"),
        (["config", "chekc"], "check"),
        (["init", "--store", "aliyum-oss"], "aliyun-oss"),
    ],
    ids=str,
)
def test_a_wrong_word_is_answered_with_the_near_one(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_a_word_that_is_like_none_is_answered_with_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "xxxxxxxx"]) == main(["xxxxxxxx"]) == main(["status", "--xxxxxxxx"]) == 2
    assert "Did you mean" not in capsys.readouterr().err
