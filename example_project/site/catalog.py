"""
Everything that the site has to show, made from a seed.

The same seed makes the same catalog on every Python and platform: only
`random.Random` seeded with an int is used, and nothing iterates over a set.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from random import Random

#: Products that the categories list.
PRODUCT_COUNT = 900
#: Products behind the address that robots.txt forbids; their ids follow the others'.
STAFF_PRODUCT_COUNT = 20
QUOTE_COUNT = 300
REVIEW_COUNT = 400
ORDER_COUNT = 45
#: A price above this belongs to no real book: the shop's data has some bad rows.
BAD_PRICE_PENCE = 999_999

_CATEGORIES = (
    "Adventure", "Art", "Biography", "Business", "Classics", "Comics", "Cooking", "Crime",
    "Fantasy", "Gardening", "Health", "History", "Horror", "Humour", "Music", "Nature",
    "Philosophy", "Poetry", "Politics", "Psychology", "Romance", "Science", "Sports", "Travel",
)  # fmt: skip
_ADJECTIVES = (
    "Quiet", "Crimson", "Forgotten", "Wandering", "Hollow", "Golden", "Broken", "Silent",
    "Distant", "Restless", "Gentle", "Naïve", "Burning", "Frozen", "Electric", "Paper",
)  # fmt: skip
_NOUNS = (
    "Garden", "Lighthouse", "River", "Library", "Orchard", "Compass", "Mirror", "Harbour",
    "Staircase", "Winter", "Telescope", "Café", "Archive", "Meadow", "Clock", "Voyage",
)  # fmt: skip
_PLACES = (
    "Århus", "Lisbon", "Kraków", "the North", "São Paulo", "Kyoto", "the Moon", "Reykjavík",
    "Málaga", "the Valley", "Zürich", "Tbilisi",
)  # fmt: skip
_FIRST_NAMES = (
    "Ada", "Björn", "Chidi", "Dolores", "Élise", "Farid", "Greta", "Hiroshi", "Inês", "Jorge",
)  # fmt: skip
_LAST_NAMES = ("Almeida", "Okafor", "Lindqvist", "Tanaka")
_TAGS = (
    "books", "change", "courage", "friendship", "hope", "humor", "kindness", "knowledge",
    "life", "love", "memory", "patience", "silence", "simplicity", "time", "travel", "truth",
    "winter", "wisdom", "work",
)  # fmt: skip
_VERBS = ("teaches", "outlives", "needs", "forgives", "invents", "remembers", "mistrusts")
_THINGS = (
    "every reader", "a patient mind", "the long road", "an honest page", "the first snow",
    "a closed door", "the last word", "an old friend", "the open sea", "a small lamp",
)  # fmt: skip


@dataclass(frozen=True)
class Product:
    """A book on sale."""

    number: int
    slug: str
    title: str
    category: str
    #: The price in pence.
    price_pence: int
    stock: int
    #: Stars, 1 to 5.
    rating: int
    description: str
    colour: tuple[int, int, int]
    #: The numbers of other products.
    related: tuple[int, ...]

    @property
    def price(self) -> str:
        """The price as the shop writes it; the form varies from product to product."""
        amount = f"{self.price_pence / 100:,.2f}"
        return (f"£{amount}", f"GBP {amount}", f"{amount} £")[self.number % 3]


@dataclass(frozen=True)
class Author:
    """Someone who is quoted."""

    slug: str
    name: str
    born: str
    place: str


@dataclass(frozen=True)
class Quote:
    """A sentence, its author and its tags."""

    number: int
    text: str
    author: Author
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Review:
    """What a customer wrote about a product."""

    number: int
    product: int
    #: Stars, 1 to 5.
    stars: int
    customer: str
    text: str


@dataclass(frozen=True)
class Order:
    """What the signed-in customer bought."""

    number: int
    product: int
    quantity: int
    total_pence: int

    @property
    def total(self) -> str:
        """The total as the shop writes it."""
        return f"£{self.total_pence / 100:,.2f}"


@dataclass(frozen=True)
class Catalog:
    """All that the site shows; see `build`."""

    seed: int
    #: Name by slug, in alphabetic order.
    categories: dict[str, str]
    #: By number, from 1; the staff's products are not among them.
    products: dict[int, Product]
    #: By number; only under the address that robots.txt forbids.
    staff_products: dict[int, Product]
    #: By slug.
    authors: dict[str, Author]
    tags: tuple[str, ...]
    quotes: tuple[Quote, ...]
    reviews: tuple[Review, ...]
    #: By number, from 1001.
    orders: dict[int, Order]


def slug_of(text: str) -> str:
    """Make an ASCII slug of a name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _sentence(random: Random) -> str:
    subject, thing = random.sample(_THINGS, 2)
    text = f"{subject} {random.choice(_VERBS)} {thing}"
    return text[0].upper() + text[1:] + "."


def _product(random: Random, number: int, categories: list[str]) -> Product:
    title = f"The {random.choice(_ADJECTIVES)} {random.choice(_NOUNS)}"
    title = f"{title} of {random.choice(_PLACES)}"
    is_bad_row = number % 150 == 0
    return Product(
        number=number,
        slug=slug_of(title),
        title=title,
        category=categories[number % len(categories)],
        price_pence=BAD_PRICE_PENCE if is_bad_row else random.randrange(299, 120_000),
        stock=random.randrange(0, 30),
        rating=random.randrange(1, 6),
        description=" ".join(_sentence(random) for _ in range(random.randrange(2, 7))),
        colour=(random.randrange(256), random.randrange(256), random.randrange(256)),
        related=tuple(other for other in random.sample(range(1, PRODUCT_COUNT + 1), 5) if other != number)[:4],
    )


def _authors(random: Random) -> list[Author]:
    names = [f"{first} {last}" for first in _FIRST_NAMES for last in _LAST_NAMES]
    return [
        Author(
            slug=slug_of(name),
            name=name,
            born=f"{random.randrange(1800, 1990)}-{random.randrange(1, 13):02}-01",
            place=random.choice(_PLACES),
        )
        for name in names
    ]


def build(seed: int) -> Catalog:
    """Make the catalog of *seed*."""
    random = Random(seed)
    categories = {slug_of(name): name for name in _CATEGORIES}
    slugs = list(categories)
    products = [_product(random, number, slugs) for number in range(1, PRODUCT_COUNT + STAFF_PRODUCT_COUNT + 1)]
    authors = _authors(random)
    quotes = tuple(
        Quote(
            number,
            f"{_sentence(random)} {_sentence(random)}",
            random.choice(authors),
            tuple(sorted(random.sample(_TAGS, random.randrange(1, 4)))),
        )
        for number in range(1, QUOTE_COUNT + 1)
    )
    reviews = tuple(
        Review(
            number,
            random.randrange(1, PRODUCT_COUNT + 1),
            random.randrange(1, 6),
            random.choice(_FIRST_NAMES),
            _sentence(random),
        )
        for number in range(1, REVIEW_COUNT + 1)
    )
    orders = [
        Order(
            number,
            random.randrange(1, PRODUCT_COUNT + 1),
            random.randrange(1, 4),
            random.randrange(500, 90_000),
        )
        for number in range(1001, 1001 + ORDER_COUNT)
    ]
    return Catalog(
        seed=seed,
        categories=categories,
        products={product.number: product for product in products[:PRODUCT_COUNT]},
        staff_products={product.number: product for product in products[PRODUCT_COUNT:]},
        authors={author.slug: author for author in authors},
        tags=_TAGS,
        quotes=quotes,
        reviews=reviews,
        orders={order.number: order for order in orders},
    )
