"""Where the crop lies, what it shows, and how it comes back into the picture."""

import json
from dataclasses import asdict

import pytest
import torch
from PIL import Image

from memo_avatar.inputs import Crop
from memo_avatar.portrait.face_crop import centre_crop, cut, parse_box, plan_crop
from memo_avatar.portrait.images import ImageError, to_pixels
from memo_avatar.portrait.prepare import FaceOptions, prepare_portrait
from memo_avatar.video.paste import ColourMatch, Paster, Pasters, feather_mask, picture_tensor

PICTURE = (2048, 1536)
CASES = {
    "middle": ((900, 600, 1100, 800), (512, 512)),
    "tall face": ((900, 600, 1050, 850), (512, 512)),
    "left border": ((10, 600, 210, 800), (512, 512)),
    "corner": ((1900, 1380, 2048, 1536), (512, 512)),
    "beyond": ((-50, -50, 150, 150), (512, 512)),
    "huge": ((300, 100, 1700, 1500), (512, 512)),
    "wide video": ((900, 600, 1100, 800), (640, 384)),
    "tall video": ((900, 600, 1100, 800), (384, 640)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_crop_is_even_holds_the_face_and_keeps_the_aspect(name: str) -> None:
    face, size = CASES[name]
    crop = plan_crop(face, PICTURE, size)
    assert not any(value % 2 for value in (*crop.box, crop.width, crop.height))
    left, top, right, bottom = crop.box
    assert left <= max(0, face[0]) and top <= max(0, face[1])
    assert right >= min(face[2], PICTURE[0]) and bottom >= min(face[3], PICTURE[1])
    assert crop.width / crop.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_margin_is_a_share_of_the_face() -> None:
    crop = plan_crop((900, 600, 1100, 800), PICTURE, (512, 512), 0.5)
    assert crop.box == (800, 500, 1200, 900)
    assert plan_crop((900, 600, 1100, 800), PICTURE, (512, 512), 0).box == (900, 600, 1100, 800)


def test_near_a_border_the_crop_moves_before_it_reaches_beyond() -> None:
    near = plan_crop((60, 600, 260, 800), PICTURE, (512, 512))  # 40 pixels short of its margin of 100
    assert (near.left, near.inside) == (0, near.box)
    corner = plan_crop((0, 0, 200, 200), PICTURE, (512, 512))
    assert corner.box == (-50, -50, 350, 350) and corner.inside == (0, 0, 350, 350)


def test_beyond_the_picture_its_border_is_repeated() -> None:
    image = Image.new("RGB", (100, 100), (10, 20, 30))
    image.paste((200, 100, 50), (0, 0, 1, 100))
    part = cut(image, Crop(-20, 10, 60, 60, 100, 100))
    assert part.size == (60, 60)
    assert {part.getpixel((x, 30)) for x in range(21)} == {(200, 100, 50)}
    assert {part.getpixel((x, 30)) for x in range(21, 60)} == {(10, 20, 30)}


@pytest.mark.parametrize(("picture", "size"), [((2048, 1536), (512, 512)), ((333, 501), (64, 96))])
def test_without_a_face_the_middle(picture: tuple[int, int], size: tuple[int, int]) -> None:
    crop = centre_crop(picture, size)
    assert crop.inside == crop.box
    assert min(picture[0] - crop.width, picture[1] - crop.height) <= 2
    assert crop.width % 2 == crop.height % 2 == crop.left % 2 == crop.top % 2 == 0


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "5,5,5,9", "9,0,1,1", "1.5,2,3,4", "1,2,3,4,5"])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(ImageError, match=r"left,top,right,bottom in pixels"):
        parse_box(text)


def test_a_written_box() -> None:
    assert parse_box(" 400, 300,700 ,640") == (400, 300, 700, 640)


def notes_of(box: tuple[float, float, float, float]) -> list[str]:
    portrait, notes = prepare_portrait(Image.new("RGB", (64, 64)), (32, 32), "face", FaceOptions(box=box))
    assert portrait.crop is not None
    return [note for note in notes if "reaches beyond" in note]


def test_a_box_that_reaches_beyond_the_picture_is_cut_and_told() -> None:
    assert notes_of((0, 0, 999, 999)) == [
        "Check where the face is: 0,0,999,999 reaches beyond the 64x64 picture, and 0,0,64,64 was taken."
    ]
    assert notes_of((-5.0, 8.0, 40.0, 40.0)) == [
        "Check where the face is: -5,8,40,40 reaches beyond the 64x64 picture, and 0,8,40,40 was taken."
    ]
    for within in [(0, 0, 64, 64), (8, 8, 40, 40), (8.0, 8.0, 64.4, 40.0), (-0.4, 8.0, 40.0, 40.0)]:
        assert notes_of(within) == [], "what a detector's fractions of a pixel reach beyond is nothing"


@pytest.mark.parametrize("box", [(-5, -5, 10, 10), (60, 0, 999, 999), (900, 900, 950, 950)])
def test_a_box_of_which_nothing_is_in_the_picture_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageError, match=r"Give left,top,right,bottom in pixels of the upright picture\.$"):
        notes_of(box)


# Paste back


def paster(**options: object) -> Paster:
    random = torch.Generator().manual_seed(0)
    picture = (torch.rand(3, 90, 120, generator=random) * 255).round() / 255
    return Paster(picture, Crop(40, 20, 48, 48, 120, 90), **options)


