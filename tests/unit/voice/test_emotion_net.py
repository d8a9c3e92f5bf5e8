"""Our emotion2vec against funasr's numbers, and upstream's labels; live too, where FUNASR_PYTHON is given."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memo_avatar.files.disk import DiskError
from memo_avatar.files.foreign import CheckpointError
from memo_avatar.voice.emotion2vec import Emotion2vec, EmotionClassifier, alibi
from memo_avatar.voice.emotion_files import SAFE_TORCH, convert_emotion2vec, read_classifier, read_emotion2vec
from memo_avatar.voice.emotions import hear_emotions, segment_of_frames, segment_spans
from tests.helpers.reference.emotion_sound import LABEL_FRAMES, LABEL_SECONDS, changing_sound

ROOT = Path(__file__).resolve().parents[3]
CASES = ("layer_norm", "group_norm")
opens_pickles = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH,
    reason="this torch opens no .pt file safely; that it is told so is tested with every one",
)


def load_net(golden: Path, folder: Path, prefix: str = "d2v_model.") -> Emotion2vec:
    """The golden's weights through our own file reader, named as the published file names them."""
    weights = {
        prefix + key.removeprefix("model."): tensor
        for key, tensor in load_file(golden).items()
        if key.startswith("model.")
    }
    save_file({**weights, "proj.weight": torch.zeros(9, 24)}, folder / "emotion2vec.safetensors")
    config, state = read_emotion2vec(folder / "emotion2vec.safetensors")
    net = Emotion2vec(config, operations=nn)
    net.load_state_dict(state)
    return net.eval()


def normalise(samples: Tensor) -> Tensor:
    return nn.functional.layer_norm(samples, samples.shape)[None]


