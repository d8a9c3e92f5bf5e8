"""Draw and speak the files that the demo ships: two portraits of people never trained on, a sentence, and the
held-out speech of the evaluation.

    python -m demo.assets
"""

from pathlib import Path

import torch
from PIL import Image

from .faces import render, sample_people, still_pose
from .speech import HELD_OUT_VOICES, SAMPLE_RATE, held_out_corpus, speak, write_wav
from .training.autoencoder import HELD_OUT_SEED

FOLDER = Path(__file__).parent
PORTRAITS = {"portrait.png": 27, "portrait2.png": 12}  # file: which of the held-out people
SENTENCE = "Hello! I am a little cartoon, and today I learned to talk."
SIZE = 384
HELD_OUT_SECONDS = 44


def main() -> None:
    """Write portrait.png, portrait2.png, speech.wav and held_out.wav."""
    for name, number in PORTRAITS.items():
        frame = render(sample_people(1, HELD_OUT_SEED + 20_000 + number), still_pose(1), SIZE)[0]
        Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy()).save(FOLDER / name)
    speech = FOLDER / "work" / "speech"
    waveform = speak(SENTENCE, HELD_OUT_VOICES[0], speech, pitch=60, speed=165)
    write_wav(FOLDER / "speech.wav", 0.8 * waveform)
    held_out = torch.cat([utterance.waveform for utterance in held_out_corpus(speech)])
    write_wav(FOLDER / "held_out.wav", held_out[: HELD_OUT_SECONDS * SAMPLE_RATE])


if __name__ == "__main__":
    main()
