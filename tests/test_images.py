"""Data sets of images, their batches, and the networks."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from image_files import VALIDATION, class_folders, ilsvrc, jpeg, photographs

from lopt_tf.images import models, pipeline, sources, views


@pytest.fixture
def numbered():
    """Images that tell their index; 23 of them."""
    images = np.zeros((23, 8, 8, 1), "uint8")
    images[:] = np.arange(23)[:, None, None, None]
    return sources.Arrays(images, np.arange(23) % 5, 5)


def _indices(images):
    """The indices of numbered images [n, 8, 8, 3] in -1..1."""
    return np.rint((np.array(images)[:, 0, 0, 0] + 1) * 127.5).astype(int)


def _take(dataset, count):
    return [[np.array(x) for x in batch] for batch in dataset.take(count)]


def test_an_epoch_has_each_image_once_in_an_order_of_its_own(numbered):
    def orders(seed):
        batches = pipeline.Batches(numbered, 4, 8, seed)
        taken = _take(batches.training(0), 10)
        for images, labels in taken:
            np.testing.assert_array_equal(
                labels.argmax(1), _indices(images) % 5
            )
        found = np.concatenate([_indices(images) for images, _ in taken])
        return found.reshape(2, 20)

    first, second = orders(3)
    assert len(set(first)) == len(set(second)) == 20
    assert list(first) != list(second)
    assert list(first) != list(orders(4)[0])


@pytest.mark.parametrize("augmentation", views.AUGMENTATIONS)
def test_batches_are_functions_of_seed_and_step(augmentation):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(11, 8, 8, 3)).astype("uint8")
    source = sources.Arrays(images, np.arange(11), 11)
    batches = pipeline.Batches(source, 4, 8, 7, augmentation)
    expected = _take(batches.training(0), 6)
    # In the middle of the second epoch.
    for ours, whole in zip(_take(batches.training(3), 3), expected[3:]):
        for x, y in zip(ours, whole):
            np.testing.assert_array_equal(x, y)
    # Both processes of a cluster have their rows, with the same views.
    shares = [
        _take(
            batches._own(
                *batches._training_places(0),
                tf.distribute.InputContext(2, worker, 4),
            ),
            12,
        )
        for worker in range(2)
    ]
    for step, whole in enumerate(expected):
        rows = [b for own in shares for b in own[2 * step : 2 * step + 2]]
        for x, y in zip(zip(*rows), whole):
            np.testing.assert_array_equal(np.concatenate(x), y)
    again = pipeline.Batches(source, 4, 8, 8, augmentation)
    assert np.any(_take(again.training(0), 1)[0][0] != expected[0][0])
    if augmentation != "none":
        # The same images look otherwise in the next epoch.
        seen = {}
        for images, labels in expected:
            for image, label in zip(images, labels.argmax(1)):
                seen.setdefault(label, []).append(image)
        pairs = [own for own in seen.values() if len(own) > 1]
        assert any(np.any(a != b) for a, b, *_ in pairs)


def test_tests_see_every_image_once(numbered):
    batches = pipeline.Batches(numbered, 10, 8)
    taken = _take(batches.test(), 2 * batches.test_steps())
    for pass_ in (taken[:3], taken[3:]):
        images, labels, weights = map(np.concatenate, zip(*pass_))
        assert list(_indices(images[weights > 0])) == list(range(23))
        assert len(weights) == 30 and labels.shape == (30, 5)


def test_tests_fill_whole_executions(numbered):
    """Keras runs several batches at a time, and never fewer."""
    batches = pipeline.Batches(numbered, 10, 8)
    assert [batches.test_steps(n) for n in (1, 2, 3, 5)] == [3, 4, 3, 5]
    taken = _take(batches.test(None, 5), 10)
    for pass_ in (taken[:5], taken[5:]):
        images, _, weights = map(np.concatenate, zip(*pass_))
        assert list(_indices(images[weights > 0])) == list(range(23))


def test_replicas_share_batches(numbered):
    batches = pipeline.Batches(numbered, 4, 8)
    expected = _take(batches.training(2), 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    shared = iter(batches.training(2, strategy))
    for images, labels in expected:
        found = next(shared)
        for ours, whole in zip(found, (images, labels)):
            parts = strategy.experimental_local_results(ours)
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_views():
    picture = tf.constant(jpeg(0, 60, 90))
    whole = tf.io.decode_jpeg(picture, channels=3)
    seen = views.test_view(picture, 32, "inception")
    side = round(0.875 * 60)
    top, left = (60 - side) // 2, (90 - side) // 2
    middle = whole[top : top + side, left : left + side]
    expected = tf.image.resize(middle, (32, 32)) / 127.5 - 1
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    parts = [
        views.random_view(picture, 32, (number, 1), "inception").numpy()
        for number in range(6)
    ]
    for one, other in zip(parts, parts[1:]):
        assert one.shape == (32, 32, 3) and one.min() >= -1 and one.max() <= 1
        assert np.abs(one - other).max() > 0.05
    # The same part, whether the file is JPEG or not.
    same = tf.io.encode_png(whole)
    np.testing.assert_allclose(
        views.random_view(same, 32, (0, 1), "inception"), parts[0], atol=0.1
    )
    small = np.arange(64, dtype="uint8").reshape(8, 8, 1)
    np.testing.assert_allclose(
        views.random_view(tf.constant(small), 8, (0, 1), "none"),
        np.repeat(small, 3, 2) / 127.5 - 1,
        rtol=1e-6,
    )


def test_colours_change_as_published():
    """Brightness by 32 of 255, saturation by a half, hue by a fifth."""
    colour = (140, 110, 100)
    picture = tf.constant(np.full((20, 20, 3), colour, "uint8"))
    whole = colorsys.rgb_to_hsv(*(np.array(colour) / 255))
    brightness, saturation, hue = [], [], []
    for number in range(60):
        seen = views.random_view(picture, 8, (number, 2), "inception")
        assert np.ptp(seen, axis=(0, 1)).max() < 1e-5
        h, s, v = colorsys.rgb_to_hsv(*(seen[0, 0].numpy() / 2 + 0.5))
        brightness.append(v - whole[2])
        saturation.append(s * v / (whole[1] * whole[2]))
        hue.append((h - whole[0] + 0.5) % 1 - 0.5)
    for found, low, high in (
        (brightness, -32 / 255, 32 / 255),
        (saturation, 0.5, 1.5),
        (hue, -0.2, 0.2),
    ):
        assert low - 1e-4 < min(found) and max(found) < high + 1e-4
        # All of the range is used.
        assert min(found) < low * 0.7 + high * 0.3
        assert max(found) > low * 0.3 + high * 0.7


# Data sets.


def test_digits_and_synthetic_images():
    train, test = sources.open_splits("digits")
    assert train.size == 1347 and test.size == 450 and train.image_size == 8
    image, label = train.load(tf.constant(0))
    assert image.shape == (8, 8, 1) and 0 <= label < 10
    train, _ = sources.open_splits("synthetic", image_size=16)
    assert train.num_classes == 1000 and train.image_size == 16
    # Noise for any batch, to measure speed.
    ((images, _),) = _take(pipeline.Batches(train, 256, 16).training(0), 1)
    assert images.shape == (256, 16, 16, 3)


def test_folders_of_images(tmp_path, monkeypatch):
    class_folders(tmp_path / "pictures")
    # What other programs hide there is no class.
    (tmp_path / "pictures" / "train" / ".checkpoints").mkdir()
    monkeypatch.chdir(tmp_path)
    train, test = sources.open_splits("./pictures")
    assert train.size == test.size == 12 and train.num_classes == 3
    batches = pipeline.Batches(test, 6, 16)
    labels = np.concatenate(
        [labels.argmax(1) for _, labels, _ in _take(batches.test(), 2)]
    )
    assert list(labels) == [0] * 4 + [1] * 4 + [2] * 4
    images, _ = _take(pipeline.Batches(train, 6, 16).training(0), 1)[0]
    assert images.shape == (6, 16, 16, 3)


def test_npz_files(tmp_path):
    path = tmp_path / "some.npz"
    images = np.zeros((6, 8, 8), "uint8")
    labels = np.arange(6)[:, None]
    arrays = {"x_train": images, "y_train": labels}
    arrays |= {"x_test": images[:2], "y_test": labels[:2]}
    np.savez(path, **arrays)
    train, test = sources.open_splits(str(path))
    assert train.num_classes == 6 and test.size == 2
    # Gray images are mostly writing, which must not be mirrored.
    assert train.augmentation == "none"
    arrays["x_train"] = np.zeros((6, 8, 8, 3), "uint8")
    arrays["x_test"] = arrays["x_train"][:2]
    np.savez(path, **arrays)
    assert sources.open_splits(str(path))[0].augmentation == "shift"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """ImageNet 2012 as its builder prepares it, from two small tar files."""
    folder = tmp_path_factory.mktemp("imagenet")
    images = photographs()
    ilsvrc(folder, images)
    splits = sources.open_splits(
        "imagenet2012", str(folder / "tfds"), str(folder)
    )
    return folder, images, splits


def test_imagenet(imagenet):
    folder, images, (train, test) = imagenet
    assert train.size == len(images) - VALIDATION and test.size == VALIDATION
    assert train.num_classes == 1000 and train.image_size is None
    found = {train.load(record)[0].numpy() for record in train.in_order()}
    assert found == set(images[:-VALIDATION])
    labels = [int(train.load(record)[1]) for record in train.in_order()]
    assert set(labels) == {0, 1, 2, 3}
    # A second time it is there already, whatever the tar files are.
    again, _ = sources.open_splits("imagenet2012", str(folder / "tfds"))
    assert again.size == train.size
    batches = pipeline.Batches(train, 4, 24, seed=1)
    expected = _take(batches.training(0), 7)
    for ours, whole in zip(_take(batches.training(4), 3), expected[4:]):
        np.testing.assert_array_equal(ours[0], whole[0])
        np.testing.assert_array_equal(ours[1], whole[1])


def test_records_are_mixed(imagenet, monkeypatch):
    """Also those of several files, and of more than a block of records."""
    from lopt_tf.images import records

    folder, _, (train, _) = imagenet
    path = folder / "numbers"
    for number in range(3):
        with tf.io.TFRecordWriter(f"{path}-{number}") as file:
            for i in range(10):
                file.write(str(10 * number + i).encode())
    monkeypatch.setattr(train, "_files", [f"{path}-{n}" for n in range(3)])
    monkeypatch.setattr(records, "_BLOCK", 7)
    taken = [int(r) for r in train.shuffled(0, 0, 28).take(56)]
    first, second = taken[:28], taken[28:]
    assert len(set(first)) == len(set(second)) == 28 and first != second
    assert first[:7] != sorted(first[:7])
    late = [int(r) for r in train.shuffled(0, 35, 28).take(21)]
    assert late == taken[35:]
    other = [int(r) for r in train.shuffled(1, 0, 28).take(28)]
    assert other != first
    # Of one file, too, it is another order in each epoch, whatever bits of
    # seeds and epochs differ.
    monkeypatch.setattr(train, "_files", [f"{path}-0"])
    orders = {
        tuple(int(r) for r in train._epoch(seed, epoch))
        for seed in (0, 256)
        for epoch in (0, 1, 2, 256, 2**20)
    }
    assert len(orders) == 10
    assert all(sorted(order) == list(range(10)) for order in orders)


def test_an_index_has_an_order_for_each_epoch():
    source = sources.open_splits("digits")[0]
    orders = {
        tuple(source._epoch(seed, epoch).as_numpy_iterator())
        for seed in (0, 256)
        for epoch in (0, 1, 256, 512)
    }
    assert len(orders) == 8
    assert all(sorted(order) == list(range(source.size)) for order in orders)


def _damaged_tar(folder):
    (folder / "ILSVRC2012_img_train.tar").write_bytes(b"no tar")


def _damaged_npz(folder):
    (folder / "a.npz").write_bytes(b"no arrays")


def _some_npz(folder, tests=2):
    images, labels = np.zeros((6, 8, 8), "uint8"), np.arange(6)
    np.savez(
        folder / "a.npz",
        **{"x_train": images, "y_train": labels},
        **{"x_test": images[:tests], "y_test": labels[:tests]},
    )


def _flipped_npz(folder):
    _some_npz(folder)
    content = bytearray((folder / "a.npz").read_bytes())
    # In the first array's data.
    content[200] ^= 1
    (folder / "a.npz").write_bytes(content)


def _array(folder):
    with open(folder / "a.npz", "wb") as file:
        np.save(file, np.arange(3))


def _without_tests(folder):
    _some_npz(folder, 0)


def _more_classes(folder):
    class_folders(folder)
    (folder / "validation" / "d").mkdir()


def _damaged_info(folder):
    (folder / "dataset_info.json").write_text("{")


def _other_labels(folder):
    """A prepared data set whose labels are plain numbers."""
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(8, 8, 3)), "label": np.int64}
    )
    examples = tf.data.Dataset.from_tensors(
        {"image": np.zeros([8, 8, 3], "uint8"), "label": 3}
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        "numbers",
        features=features,
        split_datasets={"train": examples, "test": examples},
        data_dir=folder,
        version="1.0.0",
    )


@pytest.mark.parametrize(
    "prepare, name, message",
    [
        (None, "no_such_set", "There is no data set 'no_such_set'"),
        (None, "cifar10", "not prepared in .*tfds build cifar10"),
        (None, "{}/a.npz", "cannot be read"),
        (_damaged_npz, "{}/a.npz", "cannot be read"),
        (lambda f: np.savez(f / "a.npz", x_train=1), "{}/a.npz", "y_train"),
        (_flipped_npz, "{}/a.npz", "cannot be read"),
        (_array, "{}/a.npz", "cannot be read"),
        (_without_tests, "{}/a.npz", "images in both parts"),
        (_more_classes, "{}", "classes that .*train does not have: d"),
        (_damaged_info, "{}", "The data set in .* cannot be read"),
        (_other_labels, "{}/numbers/1.0.0", "a ClassLabel called label"),
        (None, "cifar10:9.9.9", "There is no data set 'cifar10:9.9.9'"),
        (None, "my-photos", "There is no data set .*a folder as ./NAME"),
        (None, "imagenet_resized/65x65", "There is no data set"),
        (None, "imagenet_resized/64x64", "tfds build imagenet_resized/64x64"),
        (None, "{}", "needs train/CLASS/FILE"),
        (None, "{}/nowhere", "There is no folder"),
        (None, "./nowhere", "There is no folder ./nowhere"),
        (
            lambda f: [(f / n / "a").mkdir(parents=True) for n in _SPLITS],
            "{}",
            "no images in .*train",
        ),
        (None, "imagenet2012", "give manual_dir.*ILSVRC2012_img_train.tar"),
    ],
)
def test_data_that_cannot_be(prepare, name, message, tmp_path):
    if prepare:
        prepare(tmp_path)
    # Only names of TensorFlow Datasets have such a folder.
    has_folder = not name.startswith(("{}", "."))
    data_dir = str(tmp_path / "tfds") if has_folder else None
    with pytest.raises(ValueError, match=message):
        sources.open_splits(name.format(tmp_path), data_dir)


@pytest.mark.parametrize("name", ["digits", "synthetic", "a.npz", "./here"])
@pytest.mark.parametrize("setting", ["data_dir", "manual_dir"])
def test_folders_without_effect(name, setting, tmp_path, monkeypatch):
    class_folders(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="have no effect with"):
        sources.open_splits(name, **{setting: "somewhere"})


_SPLITS = ("train", "validation")


@pytest.mark.parametrize(
    "prepare, message",
    [(None, "No such file"), (_damaged_tar, "cannot be prepared")],
)
def test_tar_files_that_cannot_be(prepare, message, tmp_path):
    if prepare:
        prepare(tmp_path)
    with pytest.raises(ValueError, match=message):
        sources.open_splits(
            "imagenet2012", str(tmp_path / "tfds"), str(tmp_path)
        )


def test_batches_must_fit(numbered):
    with pytest.raises(ValueError, match="more than the 23 images"):
        pipeline.Batches(numbered, 24, 8).training(0)


# Networks.


def test_small_network():
    model = models.build("resnet20_v2", 8, 10)
    # Without biases: 16 * 27 + 3 * 2 * (9 * 16**2 + 4 * 9 * 16**2 + ...) ....
    kernels = [
        w for w in model.trainable_variables if w.path.endswith("kernel")
    ]
    # 19 of size 3x3, two shortcuts, one linear.
    assert len(kernels) == 22
    assert model.output_shape == (None, 10)
    assert 270_000 < model.count_params() < 280_000


@pytest.mark.parametrize(
    "name, size, message",
    [
        ("resnet20_v2", 3, "at least 4 pixels"),
        ("inception_v3", 64, "inception_v3 cannot take images of 64 pixels"),
        ("resnet50_v2", 16, "resnet50_v2 cannot take images of 16 pixels"),
        ("guess", 32, "Known: resnet20_v2"),
    ],
)
def test_networks_that_cannot_be(name, size, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, size, 10)
