"""The demo's wav2vec2: the published architecture at a small size, taught for some minutes to hear the mouth.

Its hidden states, not a prediction, are what MEMO reads; linear probes on each layer exist in training only.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from ..speech import FPS, SAMPLE_RATE, Utterance

WINDOW = 5


def build_wav2vec2() -> Wav2Vec2Model:
    """Three layers of width 48 over the usual seven convolutions; no dropout and no masking."""
    return Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=96,
            conv_dim=(32,) * 7,
            feat_extract_norm="group",
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            hidden_dropout=0.0,
            activation_dropout=0.0,
            attention_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
            mask_time_prob=0.0,
            apply_spec_augment=False,
        )
    )


def normalize(waveform: Tensor) -> Tensor:
    """Zero mean, unit variance, as wav2vec2's published feature extractor with do_normalize."""
    return (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)


def hidden_states(model: Wav2Vec2Model, waveforms: Tensor, frames: int) -> Tensor:
    """Normalised waveforms (B, S) -> every layer's states at the video's frames, (B, frames, layers, D)."""
    features = model.feature_extractor(waveforms)
    features = functional.interpolate(features, size=frames, mode="linear", align_corners=True)
    projected = model.feature_projection(features.transpose(1, 2))[0]
    encoder = model.encoder
    states = encoder.dropout(encoder.layer_norm(projected + encoder.pos_conv_embed(projected)))
    layers = []
    for layer in encoder.layers:
        states = layer(states)
        layers.append(states)
    return torch.stack(layers, dim=2)


@torch.no_grad()
def frame_features(model: Wav2Vec2Model, waveform: Tensor) -> Tensor:
    """One recording (S,) -> (N, layers, D) with N = ceil(seconds * 30); windows are cut by `windows`."""
    frames = -(-waveform.shape[0] * FPS // SAMPLE_RATE)
    return hidden_states(model, normalize(waveform)[None], frames)[0]


def windows(features: Tensor, start: int, count: int) -> Tensor:
    """(N, layers, D) -> the windows of frames start.. as (count, 5, layers, D), clamped at the ends."""
    index = torch.arange(start, start + count)[:, None] + torch.arange(WINDOW) - WINDOW // 2
    return features[index.clamp(0, features.shape[0] - 1)]


def _batch(utterances: Sequence[Utterance], size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random stretches of equal length: normalised waveforms (B, S) and mouths (B, frames, 2)."""
    seconds = 2 + int(torch.randint(3, (1,), generator=generator))
    samples, frames = seconds * SAMPLE_RATE, seconds * FPS
    waves, mouths = [], []
    while len(waves) < size:
        utterance = utterances[int(torch.randint(len(utterances), (1,), generator=generator))]
        room = utterance.mouth.shape[0] - frames - 1
        if room < 1:
            continue
        start = int(torch.randint(room, (1,), generator=generator))
        sample = start * SAMPLE_RATE // FPS
        waves.append(normalize(utterance.waveform)[sample : sample + samples])
        mouths.append(utterance.mouth[start : start + frames])
    return torch.stack(waves), torch.stack(mouths)


def train_wav2vec2(
    folder: Path,
    utterances: Sequence[Utterance],
    *,
    minutes: float,
    seed: int = 0,
    batch: int = 6,
    lr: float = 1.5e-3,
    on_step: Callable[[float, str], None] | None = None,
) -> Wav2Vec2Model:
    """Train for `minutes` of wall clock and save model and preprocessor config to `folder`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build_wav2vec2().train()
    probes = nn.ModuleList([nn.Linear(model.config.hidden_size, 2) for _ in range(3)])
    parameters = [p for m in (model, probes) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-3)
    start, step, share = time.monotonic(), 0, 0.0
    while share < 1.0:
        share = (time.monotonic() - start) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * min(1.0, share)))
        waves, mouths = _batch(utterances, batch, generator)
        states = hidden_states(model, waves, mouths.shape[1])
        losses = [(probe(states[:, :, i]) - mouths).square().mean() for i, probe in enumerate(probes)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if on_step is not None and step % 20 == 0:
            on_step(min(1.0, share), f"wav2vec2 step {step} loss {loss.item():.4f}")
    model.eval()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    return model
