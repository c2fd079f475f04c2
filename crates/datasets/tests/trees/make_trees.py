#!/usr/bin/env python3
"""Writes the tiny trees beside this file, with tools that this project does not contain: numpy, SciPy, Pillow and the
standard library. Where torchvision has a reader for a tree, that reader reads it back and what it sees is written to
`expected.json`: the test asks for the same.

    python make_trees.py        (numpy, scipy, pillow, torchvision)

Files called `*.gz` beside others are unpacked by the test, since most of their bytes are alike; idx files are read as
they are.
"""

import gzip
import hashlib
import json
import pathlib
import shutil
import struct
import tempfile
import xml.etree.ElementTree as xml

import numpy as np
import scipy.io
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = {}


def picture(seed, height=6, width=8, channels=3):
    """Noise of few levels: small as a file, and no two alike."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return (rng.integers(0, 4, shape) * 80).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def sha(image):
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_gz(path, data):
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(data)


def flat(seed, side, planes=3):
    """One colour with a mark in its top left corner that is not symmetric."""
    image = np.full((side, side, planes), seed % 200 + 20, np.uint8)
    image[1, 3] = [250, 10 + seed, 60][:planes]
    return image


def mnist():
    folder = fresh("mnist")
    for part, count in [("train", 20), ("t10k", 10)]:
        images = np.stack([picture(n, 28, 28, 1) // 80 * (n % 3 + 1) for n in range(count)])
        labels = np.arange(count, dtype=np.uint8) % 10
        write_gz(folder / f"{part}-images-idx3-ubyte.gz", struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        write_gz(folder / f"{part}-labels-idx1-ubyte.gz", struct.pack(">II", 2049, count) + labels.tobytes())
    from torchvision.datasets.mnist import read_image_file, read_label_file

    with tempfile.TemporaryDirectory() as work:
        seen = []
        for part in ["train", "t10k"]:
            paths = []
            for what in ["images-idx3", "labels-idx1"]:
                path = pathlib.Path(work) / what
                path.write_bytes(gzip.decompress((folder / f"{part}-{what}-ubyte.gz").read_bytes()))
                paths.append(str(path))
            images, labels = read_image_file(paths[0]).numpy(), read_label_file(paths[1]).numpy()
            seen += [[int(label), sha(Image.fromarray(image))] for image, label in zip(images, labels)]
    EXPECTED["mnist"] = seen


def cifar():
    for name, files, classes, labels in [
        ("cifar10", [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"], 10, 1),
        ("cifar100", ["train", "test"], 100, 2),
    ]:
        folder = fresh(name)
        seen = []
        for at, file in enumerate(files):
            data = b""
            for label in range(classes):
                image = flat(label + 7 * at, 32)
                # The coarse label comes first; here each five fine ones in a row share one.
                data += bytes([label // 5, label] if labels == 2 else [label]) + image.transpose(2, 0, 1).tobytes()
                seen.append([label // 5 if labels == 2 else label, sha(Image.fromarray(image))])
            write_gz(folder / f"{file}.bin.gz", data)
        EXPECTED[name] = seen


def stl10():
    folder = fresh("stl10")
    from torchvision.datasets import STL10

    seen = []
    for part in ["train", "test"]:
        # Column by column, as MATLAB writes it.
        images = [flat(label * 9 + len(part), 96) for label in range(10)]
        data = b"".join(image.transpose(2, 1, 0).tobytes() for image in images)
        labels = np.arange(1, 11, dtype=np.uint8).tobytes()
        write_gz(folder / f"{part}_X.bin.gz", data)
        (folder / f"{part}_y.bin").write_bytes(labels)
        with tempfile.TemporaryDirectory() as work:
            base = pathlib.Path(work) / "stl10_binary"
            base.mkdir()
            (base / "X.bin").write_bytes(data)
            (base / "y.bin").write_bytes(labels)
            reader = STL10.__new__(STL10)
            reader.root = work
            read, numbers = reader._STL10__loadfile("X.bin", "y.bin")
        seen += [[int(n), sha(Image.fromarray(image.transpose(1, 2, 0)))] for image, n in zip(read, numbers)]
    EXPECTED["stl10"] = seen


def aircraft():
    folder = fresh("fgvc-aircraft") / "fgvc-aircraft-2013b" / "data"
    folder.mkdir(parents=True)
    names = [f"{100 + n}-200" if n % 2 else f"Model {100 + n}" for n in range(100)]
    (folder / "variants.txt").write_text("\n".join(names) + "\n")
    ten = [91, 96, 59, 19, 37, 45, 90, 68, 74, 89]
    number = 0
    for part in ["train", "val", "test"]:
        lines = []
        for variant in ten + [5]:
            number += 1
            lines.append(f"{number:07d} {names[variant]}")
            save(folder / "images" / f"{number:07d}.jpg", picture(number), quality=60)
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    from torchvision.datasets import FGVCAircraft

    EXPECTED["fgvc-aircraft"] = {}
    for part in ["train", "val", "test"]:
        reader = FGVCAircraft(HERE / "fgvc-aircraft", split=part, annotation_level="variant", download=False)
        pairs = zip(reader._image_files, reader._labels)
        EXPECTED["fgvc-aircraft"][part] = sorted([pathlib.Path(file).stem, names.index(reader.classes[label])] for file, label in pairs)


def cars():
    folder = fresh("stanford-cars") / "stanford_cars"
    devkit = folder / "devkit"
    devkit.mkdir(parents=True)
    titles = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW M3 Coupe 2012"]
    cells = np.empty((1, 3), dtype=object)
    cells[0, :] = titles
    scipy.io.savemat(devkit / "cars_meta.mat", {"class_names": cells}, do_compression=True)
    kinds = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    for part, file, compressed, count in [
        ("train", devkit / "cars_train_annos.mat", True, 6),
        ("test", folder / "cars_test_annos_withlabels.mat", False, 3),
    ]:
        rows = np.empty((1, count), dtype=[(kind, object) for kind in kinds])
        for n in range(count):
            numbers = [np.array([[v]], np.uint16) for v in (1, 2, 300, 400)]
            name = f"{n + 1:05d}.jpg"
            rows[0, n] = (*numbers, np.array([[n % 3 + 1]], np.uint8), name)
            save(folder / f"cars_{part}" / name, picture(n + (50 if part == "test" else 0)), quality=60)
        scipy.io.savemat(file, {"annotations": rows}, do_compression=compressed)
    from torchvision.datasets import StanfordCars

    EXPECTED["stanford-cars"] = {}
    for part in ["train", "test"]:
        reader = StanfordCars(HERE / "stanford-cars", split=part, download=False)
        EXPECTED["stanford-cars"][part] = [[pathlib.Path(file).name, int(label)] for file, label in reader._samples]
        assert list(reader.classes) == titles


def scenes():
    folder = fresh("view")
    for part, count in [("train", 3), ("test", 2)]:
        for at, name in enumerate(["buildings", "forest", "glacier", "mountain", "sea", "street"]):
            for n in range(count):
                save(folder / f"seg_{part}" / f"seg_{part}" / name / f"{n}.jpg", picture(100 * at + 10 * n + count), quality=60)


def cats_dogs():
    folder = fresh("cats-vs-dogs")
    for at, name in enumerate(["Cat", "Dog"]):
        for n in range(10):
            save(folder / name / f"{n}.jpg", picture(1000 + 20 * at + n), quality=60)


def dior():
    folder = fresh("dior")
    for part, numbers in [("trainval", [1, 2]), ("test", [3])]:
        for number in numbers:
            image = np.full((140, 300, 3), 40 * number, np.uint8)
            image[:, 150:] = 200
            save(folder / f"JPEGImages-{part}" / f"{number:05d}.jpg", image, quality=50)
            root = xml.Element("annotation")
            xml.SubElement(root, "filename").text = f"{number:05d}.jpg"
            # 51 objects of two classes, too small ones, and a class with too few.
            boxes = [("ship", n, 1, n + 130, 130) for n in range(1, 27)] + [("ship", 151, 1, 280, 125)] * 2
            boxes += [("stadium", n, 5, n + 120, 124) for n in range(1, 28)] + [("dam", 1, 1, 130, 130), ("ship", 1, 1, 100, 140)]
            for name, *corners in boxes:
                item = xml.SubElement(root, "object")
                xml.SubElement(item, "name").text = name
                box = xml.SubElement(item, "bndbox")
                for key, value in zip(["xmin", "ymin", "xmax", "ymax"], corners):
                    xml.SubElement(box, key).text = str(value)
            path = folder / "Annotations" / "Horizontal Bounding Boxes" / f"{number:05d}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            xml.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("00001\n")
    (sets / "val.txt").write_text("00002\n")
    (sets / "test.txt").write_text("00003\n")


def industrial(folder, masks, normal="good", bad=("cut",), suffix="_mask", kind="png"):
    for part, name, count in [("train", normal, 4), ("test", normal, 2)] + [("test", name, 2) for name in bad]:
        for n in range(count):
            save(folder / part / name / f"{n:03d}.{kind}", picture(hash_of(folder, part, name, n)))
    if masks:
        for name in bad:
            for n in range(2):
                mask = np.zeros((6, 8), np.uint8)
                mask[n : n + 3, 2:5] = 255
                save(folder / "ground_truth" / name / f"{n:03d}{suffix}.png", mask)


def hash_of(folder, *parts):
    text = "/".join([folder.name, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def mvtec_like():
    for name in ["bottle", "grid"]:
        industrial(fresh(f"mvtec/{name}"), True, bad=("broken_large", "contamination"))
    industrial(fresh("mpdd/connector"), True, bad=("parts_mismatch",))
    industrial(fresh("btad/01"), True, normal="ok", bad=("ko",), suffix="", kind="bmp")
    industrial(fresh("btad/02"), True, normal="ok", bad=("ko",), suffix="")
    folder = fresh("mvtec-loco/pushpins")
    industrial(folder, False, bad=("logical_anomalies", "structural_anomalies"))
    for n in range(2):
        save(folder / "validation" / "good" / f"{n:03d}.png", picture(700 + n))
    for at, name in enumerate(["logical_anomalies", "structural_anomalies"]):
        for n in range(2):
            for channel in range(n + 1):
                mask = np.zeros((6, 8), np.uint8)
                mask[channel * 2 : channel * 2 + 2, 1:6] = 255 - at - channel
                save(folder / "ground_truth" / name / f"{n:03d}" / f"{channel:03d}.png", mask)
    table = [
        {"defect_name": "1_additional_pushpin", "pixel_value": 255, "saturation_threshold": 6300, "relative_saturation": False},
        {"defect_name": "missing_separator", "pixel_value": 254, "saturation_threshold": 1.0, "relative_saturation": True},
        {"defect_name": "broken", "pixel_value": 253, "saturation_threshold": 0.5, "relative_saturation": True},
    ]
    (folder / "defects_config.json").write_text(json.dumps(table, indent=1))


def visa():
    folder = fresh("visa")
    rows = ["object,split,label,image,mask"]
    for at, name in enumerate(["candle", "pcb1"]):
        data = folder / name / "Data"
        for n in range(10):
            save(data / "Images" / "Normal" / f"{n:04d}.JPG", picture(3000 + 100 * at + n), format="JPEG", quality=60)
            split = "test" if n == 4 else "train"
            rows.append(f"{name},{split},normal,{name}/Data/Images/Normal/{n:04d}.JPG,")
        for n in range(2):
            save(data / "Images" / "Anomaly" / f"{n:03d}.JPG", picture(3500 + 100 * at + n), format="JPEG", quality=60)
            mask = np.zeros((6, 8), np.uint8)
            mask[1:3, 2 + n] = 1 + n
            save(data / "Masks" / "Anomaly" / f"{n:03d}.png", mask)
            rows.append(f"{name},test,anomaly,{name}/Data/Images/Anomaly/{n:03d}.JPG,{name}/Data/Masks/Anomaly/{n:03d}.png")
    (folder / "split_csv").mkdir()
    (folder / "split_csv" / "1cls.csv").write_text("\r\n".join(rows) + "\r\n")


def custom():
    folder = fresh("normal-abnormal")
    for part, names in [("train", ["0.normal"]), ("test", ["0.normal", "1.abnormal"])]:
        for name in names:
            for n in range(2):
                save(folder / part / name / f"{n}.png", picture(hash_of(folder, part, name, n)))
    folder = fresh("good-bad")
    for n in range(5):
        save(folder / "good" / f"{n}.png", picture(4000 + n))
        save(folder / "bad" / f"{n}.webp", picture(4100 + n), lossless=True)
        mask = np.zeros((6, 8), np.uint8)
        mask[2, n] = 255
        save(folder / "masks" / f"{n}.png", mask)
    folder = fresh("csv")
    rows = ["path,label,mask,split,category"]
    for n in range(4):
        save(folder / "images" / f"{n}.tif", picture(4200 + n), compression="tiff_lzw")
        rows.append(f"images/{n}.tif,{n % 2},{'masks/%d.png' % n if n % 2 else ''},{'train' if n == 0 else 'test'},nut")
        if n % 2:
            mask = np.zeros((6, 8), np.uint8)
            mask[n, n] = 255
            save(folder / "masks" / f"{n}.png", mask)
    (folder / "parts.csv").write_text("\n".join(rows) + "\n")


def modes():
    """The same picture in the forms files come in; `expected.json` has what Pillow makes of each."""
    folder = fresh("modes")
    base = Image.fromarray(np.kron(picture(9, 4, 4), np.ones((4, 4, 1), np.uint8)))
    grey = base.convert("L")
    alpha = base.copy()
    alpha.putalpha(grey)
    images = {
        "rgb.png": base,
        "grey.png": grey,
        "alpha.png": alpha,
        "palette.png": base.quantize(16),
        "bilevel.png": grey.point(lambda v: 255 * (v > 90), mode="1"),
        "rgb.bmp": base,
        "palette.bmp": base.quantize(16),
        "grey.bmp": grey,
        "rgb.tif": base,
        "grey.tif": grey,
        "lossless.webp": base,
        "alpha.webp": alpha,
    }
    for name, image in images.items():
        image.save(folder / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
    exif = Image.Exif()
    exif[0x0112] = 6
    base.crop((0, 0, 16, 8)).save(folder / "rotated.png", exif=exif)
    EXPECTED["modes"] = {path.name: sha(Image.open(path)) for path in sorted(folder.iterdir())}
    # Decoders of JPEG differ by a level or two: the samples are compared, not a hash of them.
    smooth = base.resize((16, 16), Image.Resampling.BICUBIC)
    smooth.save(folder / "colour.jpg", quality=95, subsampling=0)
    smooth.convert("L").save(folder / "grey.jpg", quality=95)
    smooth.save(folder / "progressive.jpg", quality=95, subsampling=0, progressive=True)
    EXPECTED["jpeg"] = {
        name: np.asarray(Image.open(folder / name).convert("RGB")).flatten().tolist()
        for name in ["colour.jpg", "grey.jpg", "progressive.jpg"]
    }


if __name__ == "__main__":
    for make in [mnist, cifar, stl10, aircraft, cars, scenes, cats_dogs, dior, mvtec_like, visa, custom, modes]:
        make()
    (HERE / "expected.json").write_text(json.dumps(EXPECTED, separators=(",", ":"), sort_keys=True) + "\n")
