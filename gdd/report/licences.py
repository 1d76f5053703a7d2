"""What is known of the licences of public datasets. Where nothing is certain, that is said."""

from typing import NamedTuple

UNKNOWN = "unknown"  # as the Hub calls it


class Licence(NamedTuple):
    """Of a dataset's images."""

    identifier: str  # as the Hub writes it in a card's front matter
    sentence: str  # what its makers say


LICENCES = {
    "digits": Licence(
        "cc-by-4.0",
        "CC BY 4.0, as the UCI Machine Learning Repository states for Optical Recognition of Handwritten Digits "
        "(E. Alpaydin and C. Kaynak, 1998), whose test part scikit-learn's digits are.",
    ),
    "mnist": Licence(
        UNKNOWN,
        "unknown: check the source's licence. Sources disagree: the documentation of Keras says CC BY-SA 3.0, with the "
        "copyright of Y. LeCun and C. Cortes, the dataset's card on the Hugging Face Hub says MIT.",
    ),
    "fashion_mnist": Licence("mit", "MIT, copyright of Zalando SE (H. Xiao, K. Rasul and R. Vollgraf, 2017)."),
    "cifar10": Licence(
        UNKNOWN,
        "unknown: check the source's licence. The home page of CIFAR-10 (A. Krizhevsky, 2009) names none; it asks to "
        "cite the technical report. The images are from 80 Million Tiny Images, which were collected on the web.",
    ),
    "cifar100": Licence(
        UNKNOWN,
        "unknown: check the source's licence. The home page of CIFAR-100 (A. Krizhevsky, 2009) names none; it asks to "
        "cite the technical report. The images are from 80 Million Tiny Images, which were collected on the web.",
    ),
    "svhn": Licence(
        "other",
        "no named licence: the home page of SVHN (Y. Netzer et al., 2011) says for non-commercial use only; the images "
        "are from Google Street View.",
    ),
}


def of(name: str, known: bool = True) -> Licence:
    """Return the licence of a dataset; of one that is not `known` by its name, as a user's own, that it is unknown."""
    own = Licence(UNKNOWN, f"that of {name}: fill in. gdd knows nothing of its licence.")
    return LICENCES.get(name, own) if known else own
