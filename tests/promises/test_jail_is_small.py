"""The promise: the code that a tenant's bytes meet after the fork can be read in one sitting."""

import tokenize

from tests.handles import ROOT

#: In reading order, as sandbox/README.md names them.
_AFTER_THE_FORK = [
    "cell",
    "jail",
    "limits",
    "kernel",
    "gate",
    "engine",
    "sqlite",
    "calls",
    "forms",
    "parameters",
    "tokens",
    "statements",
    "failures",
    "ours",
    "repair",
    "names",
    "dialects",
    "receipts",
    "stats",
    "plans",
    "porter",
    "schema",
    "dump",
    "intake",
    "inspection",
    "readers",
    "columns",
    "separated",
    "documents",
    "policy",
    "blocklist",
    "answers",
    "encoders",
    "rows",
    "refusal",
    "codes",
    "leash",
    "descriptors",
    "frames",
    "errors",
]
_MOST_LINES = 3850
#: What the wall is made of: whoever takes a cell over from SQL has the rest already.
_WALL = ("cell", "jail", "limits", "kernel", "leash", "descriptors", "frames", "errors")
_MOST_LINES_OF_THE_WALL = 680
_MOST_LINES_A_MODULE = 300


def _lines_of_code(name: str) -> int:
    """Lines with code on them: no blank ones, no comments, no docstrings."""
    lines = set()
    with (ROOT / "sandbox" / f"{name}.py").open("rb") as file:
        before = tokenize.NEWLINE
        for token in tokenize.tokenize(file.readline):
            docstring = token.type == tokenize.STRING and before in (
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.NL,
            )
            if token.type not in (
                tokenize.COMMENT,
                tokenize.NL,
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.DEDENT,
                tokenize.ENCODING,
                tokenize.ENDMARKER,
            ):
                if not docstring:
                    lines.update(range(token.start[0], token.end[0] + 1))
                before = token.type
            elif token.type in (tokenize.NEWLINE, tokenize.INDENT):
                before = token.type
    return len(lines)


def test_all_of_it_together() -> None:
    counts = {name: _lines_of_code(name) for name in _AFTER_THE_FORK}
    assert sum(counts.values()) <= _MOST_LINES, counts


def test_the_wall_itself() -> None:
    assert sum(map(_lines_of_code, _WALL)) <= _MOST_LINES_OF_THE_WALL


def test_each_module() -> None:
    for name in _AFTER_THE_FORK:
        assert _lines_of_code(name) <= _MOST_LINES_A_MODULE, name


def test_the_readme_names_them_in_this_order() -> None:
    text = (ROOT / "sandbox" / "README.md").read_text()
    order = text.split("## Reading order", 1)[1]
    assert [
        name
        for name in order.replace("`", " ").replace(",", " ").split()
        if name in set(_AFTER_THE_FORK)
    ] == _AFTER_THE_FORK
