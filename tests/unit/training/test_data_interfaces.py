"""Interface texts: cleaned of what is there for a program, and fetched with an apt of our own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fabricated_packages import Mirror, compiled

from drdecr.corpus import read_pairs
from drdecr.errors import FetchError, UsageError
from training.data.commands import describe_pairs
from training.data.gettext_files import read_translations
from training.data.interfaces.fetch import fetch_interfaces
from training.data.interfaces.labels import LONGEST, clean, pair


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_Open…", "Open"),
        ("Save ~As", "Save As"),
        ("C&onnect:", "Connect"),
        ("Set org_gnome_clocks", None),
        ("開く(_O)", "開く"),
        ("저장 (&S)...", "저장"),
        ("接続しています。", "接続しています"),
        ("WPA & WPA2", "WPA & WPA2"),
        ("A text\nthat was wrapped", "A text that was wrapped"),
        ("50 % of users", "50 % of users"),
        ("Copying %d files", None),
        ("Copying %1 of %2", None),
        ("About %PRODUCTNAME", None),
        ("{count} devices", None),
        ("Line $(ARG1)", None),
        ("<b>Bold</b>", None),
        ("See https://example.org", None),
        ("One paragraph.\n\nAnother.", None),
        ("translator-credits", None),
        ("Your emails", None),
        ("...", None),
    ],
)
def test_a_label_is_what_a_person_reads(text: str, expected: str | None) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("english", "translation", "lang", "expected"),
    [
        ("_Devices", "_Geräte", "de", ("Devices", "Geräte")),
        ("USB device", "USB 设备", "zh", ("USB device", "USB 设备")),
        ("USB", "USB", "zh", None),
        ("_Bluetooth", "Bluetooth", "de", None),
        ("Sound", "Sound card", "th", None),
        ("Sound", "звук", "de", None),
        ("звук", "Ton", "de", None),
        ("123", "Zahl", "de", None),
        ("Save", "%s sichern", "de", None),
        ("x" * (LONGEST + 1), "Lang", "de", None),
        ("Long", "y" * (LONGEST + 1), "de", None),
    ],
)
def test_a_pair_says_something_in_both_languages(
    english: str, translation: str, lang: str, expected: tuple[str, str] | None
) -> None:
    assert pair(english, translation, lang) == expected


def test_contexts_are_no_text_and_of_plural_forms_the_singular_is_read() -> None:
    raw = compiled({"menu\x04Open": "Öffnen", "one file\0several files": "eine Datei\0Dateien", "Nothing": ""})
    assert list(read_translations(raw)) == [("Open", "Öffnen"), ("one file", "eine Datei")]


def catalog(locale: str, name: str, *, libreoffice: bool = False) -> str:
    root = "usr/lib/libreoffice/program/resource" if libreoffice else "usr/share/locale"
    return f"{root}/{locale}/LC_MESSAGES/{name}.mo"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb is installed, which makes and reads Debian packages")
    made = Mirror(tmp_path)
    made.package(
        "gnome-clocks",
        {
            catalog("de", "clocks"): compiled({"_Alarm clock": "_Wecker", "%d rings": "%d Klingeln"}),
            catalog("zh_TW", "clocks"): compiled({"_Alarm clock": "鬧鐘(_A)"}),
            catalog("sv", "clocks"): compiled({"_Alarm clock": "_Väckarklocka"}),
        },
    )
    made.package(
        "libreoffice-l10n-de",
        {catalog("de", "cui", libreoffice=True): compiled({"x|y\x04~Bold": "~Fett", "a\x04Alarm clock": "Wecker"})},
    )
    monkeypatch.setenv("SERVED", str(made.served))
    monkeypatch.setenv("PATH", str(made.programs), prepend=":")
    return made


def texts(out: Path, lang: str) -> list[tuple[str, str, str]]:
    return [(pair.source, pair.english, pair.translation) for pair in read_pairs(out / f"{lang}.tsv.gz")]


def test_interfaces_are_fetched_from_packages_once_and_told(mirror: Mirror, tmp_path: Path) -> None:
    out = tmp_path / "data"
    meta = fetch_interfaces(out, ["de", "zh"])
    assert texts(out, "de") == [("gnome", "Alarm clock", "Wecker"), ("libreoffice", "Bold", "Fett")]
    assert texts(out, "zh") == [("gnome", "Alarm clock", "鬧鐘")]
    assert "de             2   gnome 1, libreoffice 1" in describe_pairs(out, meta)
    calls = len(mirror.calls)
    assert fetch_interfaces(out, ["de", "zh"]) == meta
    assert len(mirror.calls) == calls


def test_of_two_versions_of_a_package_the_mirrors_own_is_read(mirror: Mirror, tmp_path: Path) -> None:
    out = tmp_path / "data"
    for version, alarm in (("9", "Klingel"), ("10", "Uhr")):
        mirror.package(
            "gnome-clocks", {catalog("de", "clocks"): compiled({"_Alarm clock": f"_{alarm}"})}, version=version
        )
        fetch_interfaces(out, ["de"])
        assert ("gnome", "Alarm clock", alarm) in texts(out, "de")
        (out / "meta.json").unlink()
    assert len(list(out.rglob("gnome-clocks_*.deb"))) == 2


def test_link_is_read_where_its_file_is_in_the_package(mirror: Mirror, tmp_path: Path) -> None:
    files = {catalog("de", "calendar"): compiled({"Day": "Tag"})}
    links = {catalog("de", "other"): "/usr/share/of-another-package.mo"}
    mirror.package("gnome-calendar", files, links=links)
    fetch_interfaces(tmp_path / "data", ["de"])
    assert ("gnome", "Day", "Tag") in texts(tmp_path / "data", "de")


def test_language_without_an_interface_is_named(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no interface text is translated into xx"):
        fetch_interfaces(tmp_path / "data", ["de", "xx"])
    assert not (tmp_path / "data" / "meta.json").exists()


def test_broken_catalogue_is_named_with_its_package(mirror: Mirror, tmp_path: Path) -> None:
    mirror.package("gnome-calendar", {catalog("de", "calendar"): b"no catalogue at all"})
    with pytest.raises(FetchError, match=r"gnome-calendar_1_all\.deb: usr/share/locale/de/.*calendar\.mo is broken"):
        fetch_interfaces(tmp_path / "data", ["de"])
