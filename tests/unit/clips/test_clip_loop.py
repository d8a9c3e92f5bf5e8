"""The clip loop: lengths, branches, noise, resume, hooks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from memo_avatar.clips.conditions import VAE_SCALE, VideoConditions
from memo_avatar.clips.denoiser import ClipDenoiser, guided
from memo_avatar.clips.loop import Denoise, generate_clips
from memo_avatar.clips.values import ClipState, SamplingSettings
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.nets import MemoModels
from tests.helpers.tiny_memo import PoolingVAE, tiny_memo, tiny_portrait, tiny_voice

SETTINGS = SamplingSettings(steps=2, guidance_scale=2.0, frames_per_clip=4, past_frames=4)


@pytest.fixture(scope="module")
def models() -> MemoModels:
    return tiny_memo()


def video(
    models: MemoModels, frames: int, settings: SamplingSettings = SETTINGS, **options: object
) -> Tensor:
    clips = generate_clips(models, PoolingVAE(), tiny_portrait(), tiny_voice(frames), settings, **options)
    return torch.cat([clip.frames for clip in clips])


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 9])
def test_video_is_exactly_as_long_as_the_voice(models: MemoModels, frames: int) -> None:
    frames_out = video(models, frames)
    assert frames_out.shape == (frames, 3, 32, 32)
    assert frames_out.min() >= 0 and frames_out.max() <= 1


def test_same_seed_same_video(models: MemoModels) -> None:
    assert torch.equal(video(models, 6, seed=1), video(models, 6, seed=1))
    assert not torch.equal(video(models, 6, seed=1), video(models, 6, seed=2))


def test_clips_continue_each_other(models: MemoModels) -> None:
    assert torch.equal(video(models, 4), video(models, 8)[:4])


def test_resume_equals_an_uninterrupted_run(models: MemoModels) -> None:
    arguments = (models, PoolingVAE(), tiny_portrait(), tiny_voice(10), SETTINGS)
    whole = list(generate_clips(*arguments))
    stored = next(generate_clips(*arguments)).state.tensors()
    rest = list(generate_clips(*arguments, state=ClipState.from_tensors(stored)))
    assert [(clip.index, clip.start) for clip in rest] == [(1, 4), (2, 8)]
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[1:], rest, strict=True))


def test_the_memory_before_a_clip_is_gone_while_it_is_sampled(models: MemoModels) -> None:
    """Gigabytes at the trained size, whoever keeps clips or states; a resumed video's, too."""
    before: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []
    arguments = (models, PoolingVAE(), tiny_portrait(), tiny_voice(12), SETTINGS)

    def look(_clip: int, _step: int, _latents: Tensor) -> None:
        alive.extend(tensor() is not None for tensor in before)

    kept = [next(generate_clips(*arguments))]
    before = [weakref.ref(tensor) for tensor in kept[0].state.memory.tensors().values()]
    for clip in generate_clips(*arguments, state=kept[0].state, on_step=look):
        before = [weakref.ref(tensor) for tensor in clip.state.memory.tensors().values()]
        kept.append(clip)
    assert len(kept) == 3 and alive and not any(alive)


def test_one_generator_continues_across_clips(models: MemoModels) -> None:
    noises: list[Tensor] = []

    def keep(_clip: int, step: int, latents: Tensor) -> None:
        if step == 0:
            noises.append(latents)

    video(models, 8, seed=5, on_step=keep)
    generator = torch.Generator().manual_seed(5)
    assert all(torch.equal(noise, torch.randn(noise.shape, generator=generator)) for noise in noises)


def test_low_guidance_runs_cond_alone_at_half_the_rows(models: MemoModels) -> None:
    batches: list[int] = []
    hook = models.diffusion_net.register_forward_hook(lambda _net, _inputs, out: batches.append(out.shape[0]))
    settings = SamplingSettings(steps=2, guidance_scale=1.0, frames_per_clip=4, past_frames=4)
    frames = video(models, 4, settings)
    hook.remove()
    assert batches == [1, 1] and frames.shape[0] == 4


def test_guidance_mixes_branches() -> None:
    velocities = {"uncond": torch.tensor(2.0), "cond": torch.tensor(5.0)}
    assert guided(velocities, 3.0).item() == 11.0
    assert guided({"cond": torch.tensor(5.0)}, 3.0).item() == 5.0


def test_wrapper_sees_every_clip_and_may_replace_the_denoiser(models: MemoModels) -> None:
    seen: list[tuple[int, int]] = []

    @contextmanager
    def freeze(denoiser: ClipDenoiser, sigmas: Tensor, clip: int) -> Iterator[Denoise]:
        seen.append((clip, len(sigmas)))
        yield lambda latents, _timestep: {branch: torch.zeros_like(latents) for branch in denoiser.branches}

    frames = video(models, 8, wrap_denoiser=freeze)
    assert seen == [(0, 3), (1, 3)]
    assert not torch.equal(frames, video(models, 8))


def test_denoiser_parts_give_the_whole(models: MemoModels) -> None:
    @contextmanager
    def by_parts(denoiser: ClipDenoiser, _sigmas: Tensor, _clip: int) -> Iterator[Denoise]:
        yield lambda x, t: denoiser.head(denoiser.body(denoiser.stem(x), denoiser.temb(t)))

    assert torch.equal(video(models, 4, wrap_denoiser=by_parts), video(models, 4))


