"""A model of its own class, as a checkpoint with remote code brings one."""

from transformers import BertConfig, BertModel, BertPreTrainedModel


class TinyConfig(BertConfig):
    model_type = "tiny-remote"


class TinyPreTrainedModel(BertPreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "bert"


class TinyModel(BertModel):
    config_class = TinyConfig
    base_model_prefix = "bert"

    def __init__(self, config):
        super().__init__(config, add_pooling_layer=False)

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        return type(output)(last_hidden_state=output.last_hidden_state * 2 + 0.25)
