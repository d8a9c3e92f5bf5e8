"""Checks inside ComfyUI: what the voice node listens to, emotions over time and as heard, long voices."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from checks_cache import error_of
from checks_video import read_video
from world import World, read_voice

GOLDEN = "tests/goldens/emotion/layer_norm.safetensors"
SECONDS = 2.0


def sound(world: World, seconds: float = SECONDS) -> dict[str, Any]:
    """The voice of the tests, repeated to this length."""
    voice = read_voice(world.user / "input" / "voice.wav")
    count = round(seconds * voice["sample_rate"])
    times = -(-count // voice["waveform"].shape[-1])
    return {**voice, "waveform": voice["waveform"].repeat(1, 1, times)[..., :count]}


def encode(world: World, emotion: str = "happy", **options: Any) -> Any:
    audio = options.pop("audio") if "audio" in options else sound(world)
    memo = options.pop("memo", world.job.memo)
    return world.nodes.VoiceNode.execute(audio, memo, emotion, 0.0, 0.0, **options).args[0]


def emotions_over_time(world: World) -> dict[str, Any]:
    voice = encode(world, emotions="0 happy, 1.5 sad").voice
    return {
        "plan": voice.emotions.tolist(),
        "plain": sorted(set(encode(world).voice.emotions.tolist())),
        "bad": error_of(lambda: encode(world, emotions="1.5 merry")),
    }


def emotions_as_heard(world: World) -> dict[str, Any]:
    """With a random emotion2vec beside the checkpoint; without it, a message."""
    from safetensors.torch import load_file, save_file

    table = world.module("memo_avatar.files.published_models")
    folder = world.user / "models" / "memo" / "heard"
    shutil.copytree(world.job.memo.path, folder)
    memo = replace(world.job.memo, path=folder)
    missing = error_of(lambda: encode(world, "auto", memo=memo))
    stored = load_file(world.user / "custom_nodes" / "teacache-memo" / GOLDEN)
    places = {"model.": table.CONVERTED, "classifier.": f"{table.CLASSIFIER}/{table.WEIGHTS_NAME}"}
    for prefix, place in places.items():
        (folder / place).parent.mkdir(parents=True)
        part = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
        save_file(part, folder / place)
    heard = encode(world, "auto", memo=memo).voice.emotions
    shutil.rmtree(folder)
    return {"missing": missing, "frames": heard.shape[0], "classes": sorted(set(heard.tolist()))}


def vocals_of_another_node(world: World) -> dict[str, Any]:
    """The model listens to the vocals; the video keeps the sound."""
    import torch

    plain, audio = encode(world), sound(world)
    noise = torch.randn(1, 2, round(SECONDS * 44_100), generator=torch.Generator().manual_seed(0)) * 0.1
    other = encode(world, vocals={"waveform": noise, "sample_rate": 44_100})
    same = encode(world, vocals=audio)
    short = {"waveform": noise[..., :44_100], "sample_rate": 44_100}
    return {
        "same": bool(same.voice.audio_embeddings.equal(plain.voice.audio_embeddings)),
        "other": bool(other.voice.audio_embeddings.equal(plain.voice.audio_embeddings)),
        "sound": bool(other.waveform.equal(plain.waveform)),
        "short": error_of(lambda: encode(world, vocals=short)),
        "no model": error_of(lambda: encode(world, separate_vocals=True)),
    }


def long_voices(world: World) -> dict[str, Any]:
    """Over ten minutes in windows; the clip loop reads their rows."""
    import torch

    windows = world.module("memo_avatar.voice.windows")
    whole = encode(world, audio=sound(world, 14.0)).voice
    before = windows.ONE_PIECE_SECONDS
    plan = windows.WindowPlan.__init__.__defaults__
    windows.WindowPlan.__init__.__defaults__ = (30, 1.0, 6.0, 2.0)
    try:
        long = encode(world, audio=sound(world, 14.0))
    finally:
        windows.WindowPlan.__init__.__defaults__ = plan
    assert before == windows.ONE_PIECE_SECONDS
    parts = long.voice
    rows = parts.audio_embeddings[torch.arange(whole.audio_embeddings.shape[0])]
    audio, _ = world.module("memo_avatar.clips.loop").clip_voice(
        parts, world.module("memo_avatar.timing").clip_spans(parts.num_frames, 16)[-1]
    )
    relative = (rows - whole.audio_embeddings).norm() / whole.audio_embeddings.norm()
    return {
        "kind": type(parts.audio_embeddings).__name__,
        "relative": float(relative),
        "clip": list(audio.shape[:2]),
        "frames of its file": len(read_video(make_file(world, replace(world.job, voice=long, steps=1)))),
    }


def make_file(world: World, job: Any) -> Path:
    """By the node, as the host calls it."""
    made = world.nodes.SamplerToFileNode.execute(filename_prefix="video/long_voice", **vars(job))
    return Path(made.args[1])


def odd_sounds(world: World) -> dict[str, str]:
    """What cannot be heard is told."""
    import torch

    def told(waveform: Any, rate: int = 16_000, **options: Any) -> str:
        audio = {"waveform": waveform, "sample_rate": rate}
        return error_of(lambda: encode(world, audio=audio, **options))

    def span(start: float, duration: float) -> str:
        execute = world.nodes.VoiceNode.execute
        return error_of(lambda: execute(sound(world), world.job.memo, "sad", start, duration))

    second = torch.ones(1, 1, 16_000) * 0.1
    beyond = error_of(lambda: world.nodes.VoiceNode.execute(sound(world), world.job.memo, "sad", 9.0, 0.0))
    return {
        "one sample": told(torch.zeros(1, 1, 1)),
        "no sample": told(torch.zeros(1, 1, 0)),
        "NaN": told(torch.full((1, 1, 16_000), torch.nan)),
        "beyond the end": beyond,
        "silence": told(second * 0),
        "8 kHz": told(second, 8_000),
        "192 kHz": told(second.repeat(1, 1, 12), 192_000),
        "5.1": told(second.expand(1, 6, -1)),
        "clipped": told(second * 100),
        "batch": told(second.expand(3, 1, -1)),
        "eight channels": told(second.expand(1, 8, -1)),
        "no batch": told(second[0]),
        "16 bit": told((second * 2**15).short()),
        "1 Hz": told(second, 1),
        "17 channels": told(second.expand(1, 17, -1)),
        "no sound": error_of(lambda: encode(world, audio=second)),
        "sparse": told(second.to_sparse()),
        "a hundredth of a second": span(0.0, 0.01),
        "NaN start": span(float("nan"), 0.0),
        "no time": span(0.0, float("inf")),
        "both vocals": told(second, vocals=sound(world, 1.0), separate_vocals=True),
    }


def encoder_of_the_hosts_folder(world: World) -> dict[str, str]:
    """Without wav2vec2 beside the checkpoint: told where to put it, and found there."""
    import torch
    from safetensors.torch import save_file

    host, memo = world.module("nodes.host.voice"), replace(world.job.memo, wav2vec2=None)
    missing = error_of(lambda: encode(world, memo=memo))
    path = world.user / "models" / "audio_encoders" / "wav2vec2-base-960h.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"opened": torch.ones(1)}, path)
    opened: list[str] = []
    load, host.load_audio_encoder_from_sd = host.load_audio_encoder_from_sd, opened.extend
    try:
        error_of(lambda: encode(world, memo=memo))
    finally:
        host.load_audio_encoder_from_sd = load
        path.unlink()
    return {"none": missing, "opened": path.name if opened == ["opened"] else str(opened)}


def surround(world: World) -> dict[str, float]:
    """5.0 with a voice in the centre alone, through the node and a video's sound."""
    import av
    import torch

    waveform = torch.zeros(1, 5, 16_000)
    waveform[:, 2] = torch.sin(torch.arange(16_000) / 8) * 0.35
    voice = encode(world, audio={"waveform": waveform, "sample_rate": 16_000})
    path = world.user / "output" / "surround.mp4"
    heard = world.module("memo_avatar.video.streams").Sound.of_waveform(voice.waveform[0], voice.sample_rate)
    world.module("memo_avatar.video.segments").write_video(path, torch.zeros(30, 3, 32, 32), heard)
    with av.open(str(path)) as container:
        peak = max(float(abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0))
    return {"peak": peak}


CHECKS = [
    emotions_over_time,
    emotions_as_heard,
    vocals_of_another_node,
    encoder_of_the_hosts_folder,
    surround,
    long_voices,
    odd_sounds,
]