@torch.inference_mode()
def check_features(golden: Path, folder: Path) -> None:
    net = load_net(golden, folder)
    sound = changing_sound(LABEL_SECONDS)
    stored = {key: value for key, value in load_file(golden).items() if key.startswith("features.")}
    assert len(stored) == 3
    for key, expected in stored.items():
        found = net(normalise(sound[: int(key.removeprefix("features."))]))
        assert found.shape == expected.shape
        assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_features_are_funasrs(goldens: Path, tmp_path: Path, case: str) -> None:
    check_features(goldens / "emotion" / f"{case}.safetensors", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif("FUNASR_PYTHON" not in os.environ, reason="FUNASR_PYTHON names no Python with funasr")
@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_installed_funasr(tmp_path: Path, case: str) -> None:
    out = tmp_path / "live.safetensors"
    script = ROOT / "tests" / "helpers" / "reference" / "emotion_reference.py"
    command = [os.environ["FUNASR_PYTHON"], str(script), str(out), case]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    check_features(out, tmp_path)


@torch.inference_mode()
def test_labels_are_upstreams(goldens: Path, tmp_path: Path) -> None:
    golden = goldens / "emotion" / "layer_norm.safetensors"
    stored = load_file(golden)
    folder = tmp_path / "audio_emotion_classifier"
    folder.mkdir()
    weights = {
        key.removeprefix("classifier."): stored[key] for key in stored if key.startswith("classifier.")
    }
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    sizes, state = read_classifier(folder)
    classifier = EmotionClassifier(sizes, operations=nn)
    classifier.load_state_dict(state)
    net = load_net(golden, tmp_path)
    labels = hear_emotions(
        changing_sound(LABEL_SECONDS), lambda x: classifier(net(x).mean(dim=1)).argmax(dim=-1), LABEL_FRAMES
    )
    assert len(set(labels.tolist())) > 2
    assert torch.equal(labels, stored["labels"].long())


@pytest.mark.parametrize(
    "num_samples", [1_600, 15_999, 16_000, 16_001, 31_999, 32_000, 48_000, 203_200, 9_600_000]
)
def test_every_frame_hears_upstreams_segment(num_samples: int) -> None:
    """Upstream writes labels sample by sample and shrinks them by nearest neighbour."""
    spans, second = segment_spans(num_samples), 16_000
    per_sample = torch.full((num_samples,), -1.0)
    per_sample[:second] = 0
    for number, i in enumerate(range(second, num_samples - second, second)):
        per_sample[i : i + second] = number + 1
        assert spans[number + 1] == (i - second, min(i + 2 * second, num_samples))
    per_sample[-second:] = len(spans) - 1
    frames = -(-num_samples * 30 // 16_000 // 16) * 16
    expected = nn.functional.interpolate(per_sample[None, None], size=frames, mode="nearest")[0, 0].long()
    assert torch.equal(segment_of_frames(num_samples, frames), expected)


def test_batches_change_nothing(goldens: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def classify(segments: Tensor) -> Tensor:
        seen.append(segments.shape[0])
        assert segments.mean(dim=1).abs().max() < 1e-5
        return segments.abs().argmax(dim=1) % 9  # where it is loudest: no rounding moves that

    sound = changing_sound(20.0)
    whole = hear_emotions(sound, classify, 600)
    assert max(seen) == 8
    alone = [classify(normalise(sound[start:stop]))[0] for start, stop in segment_spans(sound.shape[0])]
    assert torch.equal(whole, torch.stack(alone)[segment_of_frames(sound.shape[0], 600)])


def test_alibi_of_heads_that_are_no_power_of_two() -> None:
    slopes = -alibi(3, 2)[:, 0, 1]
    assert slopes.tolist() == [0.0625, 0.00390625, 0.25]
    assert alibi(4, 5)[0].diagonal().count_nonzero() == 0


@opens_pickles
def test_convert_takes_tensors_only_and_drops_what_is_not_needed(goldens: Path, tmp_path: Path) -> None:
    weights = {
        key.removeprefix("model."): tensor
        for key, tensor in load_file(goldens / "emotion" / "layer_norm.safetensors").items()
        if key.startswith("model.")
    }
    torch.save({"model": {**weights, "proj.weight": torch.zeros(9, 24)}}, tmp_path / "model.pt")
    count = convert_emotion2vec(tmp_path / "model.pt", tmp_path / "e.safetensors")
    assert count == len(weights)
    assert read_emotion2vec(tmp_path / "e.safetensors")[0].heads == 3
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


@opens_pickles
def test_a_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"x": Evil()}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"expected a \.pt file with tensors alone but got"):
        convert_emotion2vec(tmp_path / "model.pt", tmp_path / "e.safetensors")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "e.safetensors").exists()


def test_old_torch_does_not_open_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(CheckpointError, match=r"expected torch 2\.6 or newer but got 2\.5\.1"):
        convert_emotion2vec(tmp_path / "model.pt", tmp_path / "e.safetensors")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"blocks.0.mlp.fc1.weight": torch.zeros(4, 2)}, other)
    with pytest.raises(CheckpointError, match="expected the weights of emotion2vec but got none of"):
        read_emotion2vec(other)
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file but got a pickle"):
        read_emotion2vec(tmp_path / "model.pt")
    other.rename(tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"expected layers\.fc1\.weight and so on but got blocks"):
        read_classifier(tmp_path)


@opens_pickles
def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="expected the weights of emotion2vec"):
        convert_emotion2vec(tmp_path / "model.pt", tmp_path / "e.safetensors")


@opens_pickles
def test_a_number_spread_over_gigabytes_is_refused_and_the_source_never_replaced(tmp_path: Path) -> None:
    source = tmp_path / "model.pt"
    torch.save({"blocks.0.mlp.fc1.weight": torch.zeros(1).expand(10**6, 10**6)}, source)
    with pytest.raises(CheckpointError, match=r"at most twice the file's \d+ bytes but got more"):
        convert_emotion2vec(source, tmp_path / "model.safetensors")
    with pytest.raises(DiskError, match="apart from the inputs"):
        convert_emotion2vec(source, source)
    with pytest.raises(CheckpointError, match="a folder or device instead of a file"):
        convert_emotion2vec(Path("/dev/zero"), tmp_path / "model.safetensors")
