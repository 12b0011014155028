"""Which of the three architectures a configuration makes."""

from __future__ import annotations

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder

Model = Decoder | Encoder | EncoderDecoder


def model_of(config: TransformerConfig) -> Model:
    """An empty model: an encoder-decoder when there are two halves, else a decoder when causal, else an encoder."""
    if config.decoder_layers:
        return EncoderDecoder(config)
    return Decoder(config) if config.causal else Encoder(config)
