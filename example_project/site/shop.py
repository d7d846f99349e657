"""The shop: categories, lists of products, product pages and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from catalog import Catalog, Product
from exchange import Call, Groups, Reply, Route, html
from pages import frame, link, listing, not_found, page_count, page_of, pager
from picture import square_png

#: Products on a page of a list.
PAGE_SIZE = 20

_STARS = ("Zero", "One", "Two", "Three", "Four", "Five")


def product_path(product: Product) -> str:
    """Say where a product's page is."""
    return f"/shop/product/{product.number}-{product.slug}/"


def _staff_path(product: Product) -> str:
    return f"/shop/staff/product/{product.number}-{product.slug}/"


class Shop:
    """The pages under ``/shop/``."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._products = tuple(catalog.products.values())
        self._by_category = {
            slug: tuple(p for p in self._products if p.category == slug) for slug in catalog.categories
        }

    def routes(self) -> list[Route]:
        """List the shop's pages."""
        return [
            (r"/shop/", self._index),
            (r"/shop/all/", self._all),
            (r"/shop/category/(?P<slug>[a-z-]+)/", self._category),
            (r"/shop/product/(?P<number>\d+)-[a-z0-9-]+/", self._product),
            (r"/shop/image/(?P<number>\d+)\.png", self._image),
            (r"/shop/staff/", self._staff),
            (r"/shop/staff/product/(?P<number>\d+)-[a-z0-9-]+/", self._staff_product),
        ]

    def _index(self, call: Call, groups: Groups) -> Reply:
        categories = listing(
            (link(f"/shop/category/{s}/", name) for s, name in self._catalog.categories.items()),
            css_class="categories",
        )
        everything = link("/shop/all/", "All books")
        # The trap: a crawler that ignores robots.txt finds twenty more products.
        staff = link("/shop/staff/", "Staff only")
        return html(frame("Shop", f"<p>{everything} {staff}</p>", categories))

    def _list(self, title: str, path: str, products: Sequence[Product], page: int) -> Reply:
        pages = page_count(len(products), PAGE_SIZE)
        if not 1 <= page <= pages:
            return not_found("page")
        rows = (
            f"{link(product_path(p), p.title)} <span>{escape(p.price)}</span>"
            for p in page_of(products, page, PAGE_SIZE)
        )
        return html(
            frame(
                title,
                listing(rows, css_class="products"),
                pager(page, pages, path + "?page={page}"),
            )
        )

    def _all(self, call: Call, groups: Groups) -> Reply:
        return self._list("All books", call.path, self._products, call.number("page", 1))

    def _category(self, call: Call, groups: Groups) -> Reply:
        slug = groups["slug"]
        if slug not in self._by_category:
            return not_found("category")
        name = self._catalog.categories[slug]
        return self._list(name, call.path, self._by_category[slug], call.number("page", 1))

    def _show(self, product: Product) -> Reply:
        related = (self._catalog.products[number] for number in product.related)
        category = self._catalog.categories[product.category]
        return html(
            frame(
                product.title,
                f'<article class="product" data-number="{product.number}">',
                f'<img src="/shop/image/{product.number}.png" alt="{escape(product.title)}">',
                link(f"/shop/category/{product.category}/", category, css_class="category"),
                f'<p class="price">{escape(product.price)}</p>',
                f'<p class="stock">In stock ({product.stock} available)</p>',
                f'<p class="rating {_STARS[product.rating]}">{product.rating} stars</p>',
                f'<div class="description"><p>{escape(product.description)}</p></div>',
                "</article>",
                listing((link(product_path(p), p.title) for p in related), css_class="related"),
            )
        )

    def _product(self, call: Call, groups: Groups) -> Reply:
        product = self._catalog.products.get(int(groups["number"]))
        if product is None or call.path != product_path(product):
            return not_found("product")
        return self._show(product)

    def _image(self, call: Call, groups: Groups) -> Reply:
        number = int(groups["number"])
        product = self._catalog.products.get(number) or self._catalog.staff_products.get(number)
        if product is None:
            return not_found("picture")
        return Reply(square_png(product.colour), content_type="image/png")

    def _staff(self, call: Call, groups: Groups) -> Reply:
        products = self._catalog.staff_products.values()
        links = listing((link(_staff_path(p), p.title) for p in products), css_class="products")
        return html(frame("Staff only", links))

    def _staff_product(self, call: Call, groups: Groups) -> Reply:
        product = self._catalog.staff_products.get(int(groups["number"]))
        if product is None or call.path != _staff_path(product):
            return not_found("product")
        return self._show(product)
