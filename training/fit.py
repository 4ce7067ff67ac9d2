"""Train a student on sentence-transformers' trainer: what every kind of stage shares."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import release_memory
from datasets import Dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer
from sentence_transformers.multi_vector_encoder.training_args import MultiVectorEncoderTrainingArguments
from torch import nn
from torch.utils.tensorboard.writer import SummaryWriter
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback
from transformers.integrations import TensorBoardCallback

from drdecr.encoder.packing import attends_packed
from drdecr.encoder.settings import SETTINGS_FILE
from drdecr.encoder.torch_runtime import TASKS, fast_tokenizer, load_model
from drdecr.errors import ModelError, ResourceError, UsageError
from training.batches import InOrder, InSteps
from training.checkpoints import MarksCheckpoints, SavesInTime, last_whole_checkpoint
from training.json_file import write_json
from training.progress import StepProgress
from training.recipe import AnyStage, LearningRates


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage that is being carried out: its settings, where it starts, where its files lie, since when."""

    stage: AnyStage
    student: Path
    folder: Path
    seed: int
    dropout: float = 0.0
    bfloat16: bool = False
    begun: float = field(default_factory=time.monotonic)

    @property
    def product(self) -> Path:
        return self.folder / "student"

    @property
    def is_done(self) -> bool:
        return (self.folder / "done.json").is_file()


# What the first process does alone (the teacher reads, scores are stored, models are fetched) may take hours; torch
# would let the others give up after ten or thirty minutes. Where a process dies, its launcher stops the rest.
_LONGEST_WAIT = timedelta(days=30)


def processes() -> int:
    """Return how many processes train together (torchrun, accelerate)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Let every process of a parallel training arrive here."""
    if processes() > 1:
        PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT).wait_for_everyone()


def first_alone(work: Callable[[], None]) -> None:
    """Let the first process do what leaves files, while the others wait for it."""
    if is_first_process():
        work()
    wait_for_all()


def require_whole_parts(stage: AnyStage) -> None:
    """Raise UsageError where a batch cannot be shared out: to every process, `accumulate` parts of 2 rows or more."""
    parts = stage.accumulate * processes()
    if stage.batch_size % parts or stage.batch_size // parts < 2:
        raise UsageError(
            f"stage {stage.name}: batch_size {stage.batch_size} is not {processes()} processes x {stage.accumulate} "
            "(`accumulate`) parts of 2 or more"
        )


def open_student(run: StageRun) -> MultiVectorEncoder:
    """Load the student that a stage starts from, with its frozen parts and its dropout set."""
    # Where the trainer puts it: on a GPU of CUDA, else on the processor.
    model = load_model(run.student, device=None if torch.cuda.is_available() else "cpu")
    # With one there, the trainer makes no examples for a model card that is never written.
    model.model_card_data.widget = [{}]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = run.dropout
        # On a processor the backward pass of torch's fused attention takes longer than all else together.
        if isinstance(module, PreTrainedModel) and model.device.type == "cpu" and not attends_packed(module):
            module.set_attn_implementation("eager")
    freeze(model, run.stage.learning_rates)
    return model


def require_one_tokenizer(run: StageRun, model: MultiVectorEncoder, teacher: MultiVectorEncoder, named: Path) -> None:
    """Raise ModelError where a teacher that is given the student's token ids would read another text."""
    if _vocabulary(model) != _vocabulary(teacher):
        raise ModelError(
            f"stage {run.stage.name}: student and teacher must share one tokenizer, {named} has another; "
            "take such a teacher, or one whose scores are stored"
        )


def _vocabulary(model: MultiVectorEncoder) -> dict[str, int]:
    return dict(fast_tokenizer(model).get_vocab(with_added_tokens=True))


def fit(
    run: StageRun,
    model: MultiVectorEncoder,
    loss: nn.Module,
    data: Mapping[str, Dataset] | Dataset,
    steps: int,
    *,
    collator: Any = None,
    validation: Mapping[str, Dataset] | Dataset | None = None,
) -> list[dict[str, Any]]:
    """Train for `steps`, from the last whole checkpoint where there is one, and return the history of losses.

    Raises: ResourceError where the memory does not hold a step; it names the settings to lower.
    """
    stage, folder = run.stage, run.folder
    trainer = _StageTrainer(
        model=model,
        args=_arguments(
            run, model, steps, learning_rates(model, stage.learning_rates), validates=validation is not None
        ),
        train_dataset=dict(data) if isinstance(data, Mapping) else data,
        eval_dataset=validation,
        loss=loss,
        data_collator=collator,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(MarksCheckpoints())
    if processes() == 1:
        # The clocks of several would not agree when to save.
        trainer.add_callback(SavesInTime())
    checkpoint = last_whole_checkpoint(folder / "checkpoints")
    with SummaryWriter(str(folder / "tensorboard")) if is_first_process() else _NoWriter() as writer:
        if is_first_process():
            trainer.add_callback(StepProgress(stage.name))
            trainer.add_callback(TensorBoardCallback(writer))
        with naming_full_memory(stage):
            trainer.train(resume_from_checkpoint=checkpoint)
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


def finish(run: StageRun, model: MultiVectorEncoder, steps: int, history: list[dict[str, Any]]) -> Path:
    """Save the student of a stage and mark the stage as done; its checkpoints go."""

    def write() -> None:
        save_student(model, run.student, run.product)
        write_json(run.folder / "done.json", {"steps": steps, "history": history})
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)

    first_alone(write)
    return run.product


