from __future__ import annotations

from pathlib import Path

import pytest

from drdecr.errors import UsageError
from service.commands import serve
from service.settings import IndexSource, Settings, load_settings

GIVEN = {"student": "student", "index": ("demo=snapshot",)}


def test_options_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("DRDECR_PORT", "9000")
    monkeypatch.setenv("DRDECR_THREADS", "3")
    settings = load_settings(**GIVEN, port=9001, threads=None)
    assert (settings.port, settings.threads) == (9001, 3)


def test_environment_alone_is_enough(monkeypatch):
    monkeypatch.setenv("DRDECR_STUDENT", "/models/student")
    monkeypatch.setenv("DRDECR_INDEX", "demo=/data/one, /data/two")
    settings = load_settings(index=None)
    assert settings.student == Path("/models/student")
    assert settings.index == (
        IndexSource(name="demo", path=Path("/data/one")),
        IndexSource(name="two", path=Path("/data/two")),
    )


def test_every_option_is_a_variable_too():
    options = {option.name for option in serve.params if option.expose_value}
    assert "keys" in options
    assert options <= Settings.model_fields.keys()


@pytest.mark.parametrize("name", ["DRDECR_KEYS", "DRDECR_API_KEYS_FILE"])
def test_key_file_comes_from_the_environment_also_by_its_old_name(monkeypatch, name):
    monkeypatch.setenv(name, "/etc/drdecr/keys")
    settings = load_settings(**GIVEN)
    assert settings.key_file is not None
    assert settings.key_file.path == Path("/etc/drdecr/keys")
    assert load_settings(**GIVEN, keys=Path("other")).keys == Path("other")


def test_an_empty_old_name_names_no_key_file(monkeypatch):
    monkeypatch.setenv("DRDECR_API_KEYS_FILE", "")
    assert load_settings(**GIVEN).key_file is None


def test_bare_snapshot_is_named_after_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_settings(student="s", index=("./news/",)).index == (IndexSource(name="news", path=Path("news")),)


def test_data_directory_alone_is_enough(monkeypatch):
    monkeypatch.setenv("DRDECR_DATA", "/data")
    settings = load_settings(student="s", index=None)
    assert (settings.data, settings.index) == (Path("/data"), ())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"student": None}, "--student is missing"),
        ({"index": None}, "--index is missing"),
        ({"index": ("/",)}, "NAME=SNAPSHOT"),
        ({"index": ("a b/c d",)}, "NAME=SNAPSHOT"),
        ({"index": ("x=one", "x=two")}, "'x' is given twice"),
        ({"port": 70_000}, "port (DRDECR_PORT)"),
        ({"threads": 0}, "threads (DRDECR_THREADS)"),
        ({"api_key_hashes": "secret"}, "`drdecr keys create` writes one into its file"),
        ({"host": "0.0.0.0"}, "--insecure"),
        ({"host": "192.168.0.1"}, "--insecure"),
        ({"host": "::"}, "--insecure"),
        ({"host": "example.org"}, "--insecure"),
    ],
)
def test_wrong_setting_is_one_line_with_the_remedy(wrong, message):
    with pytest.raises(UsageError) as caught:
        load_settings(**{**GIVEN, **wrong})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(host):
    assert load_settings(**GIVEN, host=host).host == host


def test_other_addresses_are_served_when_told_so():
    assert load_settings(**GIVEN, host="0.0.0.0", insecure=True).insecure


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings(**GIVEN).port = 1
