import pytest

from tests.watermark.formats.foreign_vectors import cases, check
from watermark.formats.tgi import Tgi


@pytest.mark.parametrize(("fields", "key", "vector"), cases("tgi"))
def test_words_are_those_of_its_own_code(fields, key, vector):
    check(Tgi(**fields), key, vector)