def test_shared_indicator_is_that_of_every_branch(models: MemoModels) -> None:
    @contextmanager
    def compare(denoiser: ClipDenoiser, _sigmas: Tensor, _clip: int) -> Iterator[Denoise]:
        def denoise(x: Tensor, t: Tensor) -> dict[str, Tensor]:
            joint = denoiser.net.modulated_input(denoiser.stem(x), denoiser.temb(t))
            shared = denoiser.modulated_input(x, t)
            torch.testing.assert_close(joint[: shared.shape[0]], shared, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(joint[shared.shape[0] :], shared, rtol=1e-4, atol=1e-5)
            return denoiser(x, t)

        yield denoise

    assert video(models, 4, wrap_denoiser=compare).isfinite().all()


def test_reference_image_goes_through_its_net_once_per_face(models: MemoModels) -> None:
    rows: list[int] = []
    hook = models.reference_net.register_forward_hook(
        lambda _net, inputs, _out: rows.append(inputs[0].shape[0])
    )
    video(models, 12)
    hook.remove()
    # One run per face for the image; then past frames only: 4 frames x 2 faces for each later clip.
    assert rows == [1, 1, 8, 8]


def test_without_a_face_each_past_frame_runs_once(models: MemoModels) -> None:
    rows: list[int] = []
    hook = models.reference_net.register_forward_hook(
        lambda _net, inputs, _out: rows.append(inputs[0].shape[0])
    )
    list(generate_clips(models, PoolingVAE(), tiny_portrait(face=False), tiny_voice(8), SETTINGS))
    hook.remove()
    assert rows == [1, 4]


def test_without_a_face_the_branches_share_one_memory(models: MemoModels) -> None:
    def rows(face: bool) -> int:
        inputs = (models, PoolingVAE(), tiny_portrait(face=face), tiny_voice(4), SETTINGS)
        return next(generate_clips(*inputs)).state.memory.memories[0].kv.shape[0]

    assert (rows(face=True), rows(face=False)) == (2, 1)


def test_past_frames_of_the_trained_size_go_through_the_reference_net_in_parts(models: MemoModels) -> None:
    rows: list[int] = []
    hook = models.reference_net.register_forward_hook(
        lambda _net, inputs, _out: rows.append(inputs[0].shape[0])
    )
    portrait = tiny_portrait(512, 512, face=False)
    settings = SamplingSettings(steps=1, guidance_scale=1.0, frames_per_clip=10, past_frames=10)
    conditions = VideoConditions(models, PoolingVAE(), portrait, settings)
    with torch.inference_mode():
        conditions.reference(conditions.plan(torch.zeros(10, 4, 64, 64)), torch.zeros(10, 4, 64, 64))
    hook.remove()
    assert rows == [1, 4, 4, 2]


def test_voice_may_come_padded_to_whole_clips(models: MemoModels) -> None:
    voice = tiny_voice(8)
    padded = Voice(voice.audio_embeddings, voice.emotions, 6)
    clips = generate_clips(models, PoolingVAE(), tiny_portrait(), padded, SETTINGS)
    assert [clip.frames.shape[0] for clip in clips] == [4, 2]


@pytest.mark.parametrize("name", ["steps", "frames_per_clip", "past_frames"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1 but got 0"):
        SamplingSettings(**{name: 0})


def test_odd_portrait_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"divisible by 8 but got \(1, 3, 30, 32\)"):
        Portrait(torch.zeros(1, 3, 30, 32), torch.zeros(1, 512))


def test_empty_voice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"for its frames \(0\) but got 0 features"):
        Voice(torch.zeros(0, 5, 2, 3), torch.zeros(0, dtype=torch.long), 0)


def test_past_latents_are_those_that_were_sampled_and_nothing_is_encoded_again(models: MemoModels) -> None:
    class CountingVAE(PoolingVAE):
        encoded = 0

        def encode(self, pixels: Tensor) -> Tensor:
            self.encoded += len(pixels)
            return super().encode(pixels)

    vae, settings = CountingVAE(), replace(SETTINGS, past="latents")
    clips = list(generate_clips(models, vae, tiny_portrait(), tiny_voice(8), settings))
    assert vae.encoded == 1  # the portrait
    kept = clips[0].state.past_latents
    assert kept is not None and kept.shape == (4, 4, 4, 4) and kept.dtype == torch.float32
    frames = vae.decode(kept / VAE_SCALE).div(2).add(0.5).clamp(0, 1)
    assert torch.equal(frames, clips[0].frames)


def test_past_latents_leave_the_first_clip_as_it_is_and_begin_the_next_one_otherwise(
    models: MemoModels,
) -> None:
    plain, other = (video(models, 8, settings=s) for s in (SETTINGS, replace(SETTINGS, past="latents")))
    assert torch.equal(plain[:4], other[:4]) and not torch.equal(plain[4:], other[4:])


def test_a_video_from_past_latents_goes_on_as_if_it_had_not_been_stopped(models: MemoModels) -> None:
    settings = replace(SETTINGS, past="latents")
    arguments = (models, PoolingVAE(), tiny_portrait(), tiny_voice(8), settings)
    whole = list(generate_clips(*arguments))
    stored = next(generate_clips(*arguments)).state.tensors()
    (rest,) = generate_clips(*arguments, state=ClipState.from_tensors(stored))
    assert torch.equal(rest.frames, whole[1].frames)


def test_a_state_without_latents_cannot_go_on_from_them(models: MemoModels) -> None:
    inputs = (models, PoolingVAE(), tiny_portrait(), tiny_voice(8))
    state = next(generate_clips(*inputs, SETTINGS)).state
    with pytest.raises(ValueError, match="its state has frames alone"):
        next(generate_clips(*inputs, replace(SETTINGS, past="latents"), state=state))


def test_past_latents_leave_nothing_for_the_drift_guard_to_hold() -> None:
    with pytest.raises(ValueError, match="expected past frames for guard_drift"):
        SamplingSettings(past="latents", guard_drift=True)
