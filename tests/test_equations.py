"""Each equation and algorithm of the paper has its line in the paper's room, and docs/equations.md says which."""

import equations


def test_every_equation_of_the_paper_has_a_line_and_no_comment_names_another():
    assert equations.places().keys() == equations.NAMED.keys()


def test_the_table_of_equations_is_that_of_the_code():
    assert equations.PAGE.read_text(encoding="utf-8") == equations.page(), "run `make equations`"
