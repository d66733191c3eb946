"""``gateway init``, ``certs`` and ``config`` as a user gives them: exit codes, what is written, what is said where."""

import json
import stat
from pathlib import Path

import pytest

from gateway import cli
from gateway.config.loading import load
from gateway.config.settings import DicomDestination, FolderDestination
from gateway.core.errors import AssociationAborted, ConfigurationError, Problem, StateFolderInUse, UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    return tmp_path


def test_init_without_a_terminal_takes_its_options_and_the_result_loads(here: Path) -> None:
    options = ["--ae-title", "EDGE", "--source", "pacs=PACS@192.0.2.1:104", "--destination", "a=ORTHANCA@[2001:db8::1]:4242"]
    assert cli.run(["init", *options, "--destination", "shelf=shelf/of studies"]) == 0
    settings = load(here / "config.toml", {})
    assert settings.gateway.ae_title == "EDGE"
    assert (settings.listen.host, settings.listen.accept, settings.listen.tls) == ("0.0.0.0", "known", None)
    source = settings.sources["pacs"]
    assert (source.ae_title, source.host, source.port) == ("PACS", "192.0.2.1", 104)
    remote, shelf = settings.destinations["a"], settings.destinations["shelf"]
    assert isinstance(remote, DicomDestination)
    assert (remote.host, remote.tls) == ("2001:db8::1", None)
    assert isinstance(shelf, FolderDestination)
    assert shelf.path == here / "shelf/of studies"
    assert settings.routes[0].to == ("a", "shelf")
    assert stat.S_IMODE((here / "config.toml").stat().st_mode) == 0o600


def test_init_without_anything_listens_on_loopback_and_keeps_in_a_folder(here: Path) -> None:
    assert cli.run(["init"]) == 0
    settings = load(here / "config.toml", {})
    assert (settings.listen.host, settings.listen.accept) == ("127.0.0.1", "any")
    assert list(settings.destinations) == ["archive"]


def test_init_with_sync_supplies_the_destinations_from_each_source(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init", "--sync"]) == 2
    assert "--source" in capsys.readouterr().err
    assert cli.run(["init", "--sync", "--source", "pacs=PACS@192.0.2.1:104", "--destination", "a=A@192.0.2.2:4242"]) == 0
    (sync,) = load(here / "config.toml", {}).sync
    assert (sync.name, sync.source, sync.to, sync.last) == ("pacs", "pacs", (), "12h")


def test_init_with_tls_and_then_certs_is_a_configuration_without_problems(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init", "--tls", "--source-tls", "--source", "s=S@localhost:104", "--destination", "a=A@localhost:4242"]) == 0
    assert cli.run(["config", "--check"]) == 2
    assert capsys.readouterr().err.count("run `gateway certs`") == 1
    assert cli.run(["certs"]) == 0
    assert cli.run(["config", "--check"]) == 0
    settings = load(here / "config.toml", {})
    assert settings.listen.tls is not None
    assert settings.sources["s"].tls == getattr(settings.destinations["a"], "tls", None) is not None


def test_init_asks_on_a_terminal(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["EDGE", "pacs=PACS@192.0.2.1:104", "a=ORTHANCA@192.0.2.2:4242"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert cli.run(["init"]) == 0
    settings = load(here / "config.toml", {})
    assert (settings.gateway.ae_title, list(settings.sources), list(settings.destinations)) == ("EDGE", ["pacs"], ["a"])


def test_init_does_not_overwrite_unless_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.toml").write_text("# mine\n")
    assert cli.run(["init"]) == 2
    assert "--force" in capsys.readouterr().err
    assert (here / "config.toml").read_text() == "# mine\n"
    assert cli.run(["init", "--force"]) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--source", "pacs"],
        ["--source", "pacs=/folder"],
        ["--source", "p a=PACS@h:1"],
        ["--destination", "x="],
        ["--destination", "a=AE\\TITLE@h:104"],
        ["--destination", "a=A@h:70000"],
        ["--ae-title", "LONGER THAN SIXTEEN"],
        ["--port", "0"],
    ],
)
def test_init_writes_nothing_that_would_not_load(here: Path, options: list[str]) -> None:
    assert cli.run(["init", *options]) == 2
    assert list(here.iterdir()) == []


def test_certs_says_what_it_made_and_for_which_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["certs", "--for", "orthanc-d", "--name", "d.example", "--address", "192.0.2.4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["certificates"][0]["names"] == ["orthanc-d", "d.example", "192.0.2.4"]
    assert {file.name for file in (here / "certs").iterdir()} == {"ca.crt", "ca.key", "orthanc-d.crt", "orthanc-d.key"}
    assert cli.run(["certs", "--for", "orthanc-d"]) == 2


def test_config_shows_what_is_in_effect_and_where_it_came_from(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "config.toml").write_text("[listen]\nport = 1104\n")
    monkeypatch.setenv("GATEWAY__LISTEN__MAX_ASSOCIATIONS", "7")
    assert cli.run(["config", "--show", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["listen"]["port"] == 1104
    assert document["environment"] == {"listen.max_associations": "GATEWAY__LISTEN__MAX_ASSOCIATIONS"}
    assert cli.run(["config", "--show"]) == 0
    assert "max_associations = 7  # from GATEWAY__LISTEN__MAX_ASSOCIATIONS" in capsys.readouterr().out


def test_problems_go_to_standard_error_all_of_them_and_exit_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "other.toml").write_text("[listen]\nport = -1\nprot = 2\n")
    assert cli.run(["config", "--config", "other.toml"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "other.toml:2: listen.port" in output.err
    assert "other.toml:3: listen.prot" in output.err


@pytest.mark.parametrize("arguments", [["nonsense"], ["config", "--nonsense"], ["certs", "--days", "0"]])
def test_a_wrong_command_line_exits_2_on_standard_error(
    here: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("gateway: ")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConfigurationError([Problem("f", "k", "x", "y")]), 2),
        (UsageError("no such source"), 2),
        (StateFolderInUse("taken"), 2),
        (AssociationAborted("gone"), 1),
        (KeyboardInterrupt(), 130),
        (RuntimeError("DOE^JANE"), 1),
    ],
)
def test_errors_become_exit_codes_without_a_traceback_or_a_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise raised

    (here / "config.toml").write_text("")
    monkeypatch.setattr("gateway.config.loading.load_with_origins", fail)
    assert cli.run(["config"]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "DOE" not in error
    assert error
