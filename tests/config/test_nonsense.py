"""Loading any file and environment ends in settings or in a ConfigurationError, never in anything else."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.config import settings
from gateway.config.loading import load
from gateway.config.show import as_toml, toml_value
from gateway.core.errors import ConfigurationError

KEYS = sorted(
    {
        name
        for table in vars(settings).values()
        if isinstance(table, type) and issubclass(table, settings.Table)
        for name in table.model_fields
    }
    | {"password_file", "key_password_file", "orthanc-a", "Modality", "0", "monday-friday"}
)
WORDS = st.sampled_from(
    [
        "dicom",
        "folder",
        "orthanc-a",
        "known",
        "GATEWAY",
        "127.0.0.1",
        "",
        "11112",
        "CT",
        "[",
        "true",
        "~nobody-here/x",
        "\0",
        "19-6",
        "1 MB/s",
    ]
)
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-10, 100_000), st.floats(allow_nan=False, allow_infinity=False), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=20,
)


@given(raw=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_a_file_of_known_words_in_a_wrong_order(raw: dict[str, Any], tmp_path_factory: Any) -> None:
    load_text(tmp_path_factory, "\n".join(f'"{key}" = {toml_value(value)}' for key, value in raw.items()), {})


@given(
    raw=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3),
    names=st.lists(st.lists(st.sampled_from(KEYS), max_size=4), max_size=5),
    text=WORDS,
)
def test_variables_that_point_anywhere(raw: dict[str, Any], names: list[list[str]], text: str, tmp_path_factory: Any) -> None:
    environ = {"GATEWAY__" + "__".join(name).upper(): text for name in names if "\0" not in text}
    load_text(tmp_path_factory, "\n".join(f'"{key}" = {toml_value(value)}' for key, value in raw.items()), environ)


@given(text=st.text())
def test_a_file_of_anything(text: str, tmp_path_factory: Any) -> None:
    load_text(tmp_path_factory, text, {})


def load_text(factory: Any, text: str, environ: dict[str, str]) -> None:
    file: Path = factory.getbasetemp() / "nonsense.toml"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with suppress(ConfigurationError):
        as_toml(load(file, environ), {})