def test_outside_the_mask_a_frame_is_the_picture_bit_for_bit() -> None:
    back = paster()
    whole = back.paste(torch.rand(3, 64, 64))
    mask = torch.zeros(90, 120)
    mask[20:68, 40:88] = back.mask
    assert torch.equal(whole[:, mask == 0], back.picture[:, mask == 0])
    assert (mask == 0).sum() > 90 * 120 - 48 * 48
    assert (whole[:, mask == 1] != back.picture[:, mask == 1]).any()


def test_the_middle_is_the_generated_frame() -> None:
    back = paster(match_colour=False)
    frame = torch.rand(3, 48, 48)
    middle = back.mask == 1
    assert torch.allclose(back.paste(frame)[:, 20:68, 40:88][:, middle], frame[:, middle], atol=1e-6)


def test_what_is_generated_exactly_changes_nothing() -> None:
    back = paster()
    frame = back.picture[:, 20:68, 40:88]
    assert torch.allclose(back.paste(frame), back.picture, atol=1e-5)


def test_the_mask_is_smooth_and_keeps_the_pictures_own_border() -> None:
    inner = feather_mask(Crop(40, 20, 48, 48, 120, 90))
    assert inner[0].max() == inner[-1].max() == inner[:, 0].max() == inner[:, -1].max() == 0
    assert inner[24, 24] == 1
    assert inner.diff(dim=0).abs().max() < 0.3
    assert inner[3, 3] == 0 < inner[3, 24]
    corner = feather_mask(Crop(-8, -8, 48, 48, 120, 90))
    assert corner.shape == (40, 40)
    assert corner[0, 0] == 1 and corner[-1].max() == 0 and corner[:, -1].max() == 0


def test_colours_come_from_the_first_frame_and_stay() -> None:
    back = paster()
    part = back.picture[:, 20:68, 40:88]
    shift = torch.tensor([0.05, -0.04, 0.02])[:, None, None]
    dull = part * 0.8 + 0.1 + shift
    assert torch.allclose(back.paste(part * 0.8 + 0.1)[:, :20], back.picture[:, :20])
    first = back.colour
    back.paste(torch.rand(3, 48, 48))
    assert back.colour is first and first is not None
    again = paster(colour=ColourMatch(**json.loads(json.dumps(asdict(first)))))
    assert torch.equal(again.paste(dull * 0.5), back.paste(dull * 0.5))


def test_a_wild_first_frame_is_not_followed_all_the_way() -> None:
    match = ColourMatch.between(torch.zeros(3, 12, 12), torch.ones(3, 12, 12))
    assert match.field(12, 12).max() == pytest.approx(0.12)


def test_each_part_of_the_crop_gets_its_own_colour_and_a_mouth_is_none() -> None:
    original = torch.full((3, 96, 96), 0.5)
    generated = original.clone()
    generated[2, :48] += 0.1  # a sky too blue
    generated[:, 66:72, 40:56] -= 0.4  # an open mouth
    mended = generated + ColourMatch.between(generated, original).field(96, 96)
    assert (mended[2, 8:40] - 0.5).abs().max() < 0.02
    assert (mended[:, 66:72, 40:56] - 0.1).max() < 0.13


def test_clips_and_the_whole_give_the_same_frames() -> None:
    frames = torch.rand(5, 3, 64, 64)
    whole = list(paster().stream(frames))
    back = paster()
    parts = [*back.stream(frames[:2]), *back.stream(frames[2:])]
    assert len(whole) == 5 and all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert whole[0].shape == (1, 3, 90, 120)


def test_several_faces_are_pasted_each_into_its_place_with_its_own_colours() -> None:
    picture = torch.rand(3, 40, 100)
    crops = [Crop(left, 6, 24, 24, 100, 40) for left in (4, 70)]
    frames = torch.rand(2, 2, 3, 16, 16)  # (F, N, 3, h, w)
    alone = [Paster(picture, crop) for crop in crops]
    expected = [alone[1].paste(pair[1], alone[0].paste(pair[0])) for pair in frames]
    both = Pasters([Paster(picture, crop) for crop in crops])
    assert both.size == (100, 40) and both.colours == []
    assert all(torch.equal(both.paste(pair), whole) for pair, whole in zip(frames, expected, strict=True))
    later = Pasters([Paster(picture, crop) for crop in crops])
    later.take_colours(both.colours)
    assert torch.equal(later.paste(frames[1]), expected[1])


def test_another_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the picture that was cropped, 120x90, but got 64x64"):
        Paster(torch.zeros(3, 64, 64), Crop(40, 20, 48, 48, 120, 90))


def test_the_pictures_eight_bits_survive() -> None:
    image = Image.frombytes("RGB", (16, 16), bytes(range(256)) * 3)
    values = (picture_tensor(to_pixels(image)) * 255).round().to(torch.uint8)
    assert values.permute(1, 2, 0).reshape(-1).tolist() == list(bytes(range(256)) * 3)


def test_a_face_is_pasted_onto_the_frames_of_a_video() -> None:
    """Two faces in one picture: each changes its own square, the rest is the picture bit for bit."""
    picture = torch.rand(3, 64, 128)
    left, right = (Paster(picture, Crop(x, 8, 40, 40, 128, 64)) for x in (4, 80))
    first = left.paste(torch.rand(3, 40, 40))
    both = right.paste(torch.rand(3, 40, 40), first)
    assert torch.equal(both[:, :, :80], first[:, :, :80]) and not torch.equal(both, first)
    assert torch.equal(both[:, :, 44:80], picture[:, :, 44:80])
    assert torch.equal(right.paste(torch.rand(3, 40, 40))[:, :, :80], picture[:, :, :80]), "nothing is kept"
    with pytest.raises(ValueError, match="expected the picture that was cropped, 128x64, but got 64x64"):
        left.paste(torch.rand(3, 40, 40), torch.zeros(3, 64, 64))
