"""Students with random weights that sentence-transformers loads: the embedded kind, and a plain one."""

from __future__ import annotations

from pathlib import Path

import torch
from fabricated_student import make_tokenizer
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from drdecr.encoder.query_weights import QueryWeights
from drdecr.encoder.settings import StudentSettings, write_settings
from drdecr.encoder.two_stream import TwoStreamEncoder

BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
WORDS = ("which", "package", "plays", "music", "?", ",", "the", "sound", "player", "[Q]", "[D]")


def make_two_stream_student(path: Path, *, dim: int = 16) -> Path:
    """Write a student of the embedded kind: two streams, 8-bit table, sentence vector of 24, query weights."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    pieces = tokenizer.get_vocab_size()
    ngram = {"width": 24, "branch_width": 8, "hidden": 12, "chunks": 5}
    encoder = TwoStreamEncoder(
        tokenizer,
        pieces=pieces,
        context_config={**BERT, "vocab_size": 50},
        ngram_config=ngram,
        neighbours=3,
        never_scored=(1, 2, 3),
        query_length=32,
        passage_length=128,
    )
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
        encoder.context.embedding.rows.random_(0, 50)
        encoder.ngram.table.random_(0, 256)
        encoder.ngram.scale.uniform_(0.005, 0.02)
        encoder.ngram.offset.fill_(-1.0)
    projection = Dense(
        encoder.get_embedding_dimension(),
        dim,
        bias=False,
        activation_function=torch.nn.Identity(),
        module_input_name="token_embeddings",
    )
    weights = QueryWeights(pieces)
    torch.nn.init.normal_(weights.log_weights)
    modules = [encoder, projection, Normalize(module_input_name="token_embeddings"), weights]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(path), create_model_card=False)
    settings = StudentSettings(
        name="two-stream",
        dim=dim,
        sentence_dim=24,
        sentence_weight=1.0,
        query_length=32,
        passage_length=128,
        never_scored=(1, 2, 3),
        pad_id=3,
        unknown_id=0,
        query_weights=True,
    )
    write_settings(path, settings)
    return path


def make_plain_student(path: Path) -> Path:
    """Write a student without `drdecr.json`: BERT and a projection, with prompts and a skip list."""
    torch.manual_seed(1)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backbone = path.with_name(f"{path.name}-backbone")
    BertModel(BertConfig(**BERT, vocab_size=len(names))).save_pretrained(backbone)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(backbone)
    modules = [
        Transformer(str(backbone), query_length=16, document_length=24),
        Dense(
            BERT["hidden_size"],
            8,
            bias=False,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist_words=[","]),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "[Q] ", "document": "[D] "}
    model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)
    model.save_pretrained(str(path), create_model_card=False)
    return path
