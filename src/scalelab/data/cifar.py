"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

from __future__ import annotations

import functools

from scalelab.data import known, pickled
from scalelab.data.known import Known, Official
from scalelab.data.parquet import Layout

HOME = "https://www.cs.toronto.edu/~kriz/"

TEN = pickled.Batches("CIFAR-10", tuple(f"data_batch_{k}" for k in range(1, 6)), "test_batch", b"labels", 10)
CIFAR10 = Known(
    name="cifar10",
    title=TEN.title,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    statistics=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    augment="crop+flip",
    official=(Official(f"{HOME}cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-python.tar.gz"),),
    read=TEN.read_archive,
    extracted="cifar-10-batches-py",
    members=TEN.names,
    read_extracted=TEN.read_folder,
)

FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar cattle
chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew
skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm
"""
HUNDRED = pickled.Batches("CIFAR-100", ("train",), "test", b"fine_labels", 100)
CIFAR100 = Known(
    name="cifar100",
    title=HUNDRED.title,
    classes=tuple(FINE.split()),
    statistics=((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    augment="crop+flip",
    official=(Official(f"{HOME}cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python.tar.gz"),),
    read=HUNDRED.read_archive,
    extracted="cifar-100-python",
    members=HUNDRED.names,
    read_extracted=HUNDRED.read_folder,
    layout=Layout(labels=("fine_label", "label")),
)

load10 = functools.partial(known.load, CIFAR10)
load100 = functools.partial(known.load, CIFAR100)
