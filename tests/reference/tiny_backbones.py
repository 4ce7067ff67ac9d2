"""Encoders of a few kilobytes with tokenizers over ten scripts, for whichever reference library runs this."""

from __future__ import annotations

import random
import string
import zlib
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

TEXTS = [
    "Which package plays music, and who wrote it?",
    "أين تقع مدينة دمشق؟",
    "東京の天気はどうですか。",
    "ภาษาไทยไม่มีช่องว่าง",
    "Как настроить принтер?",
    "सौर ऊर्जा क्या है?",
    "서울의 인구는?",
    "Πού είναι η Ακρόπολη;",
    "מהי בירת צרפת?",
    "বাংলা ভাষা কোথায়?",
    "a",
    "one, two; three. " * 12,
]
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
POSITIONS = 48


def letters() -> list[str]:
    found = {letter for text in TEXTS for letter in text.lower() if not letter.isspace()}
    return sorted(found | set(string.punctuation))


def make_bert(path: Path, extra: tuple[str, ...] = ()) -> Path:
    """Write a BERT with WordPiece over letters; [unused0] and [unused1] are ordinary entries, as in BERT's own."""
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *extra]
    names = [*special, *letters(), *(f"##{letter}" for letter in letters() if letter not in string.punctuation)]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    torch.manual_seed(0)
    config = BertConfig(**SIZES, vocab_size=len(names), max_position_embeddings=POSITIONS)
    _save(path, BertModel(config, add_pooling_layer=False), tokenizer, dict(zip(
        ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        strict=True,
    )))  # fmt: skip
    return path


def make_xlmr(path: Path, size: int = 0) -> Path:
    """Write an XLM-R with a unigram vocabulary over letters, filled up to `size` entries."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    entries = [(name, 0.0) for name in special] + [("▁", -2.0)] + [(letter, -6.0) for letter in letters()]
    entries += [(f"▁{letter}", -5.0) for letter in string.ascii_lowercase]
    entries += [(f"<filler{index}>", -90.0) for index in range(size - len(entries) - 1)]
    entries.append(("<mask>", 0.0))
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        **SIZES, vocab_size=len(entries), max_position_embeddings=POSITIONS + 2, type_vocab_size=1
    )
    model = XLMRobertaModel(config, add_pooling_layer=False)
    _save(path, model, tokenizer, {
        "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
        "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
    })  # fmt: skip
    return path


def fill(model: torch.nn.Module, seed: int = 0) -> None:
    """Give a model weights that every version of torch and transformers draws alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            rng = np.random.RandomState(zlib.crc32(name.encode()) + seed)
            scale = 0.5 if parameter.ndim > 1 else 0.1
            drawn = torch.from_numpy(rng.standard_normal(tuple(parameter.shape)).astype(np.float32))
            parameter.copy_(drawn * scale + (parameter if parameter.ndim == 1 else 0))


def make_primeqa(folder: Path, generation: str) -> tuple[Path, Path]:
    """Write the base encoder and a `.dnn` of a generation over it, optimizer and random states included."""
    base = make_xlmr(folder / "xlm-roberta-base", size=9760)
    encoder = XLMRobertaModel.from_pretrained(base)
    linear = torch.nn.Linear(SIZES["hidden_size"], 6, bias=False)
    fill(linear, seed=7)
    before = "model." if generation == "B" else ""
    state = {f"{before}roberta.{key}": tensor for key, tensor in encoder.state_dict().items()}
    state[f"{before}linear.weight"] = linear.weight.detach()
    settings = {"query_maxlen": 24, "doc_maxlen": 40, "mask_punctuation": True, "similarity": "cosine"}
    content = {
        "epoch": 0,
        "batch": 3,
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5}]},
        "torch_rng_state": torch.get_rng_state(),
        "np_rng_state": np.random.RandomState(0).get_state(),
        "python_rng_state": random.Random(0).getstate(),
    }
    if generation == "B":
        state |= {key.replace("roberta.", "bert."): tensor for key, tensor in state.items() if "roberta." in key}
        content |= {"model_type": "xlm-roberta-base", "config": settings}
    else:
        content["arguments"] = settings | {"model": "xlm-roberta-base", "similarity": "l2"}
    path = folder / f"{generation}.dnn"
    torch.save(content, path)
    return base, path


def _save(path: Path, model: torch.nn.Module, tokenizer: Tokenizer, special: dict[str, str]) -> None:
    fill(model)
    model.save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **special).save_pretrained(path)
