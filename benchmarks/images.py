"""CIFAR-10 as arrays on disk: decoded once, then read in blocks at random, without being in memory as a whole."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHAPE = (3, 32, 32)
N_TRAIN = 50_000  # of the 60,000 images of OpenML, whose first are those for training


@dataclass(frozen=True)
class Images:
    """Images (n, 3, 32, 32) of uint8, mapped to a file, and their classes (n,)."""

    X: np.ndarray
    classes: np.ndarray

    def one_hot(self, n_classes: int) -> np.ndarray:
        """Targets (n, C)."""
        return np.eye(n_classes)[self.classes]

    def take(self, chosen: np.ndarray) -> "Images":
        """The chosen images, in memory."""
        return Images(self.X[chosen], self.classes[chosen])


def load_cifar10(data: Path | None, folder: Path) -> tuple[Images, Images]:
    """Images for training and for testing.

    `data` is a zip file or a folder with train/CLASS/*.jpg (or .png) and test/CLASS/*.jpg; None downloads the original
    pixels from OpenML. They are decoded into arrays in `folder`, where they are found the next time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"{part}_{what}.npy" for part in ("train", "test") for what in ("X", "classes")]
    if not all(name.exists() for name in names):
        parts = _downloaded() if data is None else _decoded(data)
        for name, array in zip(names, parts, strict=True):
            written = name.with_suffix(".part.npy")
            np.save(written, array)
            written.rename(name)
    train_X, train_classes, test_X, test_classes = (np.load(name, mmap_mode="r") for name in names)
    return Images(train_X, np.asarray(train_classes)), Images(test_X, np.asarray(test_classes))


def first_training_images(data: Path, n_images: int) -> Images:
    """The first training images of every class, as many of each, the classes in turn; nothing is written.

    `data` is a zip file or a folder as in `load_cifar10`.
    """
    files = _files(data)
    labels = sorted({name.split("/")[1] for name in files if name.startswith("train/")})
    names = [sorted(name for name in files if name.startswith(f"train/{label}/")) for label in labels]
    each = n_images // max(len(labels), 1)
    if not (labels and each and min(map(len, names)) >= each):
        raise SystemExit(f"{data} has no {n_images} images train/CLASS/*.jpg or *.png, as many of every class.")
    X = np.array([_image(files[name]) for group in zip(*[of[:each] for of in names], strict=True) for name in group])
    return Images(X, np.tile(np.arange(len(labels)), each))


def _downloaded() -> Iterator[np.ndarray]:
    from sklearn.datasets import fetch_openml

    X, y = fetch_openml("CIFAR_10", version=1, return_X_y=True, as_frame=False, parser="auto")
    images, classes = X.astype(np.uint8).reshape(-1, *SHAPE), np.unique(y, return_inverse=True)[1]
    for part in (slice(None, N_TRAIN), slice(N_TRAIN, None)):
        yield images[part]
        yield classes[part]


def _decoded(data: Path) -> Iterator[np.ndarray]:
    files = _files(data)
    labels = sorted({name.split("/")[1] for name in files})
    for part in ("train", "test"):
        names = sorted(name for name in files if name.startswith(f"{part}/"))
        if not names:
            raise SystemExit(f"{data} holds no {part}/CLASS/*.jpg or *.png.")
        images = np.empty((len(names), *SHAPE), dtype=np.uint8)
        for image, name in zip(images, names, strict=True):
            image[:] = _image(files[name])
        yield images
        yield np.array([labels.index(name.split("/")[1]) for name in names])


def _image(file: "zipfile.Path | Path") -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB")).transpose(2, 0, 1)


def _files(data: Path) -> dict[str, "zipfile.Path | Path"]:
    """Image files by their name, train/CLASS/FILE or test/CLASS/FILE."""
    if not data.exists():
        raise SystemExit(f"--data {data} does not exist; give a zip file or a folder, or leave it out to download.")
    root = data if data.is_dir() else zipfile.Path(data)
    folders = [
        (part, folder) for part in ("train", "test") if (root / part).is_dir() for folder in (root / part).iterdir()
    ]
    return {
        f"{part}/{folder.name}/{file.name}": file
        for part, folder in folders
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith((".jpg", ".png"))
    }
