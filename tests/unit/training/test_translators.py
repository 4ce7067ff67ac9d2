"""Translators behind one interface: people, the real Apertium, a neural model made here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fabricated_encoder import make_many_language_translator, make_translator
from transformers import AutoTokenizer, M2M100ForConditionalGeneration

from drdecr.corpus import Query
from drdecr.errors import InputError, ModelError, ResourceError, UsageError
from training.translators.language_codes import code_of
from training.translators.translator import open_translator

SPANISH = [Query("1", "¿Dónde está la biblioteca?"), Query("2", "editor\tde  imágenes\nlibre"), Query("3", "")]


def has_spanish() -> bool:
    if shutil.which("apertium") is None:
        return False
    listed = subprocess.run(["apertium", "-l"], capture_output=True, text=True, check=False).stdout.split()
    return "spa-eng" in listed


apertium = pytest.mark.skipif(not has_spanish(), reason="needs apertium and apertium-eng-spa (apt-get install)")


def test_human_translations_are_looked_up_by_id(tmp_path: Path) -> None:
    (tmp_path / "es.en.tsv").write_text("2\tsecond\n1\tfirst\n", encoding="utf-8")
    translator = open_translator(f"human:{tmp_path}/{{lang}}.en.tsv", "es")
    assert translator.is_human
    assert translator.translate(SPANISH[:2]) == ["first", "second"]
    with pytest.raises(InputError, match=r"es\.en\.tsv: has no translation of the query '3'"):
        translator.translate(SPANISH)


@apertium
def test_apertium_translates_every_query_on_its_own() -> None:
    translator = open_translator("apertium:spa-eng", "es")
    found = translator.translate(SPANISH)
    assert "library" in found[0].lower()
    assert "editor" in found[1].lower() and "images" in found[1].lower()
    assert found[2] == ""
    assert translator.translate(SPANISH[:1]) == found[:1]
    assert not translator.is_human


@apertium
def test_pair_that_apertium_lacks_is_named() -> None:
    with pytest.raises(UsageError, match=r"apertium has no pair xxx-yyy; installed are .*spa-eng"):
        open_translator("apertium:xxx-yyy", "xx")


def test_machine_without_apertium_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match="apt-get install apertium apertium-eng-spa"):
        open_translator("apertium:spa-eng", "es")


def test_program_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "apertium"
    program.write_text('#!/bin/sh\n[ "$1" = -l ] && echo spa-eng && exit 0\necho broken data >&2\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    translator = open_translator("apertium:spa-eng", "es")
    with pytest.raises(ResourceError, match=r"of 3 \(status 3\): broken data"):
        translator.translate(SPANISH)


def test_neural_model_translates_in_batches(tmp_path: Path) -> None:
    translator = open_translator(f"model:{make_translator(tmp_path / 'opus')}", "es")
    queries = [Query(str(at), f"texto {at}") for at in range(20)]
    found = translator.translate(queries)
    assert len(found) == 20 and all(isinstance(text, str) for text in found)
    assert any(found)
    assert translator.translate(queries[:3]) == found[:3]
    with pytest.raises(ModelError, match="cannot be loaded as a translation model"):
        open_translator(f"model:{tmp_path}", "es")


@pytest.mark.parametrize(
    ("lang", "code"),
    [("es", "spa_Latn"), ("ja", "jpn_Jpan"), ("zh", "zho_Hans"), ("ar", "arb_Arab"), ("yue_Hant",) * 2],
)
def test_model_of_many_languages_is_told_both(
    lang: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_many_language_translator(tmp_path / "nllb")
    tokenizer = AutoTokenizer.from_pretrained(made)
    seen: list[dict[str, Any]] = []
    generate = M2M100ForConditionalGeneration.generate

    def looking(self: Any, **given: Any) -> Any:
        seen.append(given)
        return generate(self, **given)

    monkeypatch.setattr(M2M100ForConditionalGeneration, "generate", looking)
    found = open_translator(f"model:{made}", lang).translate([Query("1", "el perro ladra")])
    assert len(found) == 1
    assert seen[0]["input_ids"][0, 0] == tokenizer.convert_tokens_to_ids(code)
    assert seen[0]["forced_bos_token_id"] == tokenizer.convert_tokens_to_ids("eng_Latn")
    with pytest.raises(ModelError, match=r"nllb: has no code for the language 'xx'; it has ace_Arab, ace_Latn"):
        open_translator(f"model:{made}", "xx")


def test_translators_of_several_languages_share_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_many_language_translator(tmp_path / "nllb")
    tokenizer = AutoTokenizer.from_pretrained(made)
    began: list[int] = []
    generate = M2M100ForConditionalGeneration.generate

    def looking(self: Any, **given: Any) -> Any:
        began.append(int(given["input_ids"][0, 0]))
        return generate(self, **given)

    monkeypatch.setattr(M2M100ForConditionalGeneration, "generate", looking)
    loaded = []
    load = M2M100ForConditionalGeneration.from_pretrained
    monkeypatch.setattr(
        M2M100ForConditionalGeneration,
        "from_pretrained",
        lambda *given, **more: loaded.append(1) or load(*given, **more),
    )
    translators = [open_translator(f"model:{made}", lang) for lang in ("es", "ja")]
    for translator in (*translators, translators[0]):
        translator.translate([Query("1", "el perro ladra")])
    assert len(loaded) == 1
    assert began == [tokenizer.convert_tokens_to_ids(code) for code in ("spa_Latn", "jpn_Jpan", "spa_Latn")]


@pytest.mark.parametrize(
    ("codes", "lang", "code"),
    [(["en_XX", "es_XX"], "es", "es_XX"), (["en", "es"], "es", "es"), (["zh_CN", "en_XX"], "zh", "zh_CN")],
)
def test_codes_of_other_models_are_found_too(codes: list[str], lang: str, code: str) -> None:
    assert code_of(codes, lang, "model") == code


@pytest.mark.parametrize("spec", ["human:", "apertium", "deepl:es", ""])
def test_unknown_translator_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="--translator"):
        open_translator(spec, "es")
