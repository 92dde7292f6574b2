"""The form of an answer: what the caller likes best of what there is."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.forms import Form
from walkin.errors import Refused
from walkin.negotiation import choose


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ([], Form.JSON),
        ([""], Form.JSON),
        (["*/*"], Form.JSON),
        (["application/json"], Form.JSON),
        (["application/*"], Form.JSON),
        (["text/html, application/xhtml+xml, */*;q=0.8"], Form.JSON),
        (["text/csv"], Form.CSV),
        (["TEXT/CSV ; charset=utf-8"], Form.CSV),
        (["text/*"], Form.CSV),
        (["text/markdown, text/csv;q=0.9"], Form.MARKDOWN),
        (["text/csv;q=0.5", "application/x-ndjson"], Form.NDJSON),
        (["application/jsonl"], Form.NDJSON),
        (["*/*;q=0.1, text/csv;q=0.2"], Form.CSV),
        (["application/json;q=0, */*"], Form.NDJSON),
        (["text/csv;q=nonsense, application/json;q=0.1"], Form.JSON),
        (["text/csv;q=2, application/json;q=0.1"], Form.JSON),
    ],
)
def test_the_form_that_is_liked_best_is_chosen(accept: list[str], form: Form) -> None:
    assert choose(accept) is form


@pytest.mark.parametrize("accept", [["image/png"], ["*/*;q=0"], ["text/csv;q=0"], ["text"]])
def test_who_likes_none_of_them_is_told_which_there_are(accept: list[str]) -> None:
    with pytest.raises(Refused) as raised:
        choose(accept)
    assert (raised.value.row.name, raised.value.row.status) == ("not_acceptable", 406)
    assert "text/csv" in raised.value.fields["hint"]


def test_only_what_is_offered_is_chosen() -> None:
    offered = frozenset({Form.JSON, Form.MARKDOWN})
    assert choose(["text/*"], offered=offered) is Form.MARKDOWN
    with pytest.raises(Refused) as raised:
        choose(["text/csv"], offered=offered)
    assert "text/csv" not in raised.value.fields["hint"]


@given(accept=st.lists(st.text(max_size=50), max_size=3))
def test_any_text_chooses_or_is_refused(accept: list[str]) -> None:
    with contextlib.suppress(Refused):
        assert choose(accept) in Form
