"""What lies beside a checkpoint and what it recommends, the same for the command and the nodes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from memo_avatar.checkpoint import companions
from memo_avatar.checkpoint.companions import (
    Settings,
    face_folders,
    find_calibration,
    home,
    read_settings,
    read_vae,
    read_wav2vec2,
)
from memo_avatar.files.foreign import CheckpointError
from tests.helpers.weights import copied_weights

DEMO = Path(__file__).parents[3] / "demo" / "checkpoint"


def test_a_folders_companions_lie_in_it_and_a_single_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "memo.safetensors").write_text("")
    (tmp_path / "calibration.json").write_text("{}")
    assert home(tmp_path) == home(tmp_path / "memo.safetensors") == tmp_path
    assert find_calibration(tmp_path / "memo.safetensors") == tmp_path / "calibration.json"
    assert find_calibration(tmp_path / "memo" / "x.safetensors") is None


def test_a_checkpoint_that_recommends_nothing_is_used_as_memo_was_published(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings(guidance_scale=3.5, size=512, face_embeddings=True)


def test_the_demo_recommends_its_size_its_guidance_and_no_faces() -> None:
    expected = Settings(guidance_scale=1.5, size=96, face_embeddings=False, photographs=False)
    assert read_settings(DEMO) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"size": "big"}', '{"size": 40000}', '{"size": 100}', '{"size": 0}', '{"size": null}',
        '{"size": true}', '{"guidance_scale": 1e999}', '{"guidance_scale": NaN}', '{"guidance_scale": -1}',
        '{"guidance_scale": [3.5]}', '{"face_embeddings": "no"}', '{"size": 96', "null", "[]",
        '{"size": 96.5}', '{"size": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_recommendations_that_make_no_sense_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"^expected .* but got.*demo\.json.*\. Repair") as caught:
        read_settings(tmp_path)
    assert len(str(caught.value)) < 250 + len(str(tmp_path))


def test_face_models_are_looked_for_with_the_checkpoint_and_under_misc(tmp_path: Path) -> None:
    found = [path.relative_to(tmp_path).as_posix() for path in face_folders([tmp_path])]
    assert found == ["face_analysis", "misc/face_analysis"]


def copy_of(part: str, target: Path, **changes: Any) -> Path:
    shutil.copytree(DEMO / part, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("vae", "block_out_channels", [10**9] * 4),
        ("vae", "block_out_channels", [16] * 9),
        ("vae", "block_out_channels", "16"),
        ("vae", "layers_per_block", 10**6),
        ("vae", "layers_per_block", 2),
        ("vae", "norm_num_groups", 0),
        ("vae", "norm_num_groups", 7),
        ("vae", "in_channels", 4),
        ("vae", "latent_channels", 16),
        ("vae", "scaling_factor", 0.13025),
        ("vae", "force_upcast", "yes"),
        ("wav2vec2", "num_hidden_layers", 10**6),
        ("wav2vec2", "hidden_size", 10**9),
        ("wav2vec2", "hidden_size", None),
        ("wav2vec2", "conv_dim", [32]),
        ("wav2vec2", "conv_stride", [0] * 7),
        ("wav2vec2", "num_attention_heads", 5),
        ("wav2vec2", "num_conv_pos_embedding_groups", -4),
        ("wav2vec2", "layer_norm_eps", -1.0),
        ("wav2vec2", "feat_extract_norm", {"deep": []}),
        ("wav2vec2", "model_type", "\x1b[2J" + "x" * 5000),
    ],
)
def test_configs_out_of_range_or_of_other_weights_are_refused_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, name: str, value: object
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(companions, "read_tensors", fail)
    folder = copy_of(part, tmp_path / part, **{name: value})
    with pytest.raises(CheckpointError, match=r"^expected .* but got") as caught:
        (read_vae if part == "vae" else read_wav2vec2)(folder)
    assert len(str(caught.value)) < 700 and str(caught.value).isprintable()


def test_wav2vec2_with_heads_for_training_is_the_same_encoder(tmp_path: Path) -> None:
    folder = copy_of("wav2vec2", tmp_path / "wav2vec2")
    state = copied_weights(folder / "model.safetensors")
    published = {f"wav2vec2.{key}": tensor for key, tensor in state.items()}
    save_file(published | {"lm_head.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    ours, theirs = read_wav2vec2(DEMO / "wav2vec2").state, read_wav2vec2(folder).state
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
