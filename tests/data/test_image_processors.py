import numpy
import pytest
import torch
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.augment import OPS, random_augment
from lavis_lite.data.image_processors import MEAN, STD, BlipImageEval, BlipImageTrain, random_crop
from lavis_lite.errors import ConfigError


def photo(width=90, height=60, seed=0):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3))
    small = Image.fromarray(pixels.astype(numpy.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(90, 60), (33, 120), (48, 48), (1, 7)])
def test_eval_equals_the_original_to_the_last_bit(size):
    from torchvision import transforms

    original = transforms.Compose(
        [
            transforms.Resize((48, 48), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    image = photo(120, 120).resize(size)
    ours = BlipImageEval(image_size=48)(image)
    assert ours.shape == (3, 48, 48)
    assert ours.is_contiguous()
    assert torch.equal(ours, original(image))


def test_eval_takes_any_mode_and_other_statistics():
    grey = BlipImageEval(image_size=8, mean=[0.5] * 3, std=[0.5] * 3)(photo().convert("L"))
    assert grey.shape == (3, 8, 8)
    assert -1 <= grey.min() < grey.max() <= 1


def test_train_is_a_function_of_the_generator():
    process, image = BlipImageTrain(image_size=32), photo()
    one = [process(image, numpy.random.default_rng(seed)) for seed in range(6)]
    again = [process(image, numpy.random.default_rng(seed)) for seed in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert len({float(a.sum()) for a in one}) == 6


def test_train_touches_no_global_generator():
    before, torch_before = numpy.random.get_state()[1].copy(), torch.get_rng_state()
    with_own = BlipImageTrain(image_size=16)(photo())
    assert with_own.shape == (3, 16, 16)
    assert (numpy.random.get_state()[1] == before).all()
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_with_everything_off_train_is_eval():
    train = BlipImageTrain(image_size=32, min_scale=1, hflip=False, augment=False)
    assert torch.equal(train(photo(64, 64)), BlipImageEval(image_size=32)(photo(64, 64)))


def test_mirroring_is_at_even_odds_and_can_be_switched_off():
    square = photo(32, 32)
    plain = BlipImageEval(image_size=32)(square)
    settings = {"image_size": 32, "min_scale": 1, "augment": False}
    flips = 0
    for seed in range(200):
        image = BlipImageTrain(**settings)(square, numpy.random.default_rng(seed))
        assert torch.equal(image, plain) or torch.equal(image, plain.flip(2))
        flips += torch.equal(image, plain.flip(2))
        never = BlipImageTrain(**settings, hflip=False)(square, numpy.random.default_rng(seed))
        assert torch.equal(never, plain)
    assert 70 < flips < 130


def test_crops_have_the_area_and_ratio_that_were_asked_for():
    rng = numpy.random.default_rng(0)
    shares = []
    for _ in range(500):
        left, top, right, bottom = random_crop(200, 160, (0.2, 0.6), rng)
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 160
        assert 0.73 < (right - left) / (bottom - top) < 1.36
        shares.append((right - left) * (bottom - top) / (200 * 160))
    assert 0.19 < min(shares) < 0.25
    assert 0.55 < max(shares) < 0.62


def test_a_crop_that_cannot_fit_is_the_largest_central_one():
    rng = numpy.random.default_rng(0)
    assert random_crop(300, 30, (1, 1), rng) == (130, 0, 170, 30)
    assert random_crop(30, 300, (1, 1), rng) == (0, 130, 30, 170)
    assert random_crop(1, 1, (0.5, 1), rng) == (0, 0, 1, 1)


@pytest.mark.parametrize("op", OPS)
def test_every_operation_keeps_size_and_mode(op):
    image = OPS[op](photo(), 0.5, numpy.random.default_rng(0))
    assert (image.size, image.mode) == ((90, 60), "RGB")


def test_at_blips_magnitude_brightness_and_sharpness_do_nothing():
    rng, image = numpy.random.default_rng(0), photo()
    for op in ("identity", "brightness", "sharpness"):
        assert OPS[op](image, 0.5, rng) is image
    for op in ("brightness", "sharpness"):
        assert not numpy.array_equal(OPS[op](image, 0.9, rng), image)


def test_moves_have_blips_strength_and_fill_with_grey():
    image = Image.new("RGB", (100, 100), (255, 0, 0))
    grey = [0, 0]
    for seed in range(20):
        rng = numpy.random.default_rng(seed)
        moved = numpy.asarray(OPS["translate_x"](image, 0.5, rng))
        assert (moved[:, 5:95] == [255, 0, 0]).all()
        grey[0] += (moved[:, :5] == 128).all()
        grey[1] += (moved[:, 95:] == 128).all()
    assert grey[0] + grey[1] == 20
    assert min(grey) > 3


def test_a_rotation_is_about_the_centre_by_fifteen_degrees():
    image = Image.new("RGB", (101, 101))
    image.putpixel((90, 50), (255, 255, 255))
    rotated = numpy.asarray(OPS["rotate"](image, 0.5, numpy.random.default_rng(0)))[..., 0]
    row, column = numpy.unravel_index(
        numpy.where(rotated == 128, 0, rotated).argmax(), rotated.shape
    )
    assert abs(column - (50 + 40 * numpy.cos(numpy.pi / 12))) <= 1
    assert abs(abs(row - 50) - 40 * numpy.sin(numpy.pi / 12)) <= 1


def test_two_operations_are_drawn_with_replacement_each_applied_at_even_odds():
    applied = []
    for seed in range(400):
        image = Image.new("RGB", (40, 40), (255, 0, 0))
        moved = random_augment(image, ["translate_x"], 2, 5, numpy.random.default_rng(seed))
        applied.append(not numpy.array_equal(moved, image))
    assert 0.6 < numpy.mean(applied) < 0.85  # 1 - 0.5 * 0.5, both there and back


def test_operations_can_be_chosen():
    only = BlipImageTrain(image_size=40, min_scale=1, hflip=False, ops=["translate_y"])
    black = Image.new("RGB", (40, 40))
    rows = [only(black, numpy.random.default_rng(seed))[0] for seed in range(20)]
    assert all((row == row[:, :1]).all() for row in rows)
    assert any((row != row[:1]).any() for row in rows)


def test_wrong_arguments_are_explained():
    with pytest.raises(ConfigError, match=r"no operation 'rotat'\. Did you mean 'rotate'"):
        BlipImageTrain(ops=["rotat"])
    with pytest.raises(ConfigError, match=r"min_scale=0\.9, max_scale=0\.5"):
        BlipImageTrain(min_scale=0.9, max_scale=0.5)


def test_the_registry_gives_the_image_size_of_the_model():
    built = registry.build("processor", {"name": "blip_image_eval"}, image_size=24)
    assert built(photo()).shape == (3, 24, 24)
    own = registry.build("processor", {"name": "blip_image_eval", "image_size": 16}, image_size=24)
    assert own(photo()).shape == (3, 16, 16)
