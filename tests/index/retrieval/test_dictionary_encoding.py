"""Values as codes: the same sequence."""

from index.retrieval.dictionary_encoding import DictionaryEncoded


def test_the_values_are_those_that_were_encoded() -> None:
    values = ["b", None, "a", "b", ""]
    encoded = DictionaryEncoded.of(values)
    assert encoded.codes.tolist() == [1, 0, 2, 1, 3]
    assert list(encoded) == values
    assert encoded[-1] == ""
    assert encoded[1:3] == [None, "a"]


def test_none_of_many_values_takes_no_memory() -> None:
    encoded: DictionaryEncoded[str] = DictionaryEncoded.of_none(1 << 40)
    assert len(encoded) == 1 << 40
    assert encoded[1 << 39] is None
