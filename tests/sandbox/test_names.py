"""The nearest name is the one that was meant."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.names import nearest

TABLES = [
    "customers",
    "orders",
    "orderitems",
    "users",
    "addresses",
    "categories",
    "boxes",
    "invoices",
]
COLUMNS = """
    id username user_name first_name last_name email created_at updated_at product_id customer_id
    quantity address price total is_active phone_number
""".split()


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("custmers", "customers"),
        ("Customer", "customers"),
        ("CUSTOMERS", "customers"),
        ("user", "users"),
        ("order_items", "orderitems"),
        ("OrderItem", "orderitems"),
        ("category", "categories"),
        ("box", "boxes"),
        ("invoces", "invoices"),
        ("adresses", "addresses"),
    ],
)
def test_a_table(wrong: str, meant: str) -> None:
    assert nearest(wrong, TABLES)[0] == meant


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("emial", "email"),
        ("createdat", "created_at"),
        ("createdAt", "created_at"),
        ("created", "created_at"),
        ("prodcut_id", "product_id"),
        ("productId", "product_id"),
        ("adress", "address"),
        ("quantities", "quantity"),
        ("firstname", "first_name"),
        ("lastNmae", "last_name"),
        ("phone", "phone_number"),
        ("active", "is_active"),
        ("e_mail", "email"),
    ],
)
def test_a_column(wrong: str, meant: str) -> None:
    assert nearest(wrong, COLUMNS)[0] == meant


def test_what_is_near_to_nothing_has_no_name() -> None:
    assert nearest("zzz", TABLES) == []
    assert nearest("", TABLES) == []
    assert nearest("x", []) == []


def test_how_near_it_must_be_can_be_said() -> None:
    assert nearest("ordr", ["orders", "borders"], least=0.8)[0] == "orders"
    assert nearest("form", ["FROM"], least=0.75) == ["FROM"]
    assert nearest("form", ["FROM"], least=0.8) == []


@given(name=st.text(max_size=200), known=st.lists(st.text(max_size=200), max_size=5))
def test_any_names_are_compared(name: str, known: list[str]) -> None:
    assert set(nearest(name, known)) <= set(known)


def test_a_thousand_long_names_are_compared_in_no_time() -> None:
    known = [f"a_rather_long_name_of_a_table_number_{number}" for number in range(1000)]
    began = time.process_time()
    assert nearest("a_rather_long_nam_of_a_table_number_7", known)[0] == known[7]
    assert time.process_time() - began < 1
