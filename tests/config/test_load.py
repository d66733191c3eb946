"""A configuration is validated as a whole: every problem at once, each with its place and what was expected."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.config.loading import load
from gateway.config.settings import DicomDestination, FolderDestination, Settings
from gateway.core.errors import ConfigurationError, Problem

Load = Callable[..., Settings]
Problems = Callable[..., dict[str, Problem]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def load_text(file: Path) -> Load:
    def run(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        file.write_text(text, encoding="utf-8")
        return load(file, environ or {})

    return run


@pytest.fixture
def problems_of(load_text: Load) -> Problems:
    def run(text: str, environ: Mapping[str, str] | None = None) -> dict[str, Problem]:
        with pytest.raises(ConfigurationError) as raised:
            load_text(text, environ)
        return {problem.key: problem for problem in raised.value.problems}

    return run


ORTHANC = """
[destinations.orthanc-a]
kind = "dicom"
ae_title = "ORTHANCA"
host = "127.0.0.1"
port = 4243
"""


def test_an_empty_file_gives_the_defaults_beside_it(load_text: Load, tmp_path: Path) -> None:
    settings = load_text("")
    assert settings.gateway.ae_title == "GATEWAY"
    assert settings.gateway.state == tmp_path / "state"
    assert settings.listen.accept == "known"


def test_the_ledger_is_in_the_state_folder_and_the_node_has_a_name(load_text: Load, tmp_path: Path) -> None:
    settings = load_text("")
    assert settings.ledger_url() == f"sqlite:///{tmp_path / 'state' / 'ledger.db'}"
    assert settings.node.name == "main"


@pytest.mark.parametrize(("url", "place"), [("sqlite:///here/l.db", "{0}/here/l.db"), ("sqlite:////var/l.db", "/var/l.db")])
def test_the_ledgers_url_names_a_file_relative_to_the_configuration(load_text: Load, tmp_path: Path, url: str, place: str) -> None:
    settings = load_text(f'[ledger]\nurl = "{url}"\n[node]\nname = "gw-1.b"')
    assert settings.ledger_url() == "sqlite:///" + place.format(tmp_path)
    assert settings.node.name == "gw-1.b"


@pytest.mark.parametrize("url", ["postgresql+psycopg://user:secret@host/db", "sqlite://", "sqlite:///:memory:", "secret.db", ""])
def test_another_database_is_refused_and_its_url_not_shown(problems_of: Problems, url: str) -> None:
    problem = problems_of(f'[ledger]\nurl = "{url}"')["ledger.url"]
    assert "SQLite is the only database" in problem.expected
    assert "secret" not in str(problem)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "\u00e4", "a" * 33])
def test_a_node_has_a_name_that_fits_everywhere(problems_of: Problems, name: str) -> None:
    assert "a name of 1 to 32" in problems_of(f'[node]\nname = "{name}"')["node.name"].expected


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_stay(load_text: Load, tmp_path: Path) -> None:
    settings = load_text('[gateway]\nstate = "/var/lib/x"\n[destinations.f]\nkind = "folder"\npath = "archive"')
    folder = settings.destinations["f"]
    assert isinstance(folder, FolderDestination)
    assert folder.path == tmp_path / "archive"
    assert settings.gateway.state == Path("/var/lib/x")


def test_every_problem_is_reported_at_once_in_the_order_of_the_file(load_text: Load, file: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_text(
            '[gateway]\nae_title = "LONGER THAN SIXTEEN"\n\n[listen]\nport = 70000\nplain = "perhaps"\n'
            '\n[sources.archive]\nae_title = "A"\n',
            {"GATEWAY__SPOOL__RESERVE_BYTES": "-5"},
        )
    assert [(problem.where, problem.key) for problem in raised.value.problems] == [
        (f"{file}:2", "gateway.ae_title"),
        (f"{file}:5", "listen.port"),
        (f"{file}:6", "listen.plain"),
        (f"{file}:8", "sources.archive.host"),
        ("environment variable GATEWAY__SPOOL__RESERVE_BYTES", "spool.reserve_bytes"),
    ]
    port = raised.value.problems[1]
    assert (port.found, port.expected) == ("70000", "an integer from 0 to 65535")
    assert str(file) + ":5: listen.port: found 70000; expected an integer from 0 to 65535" in str(raised.value)


def test_an_unknown_key_comes_with_the_nearest_known_one(problems_of: Problems) -> None:
    problems = problems_of("[listen]\nmax_asociations = 3\n[destinatons.x]\nkind = 'folder'")
    assert problems["listen.max_asociations"].expected == 'a known one: did you mean "max_associations"?'
    assert problems["destinatons"].expected == 'a known one: did you mean "destinations"?'


def test_an_unknown_key_of_a_destination_is_judged_by_its_kind(problems_of: Problems) -> None:
    problem = problems_of('[destinations.f]\nkind = "folder"\npath = "x"\nhost = "h"')["destinations.f.host"]
    assert problem.found == "unknown key"
    assert "path" in problem.expected
    assert "ae_title" not in problem.expected


@pytest.mark.parametrize(("kind", "found"), [('kind = "ftp"\n', '"ftp"'), ("", "nothing")])
def test_a_destination_must_be_of_a_known_kind(problems_of: Problems, kind: str, found: str) -> None:
    problem = problems_of(f'[destinations.a]\n{kind}path = "x"')["destinations.a.kind"]
    assert (problem.found, problem.expected) == (found, 'one of "dicom", "folder"')


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`gateway init` writes one"):
        load(tmp_path / "none.toml", {})


def test_broken_toml_names_the_line(load_text: Load) -> None:
    with pytest.raises(ConfigurationError, match=r"config.toml: \(syntax\): found .*line 2.*expected valid TOML"):
        load_text("[listen]\nport = = 3")


def test_a_file_that_is_not_utf8_is_a_problem_not_a_crash(file: Path) -> None:
    file.write_bytes(b"[gateway]\nae_title = '\xff'\n")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load(file, {})


def test_certificates_and_keys_must_be_there(problems_of: Problems, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("")
    problems = problems_of('[listen.tls]\nca = "ca.crt"\ncertificate = "gateway.crt"\nkey = "gateway.key"')
    assert set(problems) == {"listen.tls.certificate", "listen.tls.key"}
    assert problems["listen.tls.key"].found == f"{tmp_path / 'gateway.key'} (no such file)"


def test_a_problem_inside_an_inline_table_names_the_line_of_that_table(problems_of: Problems, file: Path) -> None:
    problem = problems_of(ORTHANC + 'tls = { ca = "no.crt", certificate = "no.crt", key = "no.key" }')[
        "destinations.orthanc-a.tls.ca"
    ]
    assert problem.where == f"{file}:7"


def test_a_route_must_lead_to_known_destinations(problems_of: Problems, file: Path) -> None:
    problems = problems_of(ORTHANC + '\n[[routes]]\nname = "all"\nto = ["orthanc-a"]\n[[routes]]\nname = "ct"\nto = ["orthanc-b"]')
    problem = problems["routes[1].to"]
    assert problem.where == f"{file}:13"
    assert problem.found == 'unknown destination "orthanc-b"'
    assert "orthanc-a" in problem.expected


def test_a_route_that_leads_nowhere_is_an_error(problems_of: Problems) -> None:
    assert problems_of('[[routes]]\nname = "x"\nto = []')["routes[0].to"].found == "an empty list"


def test_a_route_may_only_ask_for_keywords_that_exist(problems_of: Problems) -> None:
    problems = problems_of(ORTHANC + '[[routes]]\nname = "x"\nwhen = { Modalty = "CT", calling_ae = "A*" }\nto = ["orthanc-a"]')
    assert list(problems) == ["routes[0].when.Modalty"]
    assert 'did you mean "Modality"?' in problems["routes[0].when.Modalty"].expected


def test_a_routes_condition_must_be_text(problems_of: Problems) -> None:
    problem = problems_of(ORTHANC + '[[routes]]\nname = "x"\nwhen = { Rows = 5 }\nto = ["orthanc-a"]')["routes[0].when.Rows"]
    assert problem.found == "5"


def test_two_listeners_cannot_share_a_port(problems_of: Problems, tmp_path: Path) -> None:
    for name in ("c", "k"):
        (tmp_path / name).write_text("")
    text = '[listen]\nport = 2762\n[listen.tls]\nca = "c"\ncertificate = "c"\nkey = "k"\n'
    assert list(problems_of(text)) == ["listen.tls.port"]


def test_a_destination_cannot_be_the_gateway_itself(problems_of: Problems) -> None:
    text = '[destinations.me]\nkind = "dicom"\nae_title = "GATEWAY"\nhost = "127.0.0.1"\nport = 11112\n'
    assert "go round" in problems_of(text)["destinations.me.port"].expected


@pytest.mark.parametrize("ask", ["rest", "dicomweb"])
def test_who_is_asked_over_http_has_to_have_an_address(problems_of: Problems, ask: str) -> None:
    problem = problems_of(ORTHANC + f'ask = "{ask}"')["destinations.orthanc-a.ask"]
    assert ask in problem.found and "url" in problem.expected


def test_two_sources_cannot_be_one_peer(problems_of: Problems) -> None:
    peer = 'ae_title = "A"\nhost = "192.0.2.1"\n'
    problems = problems_of(f"[sources.one]\n{peer}[sources.two]\n{peer}")
    assert list(problems) == ["sources.two"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('addresses = ["10.0.0.0/8", "nonsense"]', "an address or a network"),
        ('rest = { url = "orthanc:8042" }', "http:// or https://"),
        ('rest = { url = "http://user:secret@orthanc" }', "without user and password"),
        ("port = 0", "from 1 to 65535"),
        ("settle_s = 0", "above 0"),
    ],
)
def test_values_are_checked_for_what_they_mean(problems_of: Problems, line: str, expected: str) -> None:
    (problem,) = problems_of(f'[sources.s]\nae_title = "A"\nhost = "h"\n{line}').values()
    assert expected in problem.expected


def test_a_route_that_matches_loads(load_text: Load) -> None:
    settings = load_text(ORTHANC + '[[routes]]\nname = "x"\nwhen = { Modality = ["CT", "MR"], source = "a" }\nto = ["orthanc-a"]')
    assert settings.routes[0].when == {"Modality": ("CT", "MR"), "source": "a"}
    assert isinstance(settings.destinations["orthanc-a"], DicomDestination)


CERTIFICATES = """
[listen.tls]
ca = "certs/ca.crt"
certificate = "certs/gateway.crt"
key = "certs/gateway.key"
"""


@pytest.mark.parametrize("there", [(), ("gateway.key",), ("ca.crt", "gateway.crt")], ids=["none", "a key", "all but the key"])
def test_without_certificates_the_command_that_makes_them_is_named_once(tmp_path: Path, there: tuple[str, ...]) -> None:
    (tmp_path / "certs").mkdir()
    for name in there:
        (tmp_path / "certs" / name).write_text("")
    (tmp_path / "config.toml").write_text(CERTIFICATES)
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "config.toml", {})
    assert len(raised.value.problems) == (3 - len(there) if there else 1)
    assert str(raised.value).count("run `gateway certs") == (0 if there else 1)
    if not there:
        assert f"--folder {tmp_path / 'certs'}" in str(raised.value)
