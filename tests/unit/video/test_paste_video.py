"""A large picture and a stereo MP3 through the bundled model: the whole picture, with a face that moves."""

from pathlib import Path

import pytest

from demo.evaluate import CHECKPOINT
from standalone.command import main
from tests.helpers.media import read_sound
from tests.helpers.scene import FACE_BOX, HEIGHT, MARGIN, WIDTH, read_pasted, write_mp3, write_photo

pytestmark = pytest.mark.skipif(not CHECKPOINT.exists(), reason="demo/checkpoint is not there")

SECONDS = 0.52  # one clip
CODEC_LOSS = 3.0  # of 255


@pytest.mark.slow
def test_a_photo_and_an_mp3_become_a_whole_picture_with_a_moving_face(tmp_path: Path) -> None:
    scene = write_photo(tmp_path / "photo.jpg")
    voice = write_mp3(tmp_path / "voice.mp3", CHECKPOINT.parent / "speech.wav")
    box = ",".join(map(str, FACE_BOX))
    arguments = ["--image", tmp_path / "photo.jpg", "--audio", voice, "--output", tmp_path / "v.mp4"]
    arguments += ["--paste-back", "--face-crop", MARGIN, "--face-box", box, "--fps", "25", "--steps", "4"]
    assert main([str(part) for part in [*arguments, "--max-seconds", SECONDS]]) == 0
    found = read_pasted(tmp_path / "v.mp4", scene)
    assert (found.num_frames, found.size) == (13, (WIDTH, HEIGHT))
    assert found.outside < CODEC_LOSS and found.edge < 2 * CODEC_LOSS, found
    assert found.motion > 8, found
    sound, rate = read_sound(tmp_path / "v.mp4")
    assert rate == 44_100 and sound.shape[0] == 2
    assert sound.shape[1] / rate == pytest.approx(SECONDS, abs=1 / 25)
