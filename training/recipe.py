"""What a training run is made of: the recipe, a YAML file that names base, teacher, data and stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    Tag,
    model_validator,
)

EMBEDDED = "embedded"
Precision = Literal["auto", "float32", "bfloat16"]
Alignment = Literal["greedy", "nearest", "transport"]
Similarity = Literal["cosine", "l2"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ObjectiveWeights(_Part):
    """How much each objective counts, and the constants of their formulas.

    token_query: token KD of the foreign text against its English. token_passage: of the English text against
    itself, which anchors the space of the passages. relevance: KL of the student's relevance, less its length prior.
    context_relevance: KL of the contextual stream's tokens alone, for a student that has one. sentence: KL of the
    sentence vectors' dot product alone, for a student that has them. projection: KL of each query token's
    cosines to the batch's passage tokens, before to after the projection; trains the projection alone.
    sentence_query, sentence_passage: sentence-level KD, the mean of a text's contextual tokens against the mean of
    the teacher's (Reimers and Gurevych 2020). context_sentence: KL of these means' cosines.
    labelled: cross-entropy of the passage that answers a labelled query, among those of its batch.
    temperature: of all softmaxes, over MaxSim divided by the number of query tokens.
    alignment: which teacher token a student token learns from (see training/alignment.py). leftovers: what a student
    token does for which one-to-one matching left no teacher token: `drop` it, or let it learn from the `nearest`.
    alignment_threshold: the cosine below which an aligned pair is not learned from.
    """

    token_query: NonNegativeFloat = 0.5
    token_passage: NonNegativeFloat = 0.5
    relevance: NonNegativeFloat = 0.0
    context_relevance: NonNegativeFloat = 0.0
    sentence: NonNegativeFloat = 0.0
    projection: NonNegativeFloat = 0.0
    sentence_query: NonNegativeFloat = 0.0
    sentence_passage: NonNegativeFloat = 0.0
    context_sentence: NonNegativeFloat = 0.0
    labelled: NonNegativeFloat = 0.0
    temperature: float = Field(default=0.05, gt=0)
    alignment: Alignment = "greedy"
    leftovers: Literal["drop", "nearest"] = "drop"
    alignment_threshold: float | None = Field(default=None, ge=-1, le=1)

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each objective by its name."""
        constants = {"temperature", "alignment", "leftovers", "alignment_threshold"}
        return {name: weight for name, weight in self if name not in constants}

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError("every objective has the weight 0; give at least one a weight")
        if self.leftovers == "nearest" and self.alignment != "greedy":
            raise ValueError(f"leftovers: only `greedy` alignment leaves any; {self.alignment} does not")
        if self.alignment_threshold is not None and self.alignment == "transport":
            raise ValueError("alignment_threshold: `transport` aligns no pairs; take `greedy` or `nearest`")
        return self


class LearningRates(_Part):
    """One rate for each part of the student; a part with rate 0 stays frozen.

    `context`, `embedding`, `pieces`, `bridge` and `sentence` are the embedded student's English layers, its English
    piece table, what each of its pieces has of its own (`piece_width`), the bridge from its n-gram features to those
    layers and the head of its sentence vector; `encoder` is whatever else a student of another kind holds before its
    projection. `query_weights` are the logarithms of how much each piece of a query counts.
    """

    context: NonNegativeFloat = 5e-5
    embedding: NonNegativeFloat = 5e-4
    pieces: NonNegativeFloat = 1e-3
    bridge: NonNegativeFloat = 3e-3
    sentence: NonNegativeFloat = 1e-3
    encoder: NonNegativeFloat = 2e-5
    projection: NonNegativeFloat = 1e-3
    query_weights: NonNegativeFloat = 0.0


