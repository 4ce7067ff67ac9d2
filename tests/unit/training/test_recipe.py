"""Recipes are read whole or refused in one line that names the place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricated_data_set import make_data_set
from published_files import write_published_files

from drdecr.errors import UsageError
from training.recipe_file import RECIPES, hub_models, load_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("data") / "fabricated", ("de",))


@pytest.fixture
def content(data: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "data": [str(data)],
        "languages": ["de"],
        "stages": [{"name": "token-kd", "steps": 3}, {"name": "relevance-kd", "minutes": 0.5}],
    }


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(content: object) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return to_file


def test_recipe_is_read_with_its_defaults(write: Any, content: dict[str, Any]) -> None:
    recipe = load_recipe(write(content))
    assert [stage.name for stage in recipe.stages] == ["token-kd", "relevance-kd"]
    assert recipe.stages[0].steps == 3 and recipe.stages[1].minutes == 0.5
    assert (recipe.student, recipe.teacher, recipe.dim) == ("embedded", "embedded", 128)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_shipped_recipe_is_valid_over_its_data(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_published_files(tmp_path)
    if name == "released":
        shipped = yaml.safe_load((RECIPES / "released.yaml").read_text(encoding="utf-8"))
        for file in shipped["parallel"] + shipped.get("dictionaries", []):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    fetched = [f"data=[{json.dumps(str(data))}]"] if name in ("quickstart", "released") else []
    recipe = load_recipe(name, fetched)
    assert recipe.name == name
    assert recipe.stages


def test_settings_are_changed_by_their_path(write: Any, content: dict[str, Any]) -> None:
    recipe = load_recipe(
        write(content),
        [
            "seed=7",
            "stages.token-kd.steps=9",
            "stages.relevance-kd.objectives.relevance=1.5",
            "stages.relevance-kd.learning_rates.context=1.0e-4",
            "languages=[de, ru]",
        ],
    )
    assert recipe.seed == 7
    assert recipe.languages == ["de", "ru"]
    assert recipe.stages[0].steps == 9
    assert recipe.stages[1].objectives.relevance == 1.5
    assert recipe.stages[1].learning_rates.context == 1e-4


def test_length_may_be_changed_from_minutes_to_steps(write: Any, content: dict[str, Any]) -> None:
    recipe = load_recipe(write(content), ["stages.relevance-kd.minutes=null", "stages.relevance-kd.steps=4"])
    assert (recipe.stages[1].steps, recipe.stages[1].minutes) == (4, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "red"}, r"small\.yaml: colour: Extra inputs"),
        ({"dim": 0}, r"small\.yaml: dim: "),
        ({"seed": -1}, r"small\.yaml: seed: "),
        ({"format": 2}, r"small\.yaml: format: "),
        ({"languages": []}, r"small\.yaml: languages: name those"),
        ({"data": []}, r"small\.yaml: stage token-kd has nothing to learn from"),
        ({"stages": [{"name": "a", "steps": 1, "kind": "colour"}]}, r"stages\.0: kind: there is no 'colour'; those"),
        ({"stages": []}, r"small\.yaml: stages: "),
        ({"stages": [{"name": "a"}]}, r"stages\.0: .*either `steps` or `minutes`"),
        ({"stages": [{"name": "a", "steps": 1, "minutes": 1}]}, r"stages\.0: .*either `steps` or `minutes`"),
        ({"stages": [{"name": "a", "minutes": float("inf")}]}, r"stages\.0\.minutes: .*finite"),
        ({"stages": [{"name": "a", "steps": 1, "step": 2}]}, r"stages\.0\.step: Extra inputs"),
        ({"stages": [{"name": "a/b", "steps": 1}]}, r"stages\.0\.name: "),
        ({"stages": [{"name": "a", "steps": 1}] * 2}, r"small\.yaml: .*two stages have the same name"),
        ({"stages": [{"name": "a", "steps": 1, "batch_size": 1}]}, r"stages\.0\.batch_size: "),
        (
            {"stages": [{"name": "a", "steps": 1, "objectives": {"token_query": 0, "token_passage": 0}}]},
            r"stages\.0\.objectives: .*every objective has the weight 0",
        ),
        ({"stages": [{"name": "a", "steps": 1, "learning_rates": {"contxt": 1}}]}, r"learning_rates\.contxt: Extra"),
        ({"student": "nowhere"}, r"nowhere is no model directory, and not `embedded`"),
        ({"teacher": "nowhere"}, r"nowhere is no model directory, and not `embedded`"),
        ({"data": ["nowhere"]}, r"data: nowhere is no fetched data set; run `drdecr data fetch` first"),
    ],
)
def test_setting_that_does_not_fit_is_named(
    changes: dict[str, Any], named: str, write: Any, content: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=named):
        load_recipe(write(content | changes))


@pytest.mark.parametrize("missing", ["name", "stages"])
def test_setting_that_is_missing_is_named(missing: str, write: Any, content: dict[str, Any]) -> None:
    del content[missing]
    with pytest.raises(UsageError, match=rf"small\.yaml: {missing}: Field required"):
        load_recipe(write(content))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seed", r"--set seed: expected KEY=VALUE"),
        ("stages.absent.steps=1", r"--set stages\.absent\.steps: there is no 'absent'"),
        ("stages.token-kd.objectives.absent.x=1", r"objectives\.absent: Extra inputs"),
        ("seed.x=1", r"--set seed\.x: seed is no group"),
        ("seed.x.y=1", r"--set seed\.x\.y: there is no 'x'"),
        ("stages.token-kd=1", r"--set stages\.token-kd: stages is no group"),
        ("name.x=1", r"--set name\.x: name is no group"),
        ("colour=red", r"colour: Extra inputs"),
        ("data=[a", r"--set data=\[a: the value is not YAML"),
        ("seed=" + "1" * 5000, r"--set seed=1+: the value is not YAML \(Exceeds the limit"),
        ("dim=many", r"dim: "),
        ("=1", r": Extra inputs"),
    ],
)
def test_override_that_does_not_fit_is_named(override: str, named: str, write: Any, content: dict[str, Any]) -> None:
    content["seed"] = 1
    with pytest.raises(UsageError, match=named):
        load_recipe(write(content), [override])


STAGE = {"name": "a", "steps": 1}
RANKING = STAGE | {"kind": "ranking"}


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        (STAGE | {"batch_size": 6, "accumulate": 4}, r"stages\.0: batch_size 6 is not 4 \(`accumulate`\) parts"),
        (STAGE | {"teacher_vectors": "live"}, r"stages\.0: teacher_vectors: .* set alike to 1"),
        (STAGE | {"objectives": {"alignment": "transport", "leftovers": "nearest"}}, r"leftovers: only `greedy`"),
        (STAGE | {"objectives": {"alignment": "transport", "alignment_threshold": 0.5}}, r"aligns no pairs"),
        (STAGE | {"rows": "dictionaries"}, r"stage a: `rows: dictionaries` needs files of `dictionaries`"),
        (STAGE | {"rows": "all"}, r"stage a: `rows: all` needs files of `dictionaries`"),
        (STAGE | {"sources": []}, r"stages\.0\.sources: .*at least 1"),
        (STAGE | {"start": "later"}, r"stages\.a\.start: later is no model directory, .* and no earlier stage"),
        (STAGE | {"teacher": "a"}, r"stages\.a\.teacher: a is no model directory"),
        (RANKING | {"ways": 65}, r"stages\.0\.ways: .*less than or equal to 64"),
        (RANKING | {"rows": "lists"}, r"`rows: lists` and `lists` belong together"),
        (RANKING | {"rows": "parallel"}, r"parallel rows have no labels: they need `mine`"),
        (RANKING | {"in_batch": True}, r"in_batch is for cross-entropy"),
        (RANKING | {"scores": "file"}, r"`scores: file` needs `lists` with scores"),
        (RANKING | {"scores": "cross-encoder"}, r"`scores: cross-encoder` and `cross_encoder` belong together"),
        (RANKING | {"scores": "cross-encoder", "cross_encoder": "embedded"}, r"there is no embedded cross-encoder"),
        (RANKING | {"literal": {}}, r"literal: the teacher must read what the student reads; set `scores: live`"),
        (RANKING | {"mine": {"snapshot": "nowhere"}}, r"stages\.a\.mine\.snapshot: nowhere is no snapshot"),
        (
            RANKING | {"rows": "lists", "lists": {"file": "x.json"}},
            r"lists of ids need `queries` and `passages`",
        ),
        (
            RANKING | {"rows": "lists", "lists": {"file": "x.tsv", "queries": "q"}},
            r"lists of texts need no `queries`",
        ),
        (RANKING | {"rows": "lists", "lists": {"file": "x.tsv"}}, r"lists: name `english`, the queries that"),
        (
            RANKING | {"rows": "lists", "lists": {"file": "x.tsv", "in_english": True}},
            r"stages\.a\.lists\.file: x\.tsv: no such file",
        ),
        (
            STAGE | {"kind": "literal-token-kd", "literal": {"query_padding": False}},
            r"literal\.query_padding: literal token KD aligns",
        ),
    ],
)
def test_impossible_combination_is_named(
    stage: dict[str, Any], named: str, write: Any, content: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=named):
        load_recipe(write(content | {"stages": [stage]}))


def test_switching_without_dictionaries_is_named(write: Any, content: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"switched: needs files of `dictionaries`"):
        load_recipe(write(content | {"switched": {"texts": ["*"], "rows": 5}}))


def test_missing_dictionary_is_named_and_dictionaries_alone_are_data(
    write: Any, content: dict[str, Any], tmp_path: Path
) -> None:
    words = tmp_path / "de.tsv"
    del content["data"], content["languages"]
    content |= {"stages": [STAGE | {"rows": "dictionaries"}], "dictionaries": [str(words)]}
    with pytest.raises(UsageError, match=rf"dictionaries: {words}: no such file"):
        load_recipe(write(content))
    words.write_text("house\tHaus\n", encoding="utf-8")
    assert load_recipe(write(content)).dictionaries == [words]


def test_models_may_be_paths_stages_or_names_on_the_hub(
    write: Any, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    stages = [STAGE, {"name": "b", "steps": 1, "start": "embedded", "teacher": "a"}]
    recipe = load_recipe(write(content | {"student": "owner/name", "teacher": "models", "stages": stages}))
    assert hub_models(recipe) == ["owner/name"]
    # The owner is a directory here: this is a path with a slip in it.
    with pytest.raises(UsageError, match="student: models/absent is no model directory"):
        load_recipe(write(content | {"student": "models/absent"}))


def test_head_of_the_released_recipe_fetches_all_that_it_reads() -> None:
    text = (RECIPES / "released.yaml").read_text(encoding="utf-8")
    head = text[: text.index("name: released")]
    shipped = yaml.safe_load(text)
    languages = re.search(r"languages=(\S+)", head)
    names = re.search(r"for name in ([a-z ]+); do", head)
    assert languages and languages[1].split(",") == shipped["languages"]
    files = shipped["data"] + shipped["parallel"] + shipped["dictionaries"]
    read = {file.split("/")[1] for file in files if file.startswith("data/")}
    assert names and set(names[1].split()) == read


def test_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"absent: no such file, and no shipped recipe; those are .*quickstart"):
        load_recipe("absent")


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"name: [", r"small\.yaml: not YAML"),
        (b"seed: " + b"1" * 5000, r"small\.yaml: not YAML"),
        (b"- a\n- b\n", r"small\.yaml: a recipe is a mapping"),
        (b"", r"small\.yaml: a recipe is a mapping"),
        ("name: größe".encode("latin-1"), r"small\.yaml: not UTF-8"),
    ],
)
def test_file_that_is_no_recipe_is_named(raw: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=named):
        load_recipe(path)
