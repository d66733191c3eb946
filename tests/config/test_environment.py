"""The environment overrides the file, secrets may lie in files, and neither is ever shown."""

import json
import tomllib
from pathlib import Path

import pytest

from gateway.config.loading import load, load_with_origins
from gateway.config.show import HIDDEN, as_toml, plain
from gateway.core.errors import ConfigurationError

FILE = """
[listen]
port = 11112
[sources.archive]
ae_title = "ARCHIVE"
host = "127.0.0.1"
rest = { url = "http://127.0.0.1:8042", username = "u", password = "from-the-file" }
[destinations.orthanc-a]
kind = "dicom"
ae_title = "ORTHANCA"
host = "127.0.0.1"
port = 4243
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    return path


def password(file: Path, environ: dict[str, str]) -> str:
    rest = load(file, environ).sources["archive"].rest
    assert rest is not None
    assert rest.password is not None
    return rest.password.get_secret_value()


@pytest.mark.parametrize("name", ["ORTHANC_A", "ORTHANC-A", "orthanc_a", "Orthanc-A"])
def test_names_are_case_insensitive_and_a_dash_may_be_an_underscore(file: Path, name: str) -> None:
    settings = load(file, {f"GATEWAY__DESTINATIONS__{name}__PORT": "5000"})
    assert list(settings.destinations) == ["orthanc-a"]
    assert settings.destinations["orthanc-a"].port == 5000  # type: ignore[union-attr]


def test_hours_come_from_the_environment(file: Path) -> None:
    environ = {"GATEWAY__SCHEDULE__NIGHT__TIME_ZONE": "UTC", "GATEWAY__SCHEDULE__NIGHT__MONDAY": "19-6"}
    assert load(file, environ).schedule["night"].monday == "19-6"
    environ["GATEWAY__SCHEDULE__NIGHT__MONDAY"] = "19"
    with pytest.raises(
        ConfigurationError, match=r'GATEWAY__SCHEDULE__NIGHT__MONDAY: schedule\.night\.monday: found "19"; expected hours'
    ):
        load(file, environ)


def test_a_destination_can_come_from_the_environment_alone(file: Path, tmp_path: Path) -> None:
    settings = load(file, {"GATEWAY__DESTINATIONS__SHELF__PATH": "shelf", "GATEWAY__DESTINATIONS__SHELF__KIND": "folder"})
    assert settings.destinations["shelf"].path == tmp_path / "shelf"  # type: ignore[union-attr]


def test_lists_are_written_with_commas_and_tables_as_toml(file: Path) -> None:
    settings = load(
        file,
        {
            "GATEWAY__SOURCES__ARCHIVE__ADDRESSES": "10.0.0.0/8, 192.0.2.1",
            "GATEWAY__ROUTES": '[{name = "all", to = ["orthanc-a"]}]',
        },
    )
    assert settings.sources["archive"].addresses == ("10.0.0.0/8", "192.0.2.1/32")
    assert settings.routes[0].to == ("orthanc-a",)


def test_a_variable_that_fits_nowhere_is_an_error_with_a_suggestion(file: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(
            file,
            {"GATEWAY__LISTEN__PROT": "1", "GATEWAY__LISTEN__PORT__MORE": "2", "GATEWAY__ROUTES": "[", "GATEWAY_OTHER": "ignored"},
        )
    problems = {problem.key: problem for problem in raised.value.problems}
    assert problems["GATEWAY__LISTEN__PROT"].expected == 'a known one: did you mean "port"?'
    assert set(problems) == {"GATEWAY__LISTEN__PROT", "GATEWAY__LISTEN__PORT__MORE", "GATEWAY__ROUTES"}


def test_a_secret_may_come_from_a_file_named_in_the_environment(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of a file \n")
    assert password(file, {}) == "from-the-file"
    assert password(file, {"GATEWAY__SOURCES__ARCHIVE__REST__PASSWORD_FILE": "secret"}) == "of a file "
    assert password(file, {"GATEWAY__SOURCES__ARCHIVE__REST__PASSWORD_FILE": str(tmp_path / "secret")}) == "of a file "


def test_a_secret_may_come_from_a_file_named_in_the_configuration(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of a file")
    file.write_text(FILE.replace('password = "from-the-file"', 'password_file = "secret"'))
    assert password(file, {}) == "of a file"
    assert password(file, {"GATEWAY__SOURCES__ARCHIVE__REST__PASSWORD": "direct"}) == "direct"


def test_a_secret_given_twice_or_in_a_missing_file_is_an_error(file: Path) -> None:
    file.write_text(FILE.replace('password = "from-the-file"', 'password = "x", password_file = "secret"'))
    with pytest.raises(ConfigurationError, match="either password or password_file"):
        load(file, {})
    file.write_text(FILE.replace('password = "from-the-file"', 'password_file = "nowhere"'))
    with pytest.raises(ConfigurationError, match=r"password_file: found .*No such file"):
        load(file, {})


def test_only_secrets_have_a_file_form(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="GATEWAY__LISTEN__PORT_FILE"):
        load(file, {"GATEWAY__LISTEN__PORT_FILE": "x"})


def test_an_error_never_shows_a_secret(file: Path) -> None:
    file.write_text(FILE.replace('password = "from-the-file"', "password = 20260101"))
    with pytest.raises(ConfigurationError) as raised:
        load(file, {})
    assert "20260101" not in str(raised.value)


def test_effective_settings_are_shown_without_secrets_as_loadable_toml(file: Path, tmp_path: Path) -> None:
    loaded = load_with_origins(
        file,
        {
            "GATEWAY__DESTINATIONS__ORTHANC_A__PORT": "5000",
            "GATEWAY__ROUTES": '[{name = "all", to = ["orthanc-a"]}]',
            "GATEWAY__SCHEDULE__NIGHT": '{time_zone = "UTC", "monday-friday" = "19-6"}',
        },
    )
    text = as_toml(loaded.settings, loaded.origins)
    assert "from-the-file" not in text
    assert "port = 5000  # from GATEWAY__DESTINATIONS__ORTHANC_A__PORT" in text
    assert "[[routes]]  # from GATEWAY__ROUTES" in text
    assert tomllib.loads(text) == plain(loaded.settings) == json.loads(json.dumps(plain(loaded.settings)))
    assert plain(loaded.settings)["sources"]["archive"]["rest"]["password"] == HIDDEN
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert plain(load(again, {})) == plain(loaded.settings)
