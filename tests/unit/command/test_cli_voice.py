"""The command's voice options on a tiny model: vocals, emotions over time and as heard."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from memo_avatar.files.config_json import WEIGHTS_NAME
from memo_avatar.files.foreign import CheckpointError
from memo_avatar.files.published_models import CLASSIFIER, CONVERTED, SEPARATOR
from memo_avatar.inputs import Voice
from memo_avatar.voice import listen
from memo_avatar.voice.emotion_files import read_emotion_net
from memo_avatar.voice.emotions import EMOTIONS, EmotionError
from memo_avatar.voice.sound import MediaError
from memo_avatar.voice.vocals import VocalNet
from standalone.arguments import parse_video
from standalone.models import load_wav2vec2
from standalone.voice import encode_voice, read_voice
from tests.helpers.media import tone, write_sound, write_tiny_wav2vec2
from tests.helpers.reference.vocal_reference import BINS, FRAMES, net

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


class Case:
    """A recording of two seconds and what belongs to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.audio = write_sound(folder / "a.wav", tone(2.0, 44_100, 2), 44_100)
        self.wav2vec2 = write_tiny_wav2vec2(folder / "wav2vec2")
        self.waveform = torch.from_numpy(tone(2.0)[0])

    def encode(self, *extra: str) -> Voice:
        fixed = ["--image", "p.png", "--audio", str(self.audio), "--output", "v.mp4"]
        options = parse_video([*fixed, "--checkpoint", str(self.folder), *extra])
        sources = read_voice(options, self.waveform)
        return encode_voice(
            sources, load_wav2vec2(self.wav2vec2), torch.device("cpu"), input_dim=5 * 2 * 16, name="wav2vec2"
        )

    def add_emotion_models(self, golden: Path) -> None:
        """A random emotion2vec and classifier where the table has them."""
        stored = load_file(golden)
        for part, path in (("model.", self.folder / CONVERTED), ("classifier.", self.classifier)):
            path.parent.mkdir(parents=True)
            save_file({k.removeprefix(part): stored[k] for k in stored if k.startswith(part)}, path)

    @property
    def classifier(self) -> Path:
        return self.folder / CLASSIFIER / WEIGHTS_NAME


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_fixed_emotion(case: Case) -> None:
    voice = case.encode("--emotion", "happy")
    assert voice.num_frames == 60
    assert voice.emotions.tolist() == [HAPPY] * 64


def test_emotions_over_time(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    voice = case.encode("--emotion", "0 happy, 1.5 sad")
    assert voice.emotions.tolist() == [HAPPY] * 45 + [SAD] * 19
    assert "follows emotions weakly" in capsys.readouterr().err


def test_emotions_after_the_end_are_told(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.encode("--emotion", "0 happy, 99 sad, 1:50 angry")
    said = capsys.readouterr().err
    assert "Warning: Write an earlier second than 99, 110: the sound ends at 2 s, and what begins" in said
    case.encode("--emotion", "99 happy")
    assert "earlier second" not in capsys.readouterr().err, "one that holds from the beginning"


def test_emotions_as_heard(case: Case, goldens: Path) -> None:
    case.add_emotion_models(goldens / "emotion" / "layer_norm.safetensors")
    heard = case.encode("--emotion", "auto").emotions
    assert heard.shape == (64,)
    assert int(heard.min()) >= 0 and int(heard.max()) < len(EMOTIONS)


def test_auto_without_its_models_is_told_before_any_work(case: Case, goldens: Path) -> None:
    with pytest.raises(
        EmotionError, match=r"expected emotion2vec for emotion auto but got no .*download emotion"
    ):
        case.encode("--emotion", "auto")
    (case.folder / "emotion2vec").mkdir()
    (case.folder / "emotion2vec" / "model.pt").touch()
    with pytest.raises(EmotionError, match=r"Run: python teacache_memo\.py convert-emotion .*model\.pt"):
        case.encode("--emotion", "auto")
    (case.folder / "emotion2vec" / "model.pt").unlink()
    (case.folder / "emotion2vec").rmdir()
    case.add_emotion_models(goldens / "emotion" / "layer_norm.safetensors")
    case.classifier.unlink()
    with pytest.raises(EmotionError, match="expected MEMO's emotion classifier for emotion auto but got no"):
        case.encode("--emotion", "auto")


def test_an_emotion2vec_of_another_size(case: Case, goldens: Path) -> None:
    case.add_emotion_models(goldens / "emotion" / "layer_norm.safetensors")
    shapes = {"fc1.weight": (16, 1024), "fc1.bias": (16,), "fc2.weight": (9, 16), "fc2.bias": (9,)}
    save_file({f"layers.{name}": torch.zeros(shape) for name, shape in shapes.items()}, case.classifier)
    with pytest.raises(CheckpointError, match="expected an emotion2vec of width 1024 but got 24"):
        read_emotion_net(case.folder)


def test_vocals_are_heard_instead(case: Case) -> None:
    noise = torch.randn(1, 88_200, generator=torch.Generator().manual_seed(0)).numpy() * 0.1
    vocals = write_sound(case.folder / "vocals.wav", noise, 44_100)
    plain, other = case.encode(), case.encode("--vocals", str(vocals))
    assert other.num_frames == plain.num_frames
    assert not torch.allclose(other.audio_embeddings, plain.audio_embeddings)
    same = case.encode("--vocals", str(case.audio))
    torch.testing.assert_close(
        same.audio_embeddings.mean(), plain.audio_embeddings.mean(), atol=0.1, rtol=0.1
    )


def test_silent_vocals_are_told(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = write_sound(case.folder / "quiet.wav", tone(2.0) * 0)
    case.encode("--vocals", str(quiet))
    assert (
        "Warning: Check the vocals: all of it is silence, and the mouth will hardly move."
        in capsys.readouterr().err
    )


def test_vocals_that_do_not_fit(case: Case) -> None:
    short = write_sound(case.folder / "short.wav", tone(1.0))
    with pytest.raises(
        MediaError, match=r"expected vocals of 2\.00 s, as long as the voice, but got 1\.00 s"
    ):
        case.encode("--vocals", str(short))
    with pytest.raises(MediaError, match="expected vocals or their separation but got both"):
        case.encode("--vocals", str(short), "--separate-vocals")


def test_separation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def open_small(model: Path) -> VocalNet:
        opened.append(model)
        return VocalNet(net, 64, BINS)

    monkeypatch.setattr(listen, "open_net", open_small)
    voice = case.encode("--separate-vocals")
    assert set(opened) == {case.folder / SEPARATOR} and FRAMES < 64
    assert voice.num_frames == 60 and torch.isfinite(voice.audio_embeddings).all()


def test_separation_without_its_file(case: Case) -> None:
    with pytest.raises(
        MediaError, match=r"expected the vocal separator but got no such file .*Kim_Vocal_2\.onnx"
    ):
        case.encode("--separate-vocals")
