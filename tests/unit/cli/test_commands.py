"""The plugin as a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubectl_twin", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # The code that these tests are of, wherever it lies.
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **env,
        },
    )


def test_help_lists_the_commands_without_importing_the_kubernetes_client() -> None:
    code = "import sys; sys.argv = ['kubectl-twin', '--help']\nfrom kubectl_twin.main import main\ntry:\n    main()\n"
    code += "except SystemExit:\n    pass\nprint('kubernetes' in sys.modules, 'rich.table' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert all(word in done.stdout for word in ("ask", "list", "status", "adapter", "rollback"))
    assert done.stdout.splitlines()[-1] == "False False"


def test_without_a_kubeconfig_it_says_how_to_have_one(tmp_path: Path) -> None:
    done = run("list", KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "No usable kubeconfig" in done.stderr
    assert "make -s kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_context_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('{"apiVersion":"v1","kind":"Config","current-context":"","contexts":[],"users":[],"clusters":[]}')
    said = run("list", "--context", "nope", KUBECONFIG=str(config)).stderr
    assert "nope" in said
    assert "kubectl config get-contexts" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["miners"], "With --network and --netuid no cluster is needed."),
        (["miners", "--netuid", "1"], "With --network and --netuid no cluster is needed."),
        (["miners", "--metagraph", ""], "--metagraph is empty"),
        (["miners", "--metagraph", "m.json", "--wallet", " "], "--wallet is empty"),
        (["metagraph", "", "--network", "test", "--netuid", "1"], "FILE is empty"),
        (["miners", "--metagraph", "m.json", "--netuid", "5"], "--metagraph or --netuid, and not both"),
        (["miners", "--metagraph", "m.json", "--pool", "a"], "--metagraph or --pool, and not both"),
        (["miners", "--pool", "a", "--validator", "b"], "--pool or --validator, and not both"),
        (["metagraph", "m.json", "--pool", "a", "--validator", "b"], "--pool or --validator, and not both"),
        (["miners", "--pool", "a", "--network", "test", "--netuid", "1"], "--pool or --network with --netuid, and not"),
    ],
)
def test_which_subnet_is_asked_for_once(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(*arguments, KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 1
    assert says in done.stderr
    assert ".." not in done.stderr.replace("ws(s)://…", "")
    assert "Traceback" not in done.stderr


def test_a_context_that_is_not_there_is_told_beside_those_that_are(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('{"contexts":[{"name":"home","context":{}},{"name":"prod","context":{}}]}')
    said = run("list", "--context", "prd", KUBECONFIG=str(config)).stderr
    assert "It has home and prod" in said
    assert "Set KUBECONFIG" not in said


def test_a_file_that_was_named_and_is_not_there_is_no_matter_of_the_environment(tmp_path: Path) -> None:
    said = run("list", "--kubeconfig", str(tmp_path / "none")).stderr
    assert f"there is none at {tmp_path}/none" in said
    assert "--kubeconfig" in said
    assert "Set KUBECONFIG" not in said


@pytest.mark.parametrize("command", ["ask", "review", "reject", "rollback", "round", "top", "miners", "metagraph"])
def test_help_names_what_an_option_takes_in_a_word(command: str) -> None:
    said = run(command, "--help").stdout
    assert not re.search(r"--[a-z-]+ <(?!table)", said)
    assert "<int range>" not in said


def test_an_api_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        '{"apiVersion":"v1","kind":"Config","current-context":"x",'
        '"contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],"users":[{"name":"x","user":{}}],'
        '"clusters":[{"name":"x","cluster":{"server":"http://127.0.0.1:1"}}]}'
    )
    done = run("list", KUBECONFIG=str(config))
    assert done.returncode == 1
    assert "Can't reach the API server at http://127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_question_is_refused(tmp_path: Path) -> None:
    done = run("ask", "dr-x", "  ", KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "The question is empty" in done.stderr


def test_an_empty_version_to_go_back_to_is_refused(tmp_path: Path) -> None:
    done = run("rollback", "dr-x", "--to", " ", KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "--to is empty" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("status", ""), "NAME is empty"),
        (("list", "-n", ""), "--namespace is empty"),
        (("list", "--context", " "), "--context is empty"),
        (("list", "--as", "a", "--as-group", ""), "--as-group is empty"),
        (("list", "--kubeconfig", ""), "--kubeconfig is empty"),
        (("approve", "dr-x", "--digest", ""), "--digest is empty"),
        (("reject", "dr-x", "--reason", ""), "--reason is empty"),
        (("review", "dr-x", "--run", ""), "--run is empty"),
        (("ask", "dr-x", "Hi", "--pool", ""), "--pool is empty"),
        (("miners", "--network", ""), "--network is empty"),
    ],
)
def test_what_is_given_and_empty_is_refused(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = run(*arguments, KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--base-model", ""), ("--store", " "), ("--base-model-revision", ""), ("--base-model-uri", ""),
    ],
)  # fmt: skip
def test_a_push_with_an_empty_option_is_refused(arguments: tuple[str, str], tmp_path: Path) -> None:
    whole = {"--store": f"file://{tmp_path}", "--twin": "dr-x", "--base-model": "m"} | dict([arguments])
    done = run("adapter", "push", str(tmp_path), *(part for option in whole.items() for part in option))
    assert done.returncode == 2
    assert f"kubectl twin adapter push: error: argument {arguments[0]}: it is empty" in done.stderr


def test_a_push_calls_itself_what_it_was_called_by() -> None:
    done = run("adapter", "push", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: kubectl twin adapter push ")
    assert "python -m" not in done.stdout


@pytest.mark.parametrize("arguments", [("--help",), ("adapter", "--help")])
def test_each_command_is_told_whole_at_80_columns(arguments: tuple[str, ...]) -> None:
    code = "import sys; from kubectl_twin.main import main; sys.argv = ['kubectl-twin', *sys.argv[1:]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    commands = done.stdout[done.stdout.index("Commands:") :]
    assert "..." not in commands
    assert all(len(line) <= 80 for line in commands.splitlines())


def test_make_help_fits_80_columns() -> None:
    root = Path(__file__).parents[3]
    shown = subprocess.run(["make", "-s", "-C", str(root), "help"], capture_output=True, text=True, check=True).stdout
    assert "make demo" in shown
    assert [line for line in shown.splitlines() if len(line) > 80] == []
