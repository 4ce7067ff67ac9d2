"""A tiny multilingual encoder as XLM-R is published, a cross-encoder, a translator; all with random weights."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    NllbTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 80,
}

SMALL_TRANSLATOR = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}


def make_encoder(path: Path, *, pieces: int = 2000, seed: int = 0) -> Path:
    """Write a plain XLM-R encoder: config, weights, tokenizer; no projection, no markers."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(pieces)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, **SMALL)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_cross_encoder(path: Path) -> Path:
    """Write a model that gives one score a pair."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(2000)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, num_labels=1, **SMALL)
    XLMRobertaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_translator(path: Path) -> Path:
    """Write a sequence-to-sequence model that writes some pieces for any text."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(2000)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        **SMALL_TRANSLATOR,
        eos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=2,
    )
    model = MarianMTModel(config)
    model.generation_config.max_length = 12
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_many_language_translator(path: Path) -> Path:
    """Write a translation model of NLLB's kind: it must be told the languages; it writes some pieces for any text."""
    torch.manual_seed(0)
    letters = ["▁", *string.ascii_lowercase]
    vocabulary = {name: at for at, name in enumerate(("<s>", "<pad>", "</s>", "<unk>", *letters))}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[])
    config = M2M100Config(
        vocab_size=len(tokenizer),
        **SMALL_TRANSLATOR,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    model = M2M100ForConditionalGeneration(config)
    model.generation_config.max_length = 12
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_tokenizer(pieces: int) -> PreTrainedTokenizerFast:
    """Return a unigram tokenizer of the XLM-R kind: letters of some scripts, pairs of Latin ones, and filling."""
    letters = [chr(code) for code in range(33, 127)]
    letters += [chr(code) for codes in ((0x0410, 0x0450), (0x3041, 0x30FF)) for code in range(*codes)]
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2)]
    vocabulary = [(name, 0.0) for name in SPECIAL] + [("▁", -3.0)]
    vocabulary += [(letter, -6.0) for letter in letters] + [(pair, -8.0) for pair in pairs]
    vocabulary += [(f"▁▁filling{i}", -30.0) for i in range(pieces - len(vocabulary))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
    )