class _StageTrainer(MultiVectorEncoderTrainer):  # type: ignore[misc]
    """The library's trainer, with all parts of a step from one data set."""

    def get_multi_dataset_batch_sampler(self, dataset: Any, **settings: Any) -> InSteps:
        return InSteps(dataset, parts=self.args.gradient_accumulation_steps * self.args.world_size, **settings)


class naming_full_memory:  # noqa: N801 (a context manager reads as a phrase)
    """Turns "out of memory" into a ResourceError that names what to lower."""

    def __init__(self, stage: AnyStage) -> None:
        self.stage = stage

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        full = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
            isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
        )
        if not full:
            return
        release_memory()
        stage = self.stage
        settings = [f"raise accumulate (now {stage.accumulate}, of batch_size {stage.batch_size})"]
        settings += [f"lower {name} (now {getattr(stage, name)})" for name in ("passage_tokens", "query_tokens")]
        if (ways := getattr(stage, "ways", None)) is not None:
            settings.insert(1, f"lower ways (now {ways})")
        raise ResourceError(f"stage {stage.name} does not fit into memory: {', or '.join(settings)}") from None


class _NoWriter:
    def __enter__(self) -> None: ...

    def __exit__(self, *of: object) -> None: ...


def freeze(model: MultiVectorEncoder, rates: LearningRates) -> None:
    """Leave only the parameters with a rate above 0 to be trained; the n-gram stream never is.

    Raises: UsageError where that leaves none.
    """
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part is not None and getattr(rates, part) > 0)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        parts = sorted({part for name, _ in model.named_parameters() if (part := part_of(name))})
        raise UsageError(f"nothing would be trained; give {' or '.join(parts)} a learning rate above 0")


def learning_rates(model: MultiVectorEncoder, rates: LearningRates) -> dict[str, float]:
    """Return patterns of the names that parameters have inside the loss, with the rate of each part.

    The trainer refuses a pattern that fits no parameter, so a part that is not there or frozen has none.
    """
    names: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part is not None and parameter.requires_grad:
            names.setdefault(part, []).append(re.escape(name))
    return {rf"^model\.(?:{'|'.join(some)})$": getattr(rates, part) for part, some in names.items()}


def part_of(parameter: str) -> str | None:
    """Name the part of `LearningRates` that a parameter belongs to; None for one that is never trained."""
    if parameter.endswith(".log_weights"):
        return "query_weights"
    if ".ngram." in parameter or parameter.endswith("context.embedding.weights"):
        return None
    if ".context.embedding.own" in parameter:
        return "pieces"
    if ".context.embedding." in parameter:
        return "embedding"
    if ".sentence_head." in parameter:
        return "sentence"
    if ".bridge." in parameter:
        return "bridge"
    if ".context." in parameter:
        return "context"
    return "encoder" if parameter.startswith("0.") else "projection"


def save_student(model: MultiVectorEncoder, origin: Path, product: Path) -> None:
    """Save a student with the settings of the one it came from, as a whole or not at all."""
    partial = product.with_name(product.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), create_model_card=False)
    if (origin / SETTINGS_FILE).is_file():
        shutil.copy(origin / SETTINGS_FILE, partial / SETTINGS_FILE)
    shutil.rmtree(product, ignore_errors=True)
    partial.rename(product)


def _arguments(
    run: StageRun, model: MultiVectorEncoder, steps: int, rates: dict[str, float], *, validates: bool
) -> MultiVectorEncoderTrainingArguments:
    stage = run.stage
    require_whole_parts(stage)
    parts = stage.accumulate * processes()
    prompts = {
        column: prompt
        for column, task in (("query", "query"), ("passage", TASKS["passage"]))
        if (prompt := (model.prompts or {}).get(task))
    }
    arguments = MultiVectorEncoderTrainingArguments(
        output_dir=str(run.folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=stage.batch_size // parts,
        per_device_eval_batch_size=stage.batch_size // parts,
        gradient_accumulation_steps=stage.accumulate,
        learning_rate_mapping=rates,
        lr_scheduler_type=stage.schedule if stage.schedule == "linear" else "constant_with_warmup",
        warmup_steps=round(steps * stage.warmup_share),
        weight_decay=0.0,
        max_grad_norm=2.0,
        adam_epsilon=1e-8,
        seed=run.seed,
        data_seed=run.seed,
        bf16=run.bfloat16,
        batch_sampler=InOrder,
        max_length={"query": stage.query_tokens, "document": stage.passage_tokens},
        prompts=prompts or None,
        dataloader_drop_last=True,
        save_steps=max(20, steps // 4),
        # Two, so that one is whole while the other is being written.
        save_total_limit=2,
        logging_steps=max(1, steps // 50),
        eval_strategy="steps" if validates else "no",
        eval_steps=max(1, steps // 10),
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    # Beside several GPUs a process trains on one: the trainer would multiply the batch by their number.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