class _Training(_Part):
    """What every stage has. Its length is `steps`, or what fits into `minutes` on this machine.

    Minutes are about those from the stage's begin to its saved student: loading, the teacher's vectors or scores and
    the refit of the projection are in them, mining candidates is not. They hold 10 steps at least.

    `start` is where the stage starts from, `teacher` whom it learns from: the name of an earlier stage, or a model as
    the recipe names them. By default a stage goes on from the one before it, with the recipe's teacher.
    `accumulate` sums that many parts of a batch before a step: a batch of 192 in 6 parts needs the memory of 32; the
    candidates in a batch are then those in a part.
    `interpolate` takes that share of the way from the student before the stage to the one after it: less gained on
    the stage's data, less lost on other text (Wortsman et al. 2022, WiSE-FT).
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    start: str | None = None
    teacher: str | None = None
    steps: PositiveInt | None = None
    minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=2)
    accumulate: PositiveInt = 1
    learning_rates: LearningRates = LearningRates()
    schedule: Literal["linear", "constant"] = "linear"
    interpolate: float = Field(default=1.0, gt=0, le=1)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    query_tokens: PositiveInt = 48
    passage_tokens: PositiveInt = 96

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give a stage either `steps` or `minutes`")
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"batch_size {self.batch_size} is not {self.accumulate} (`accumulate`) parts of 2 or more"
            )
        return self


class Stage(_Training):
    """One stage of distillation from parallel text and labelled queries; the candidates are those of the batch.

    A batch is made of groups of `alike` rows with similar passages, so that its candidates are hard to tell apart;
    with `one_language` all its queries are in one language.
    `refit_projection` fits an embedded student's projection anew at the end, so that token neighbours stay.
    `emphasis` multiplies how often rows of a source are drawn, by a pattern of its name: `"*/questions/*": 5`; a
    source is a file of parallel text, or a data set and a language (`debian/ja`).
    `rows` says what it learns from: parallel `text` and labelled queries, the recipe's `dictionaries` alone, or
    `all`. `sources` are patterns of the names of those that it draws from, and `longest` how many characters the
    English of a pair may have.
    `teacher_vectors`: `stored` on disk once for each text, or computed `live` at every step, for more text than disk.
    """

    kind: Literal["distil"] = "distil"
    objectives: ObjectiveWeights = ObjectiveWeights()
    rows: Literal["text", "dictionaries", "all"] = "text"
    sources: Annotated[list[str], Field(min_length=1)] = ["*"]
    longest: PositiveInt | None = None
    alike: PositiveInt = 8
    one_language: bool = False
    labelled_share: float = Field(default=0.5, ge=0, le=1)
    emphasis: dict[str, Annotated[float, Field(gt=0)]] = {}
    refit_projection: bool = False
    teacher_vectors: Literal["stored", "live"] = "stored"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.teacher_vectors == "live" and self.alike > 1:
            raise ValueError("teacher_vectors: grouping rows that are `alike` needs stored vectors; set alike to 1")
        return self


class Literals(_Part):
    """What the released code does otherwise than it should, each a switch of its own.

    code_point_markers: the ids 9748 and 9749, code points taken for vocabulary ids, mark queries and passages.
    query_padding: queries are padded to `query_tokens`, and padding is scored. passage_padding: so is the passages'.
    zero_begin: which side's begin token is a zero vector (the BERT rule "id is not 0", on XLM-R). zeros_score: zero
    vectors stay inside the maximum, so that a query token never scores below them. partial_punctuation: only the
    first piece of each encoded ASCII mark is skipped in passages.
    """

    code_point_markers: bool = True
    query_padding: bool = True
    passage_padding: bool = True
    zero_begin: Literal["none", "passages", "both"] = "passages"
    zeros_score: bool = True
    partial_punctuation: bool = False


class Lists(_Part):
    """Candidate lists in the published formats.

    `file` is JSON lines of ids, `[query, passage, passage, …]` (ColBERT; the first passage is relevant), the same
    with `[passage, score]` pairs (ColBERTv2), or TSV of texts, `query passage passage …`. Lists of ids need `queries`
    (TSV) and `passages` (DPR's TSV or JSONL); `title` stands between a passage's title and its text. `english` holds
    the same queries in English, which the teacher reads: TSV with the same ids, or TSV of texts with the same lines;
    `in_english` says that the queries are English already.
    """

    file: Path
    queries: Path | None = None
    passages: Path | None = None
    english: Path | None = None
    in_english: bool = False
    title: str = ": "

    @property
    def holds_ids(self) -> bool:
        return ".tsv" not in self.file.suffixes

    @model_validator(mode="after")
    def _ids_have_texts(self) -> Self:
        if self.holds_ids and (self.queries is None or self.passages is None):
            raise ValueError("lists of ids need `queries` and `passages`, the files that hold their texts")
        if self.in_english and self.english is not None:
            raise ValueError("`in_english` says that there is no other file of queries; leave `english` out")
        if not self.holds_ids and (self.queries is not None or self.passages is not None):
            raise ValueError("lists of texts need no `queries` and `passages`")
        return self


class Mining(_Part):
    """Candidates from a snapshot that the stage's teacher built, searched with the English query.

    The first `depth` hits are drawn from. A candidate that the teacher scores above `keep_below` times the score of
    the relevant passage is taken for a relevant one that nobody labelled, and left out.
    """

    snapshot: Path
    depth: int = Field(default=100, ge=2, le=1000)
    keep_below: float = Field(default=0.95, gt=0)


class RankingStage(_Training):
    """One stage of learning from candidate lists, of `ways` passages each.

    `rows` says whose lists: those of `lists`, of the labelled queries of the recipe's data, or of its parallel text
    (the English sentence's own hits; no labels needed). `mine` finds the candidates of the latter two; labelled rows
    without it get random passages. Contrastive (`cross-entropy`, the first passage is relevant; `in_batch` adds the
    other rows' passages, but for those that answer the query too) or distilled (`kl` to a softmax of `scores`, times
    the temperature's square).

    `scores`: of the `file`; of the stage's `teacher`, stored on disk; of the teacher `live`, at every step; or of a
    `cross-encoder`, the model named by `cross_encoder`. `mean_maxsim` divides by the number of query tokens.
    """

    kind: Literal["ranking"]
    objective: Literal["cross-entropy", "kl"] = "kl"
    rows: Literal["lists", "labelled", "parallel"] = "labelled"
    lists: Lists | None = None
    mine: Mining | None = None
    ways: int = Field(default=2, ge=2, le=64)
    scores: Literal["file", "teacher", "live", "cross-encoder"] = "teacher"
    cross_encoder: str | None = None
    in_batch: bool = False
    temperature: float = Field(default=1.0, gt=0)
    similarity: Similarity = "cosine"
    mean_maxsim: bool = False
    literal: Literals | None = None

    @property
    def asks_teacher(self) -> bool:
        return self.mine is not None or (self.objective == "kl" and self.scores in ("teacher", "live"))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.rows == "lists") != (self.lists is not None):
            raise ValueError("`rows: lists` and `lists` belong together")
        if self.rows == "lists" and self.mine is not None:
            raise ValueError("`lists` name their candidates; `mine` is for labelled and parallel rows")
        if self.rows == "parallel" and (self.mine is None or self.objective != "kl"):
            raise ValueError("parallel rows have no labels: they need `mine` and the objective `kl`")
        if self.in_batch and self.objective == "kl":
            raise ValueError("in_batch is for cross-entropy; relevance KD over the batch is a stage of kind `distil`")
        if self.objective == "kl":
            if self.scores == "file" and self.rows != "lists":
                raise ValueError("`scores: file` needs `lists` with scores")
            if (self.scores == "cross-encoder") != (self.cross_encoder is not None):
                raise ValueError("`scores: cross-encoder` and `cross_encoder` belong together")
        taught = self.objective == "kl" and self.scores != "file"
        if taught and self.lists is not None and self.lists.english is None and not self.lists.in_english:
            raise ValueError("lists: name `english`, the queries that the teacher reads, or say `in_english: true`")
        if self.literal is not None and self.scores != "live" and self.objective == "kl":
            raise ValueError("literal: the teacher must read what the student reads; set `scores: live`")
        return self


class LiteralStage(_Training):
    """Token KD as the released code does it (Li et al. 2022), on parallel text.

    Teacher and student share one tokenizer; every position takes part. `query_weight` is that of the foreign side.
    """

    kind: Literal["literal-token-kd"]
    query_weight: float = Field(default=0.5, ge=0, le=1)
    literal: Literals = Literals()

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if not self.literal.query_padding:
            raise ValueError("literal.query_padding: literal token KD aligns two sides of one padded length")
        return self


def _kind(stage: object) -> str:
    found = stage.get("kind", "distil") if isinstance(stage, dict) else getattr(stage, "kind", "distil")
    return str(found)


class Switching(_Part):
    """Rows of English text in which words of the recipe's `dictionaries` stand for their English: code switching.

    `texts` are patterns of the names of the files of `parallel` whose English is switched, up to `rows` texts a
    language. The rows are the source `switched/LANG`; a file of dictionaries is named by its language (`ar.tsv.gz`).
    """

    texts: list[str] = Field(min_length=1)
    rows: PositiveInt


AnyStage = Annotated[
    Annotated[Stage, Tag("distil")]
    | Annotated[RankingStage, Tag("ranking")]
    | Annotated[LiteralStage, Tag("literal-token-kd")],
    Discriminator(_kind),
]


class Recipe(_Part):
    """A whole training run. Paths are relative to the working directory.

    `student` and `teacher` are `embedded`, a model directory, or the name of a model on the hub (`owner/name`); a
    plain encoder becomes a student with a fresh projection to `dim`. `data` are fetched data sets, `parallel` files
    of parallel text (TSV: source, English, translation; or English, translation). `dictionaries` are such files of
    single words and short terms, for the stages that name them alone: a word says nothing of how common it is in
    sentences. Scores of teachers are kept in `cache`, by default inside the run directory, and used again by any run
    that asks for the same.
    `switched` adds English texts with words of the dictionaries in the place of theirs.
    `sentence_weight` and `sentence_ramp` are the settings of an embedded student that is assembled.
    `piece_width` gives each piece of an embedded student a trainable vector of so many dimensions, where it has none.
    `longest_pair` and `longest_passage` are in characters: longer pairs are left out, longer passages cut.
    `validation_texts` English sentences of each source of parallel text are held back, with all that says the same.
    `precision` is what the models compute in; weights and losses always have 32 bits. `auto` takes bfloat16 where
    the hardware multiplies it faster.
    """

    format: Literal[1] = 1
    name: str
    # What the libraries' generators take, with room for a number a stage.
    seed: int = Field(default=12345, ge=0, lt=2**31)
    threads: PositiveInt | None = None
    precision: Precision = "auto"
    student: str = EMBEDDED
    teacher: str = EMBEDDED
    dim: PositiveInt = 128
    sentence_weight: NonNegativeFloat = 1.0
    sentence_ramp: PositiveInt = 1
    piece_width: int = Field(default=0, ge=0, le=384)
    data: list[Path] = []
    parallel: list[Path] = []
    dictionaries: list[Path] = []
    switched: Switching | None = None
    languages: list[str] = []
    cache: Path | None = None
    longest_pair: PositiveInt = 1000
    longest_passage: PositiveInt = 1000
    validation_texts: int = Field(default=0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stages: list[AnyStage] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_have_different_names(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have the same name")
        return self

    @model_validator(mode="after")
    def _stages_have_data(self) -> Self:
        if self.switched is not None and not self.dictionaries:
            raise ValueError("switched: needs files of `dictionaries`")
        if self.data and not self.languages:
            raise ValueError("languages: name those of the data sets to learn from")
        for stage in self.stages:
            if isinstance(stage, Stage) and stage.rows != "text":
                if not self.dictionaries:
                    raise ValueError(f"stage {stage.name}: `rows: {stage.rows}` needs files of `dictionaries`")
                continue
            of_lists = isinstance(stage, RankingStage) and stage.rows == "lists"
            labelled = isinstance(stage, RankingStage) and stage.rows == "labelled"
            if not of_lists and not self.data and (labelled or not self.parallel):
                raise ValueError(
                    f"stage {stage.name} has nothing to learn from; name `data`, or files of `parallel` text"
                )
        return self
