"""Releases whose index is a collection: built, gated, published, rolled back, pruned, verified."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from index.__main__ import main
from index.ann.milvus import MilvusIndex
from index.ann.milvus_engine import ALIAS, MilvusEngine
from index.release.build import build
from index.release.collections import collection_of
from index.release.errors import ReleaseError
from index.release.listing import verify
from index.release.manifest import INDEX, read_manifest
from index.release.publish import prune, publish, rollback
from index.release.reading import open_release, read_current
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Query

pytest.importorskip("pymilvus")
MakeDraft = Callable[..., Path]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusEngine]:
    engine = MilvusEngine(str(tmp_path_factory.mktemp("milvus") / "items.db"))
    yield engine
    engine.close()


def collections(engine: MilvusEngine, folder: Path) -> tuple[str, list[str]]:
    """The collection of a release or draft, and all that there are."""
    spec = collection_of(read_manifest(folder))
    assert spec is not None
    return spec.collection, engine._client._call("list_collections")


def current(engine: MilvusEngine) -> str | None:
    return engine.target(ALIAS)


def test_from_draft_to_release_and_back(
    engine: MilvusEngine, make_draft: MakeDraft, tmp_path: Path
) -> None:
    drafts = [make_draft(name) for name in ("one", "two", "three")]
    exact = [open_release(draft).retriever for draft in drafts]
    for draft in drafts:
        manifest = build(draft, 0.9, 20, engine=engine)
        assert manifest.index is not None
        assert manifest.index.recall >= 0.9
        assert not (draft / INDEX).exists()
        assert INDEX not in manifest.files
    releases = [publish(draft, keep=1, engine=engine) for draft in drafts[:2]]
    names = [collections(engine, release)[0] for release in releases]
    assert current(engine) == names[1]
    opened = open_release(releases[1], engine=engine)
    assert opened.searches_elsewhere
    queries = [
        Query(["item-3", "item-9"], 10),
        Query(["item-3"], 10, categories=CategoryFilter(allow=["category 1"]), diversity=0.5),
        Query(["item-4"], 10, exclude=["item-1", "item-2"], measure_overlap=True),
        Query([], 10),
    ]
    found = opened.retriever.recommend(queries, withdrawn=frozenset({5, 6}))
    expected = exact[1].recommend(queries, withdrawn=frozenset({5, 6}))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert np.allclose(ours.scores, theirs.scores, atol=1e-5)
        assert ours.overlap == theirs.overlap
    similar, nearest = (each.similar("item-7", 5) for each in (opened.retriever, exact[1]))
    assert similar is not None
    assert nearest is not None
    assert similar[0].tolist() == nearest[0].tolist()
    del opened  # an open release is not pruned

    assert rollback(tmp_path, engine=engine) == releases[0]
    assert (read_current(tmp_path), current(engine)) == ("one", names[0])
    assert [result.problem for result in verify(tmp_path, engine=engine)] == [None, None]

    third = publish(drafts[2], keep=1, engine=engine)  # its parent is "one", and "two" is old
    assert sorted(release.name for release in (tmp_path / "releases").glob("[!.]*")) == [
        "one",
        "three",
    ]
    kept, there = collections(engine, third)
    assert {kept, *names} <= set(there)  # the draft "two" still names its collection


def test_without_an_engine_such_a_release_is_refused_and_stays(
    engine: MilvusEngine, make_draft: MakeDraft, tmp_path: Path
) -> None:
    draft = make_draft("remote")
    build(draft, 0.9, 20, engine=engine)
    publish(draft, engine=engine)
    with pytest.raises(ReleaseError, match="give --engine milvus and --engine-uri"):
        open_release(tmp_path / "releases" / "remote")
    for name in ("later", "last"):
        publish(make_draft(name), keep=1)
    publish(make_draft("newest"), keep=1)
    assert prune(tmp_path, 1) == []
    assert (tmp_path / "releases" / "remote").exists()
    (draft / "manifest.json").unlink()
    collection, _ = collections(engine, tmp_path / "releases" / "remote")
    assert prune(tmp_path, 1, engine) == ["remote"]
    assert collection not in engine._client._call("list_collections")


def test_the_alias_goes_back_if_the_collection_is_not_right_in_time(
    engine: MilvusEngine,
    make_draft: MakeDraft,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("index.ann.milvus_engine._SWITCH_TIMEOUT_S", 0.3)
    first, second = make_draft("first"), make_draft("second")
    for draft in (first, second):
        build(draft, 0.9, 20, engine=engine)
    publish(first, engine=engine)
    before = current(engine)

    def stale(spec: object, vectors: object) -> MilvusIndex:
        """What the alias gives for a moment after a switch: the collection before."""
        held = collection_of(read_manifest(first))
        assert held is not None
        return MilvusIndex(
            engine._client, held, open_release(second, engine=engine).retriever.vectors
        )

    opened = open_release(second, engine=engine)
    spec = collection_of(opened.manifest)
    assert spec is not None

    def never(index: MilvusIndex) -> None:
        stale(spec, None).search(np.ones((1, 1, 8), np.float32), 3)

    with pytest.raises(Exception, match="does not hold this release's vectors"):
        engine.make_current(spec, opened.retriever.vectors, never)
    assert current(engine) == before
    assert read_current(tmp_path) == "first"


def test_a_draft_that_was_published_with_files_becomes_a_release_of_its_own(
    engine: MilvusEngine, make_draft: MakeDraft, tmp_path: Path
) -> None:
    draft = make_draft("both")
    publish(draft)
    build(draft, 0.9, 20, engine=engine)
    assert publish(draft, engine=engine).name == "both-2"
    assert rollback(tmp_path, engine=engine).name == "both"
    assert not open_release(tmp_path / "releases" / "both").searches_elsewhere


def test_a_collection_that_lacks_items_is_refused(
    engine: MilvusEngine, make_draft: MakeDraft
) -> None:
    draft = make_draft("lacking")
    build(draft, 0.9, 20, engine=engine)
    name, _ = collections(engine, draft)
    engine._client._call("delete", name, ids=[1, 2])
    with pytest.raises(ReleaseError, match=r"has 38 of 40 items; build it again"):
        publish(draft, engine=engine)
    build(draft, 0.9, 20, engine=engine)
    publish(draft, force=True, engine=engine)


def test_a_recall_that_no_effort_reaches_is_refused(
    engine: MilvusEngine, make_draft: MakeDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.ann.milvus_engine.Sample.measure", lambda *_: (0.5, 10.0))
    draft = make_draft("poor")
    with pytest.raises(ReleaseError, match=r"reaches a recall of 0[.]5000, and 0[.]9 is wanted"):
        build(draft, 0.9, 20, engine=engine)
    assert (draft / INDEX).exists()


def test_the_command_line(
    make_draft: MakeDraft, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft, at = str(make_draft("told")), ["--engine", "milvus", "--engine-uri", f"{tmp_path}/m.db"]
    main(["build", draft, "--engine-index", "FLAT", *at])
    main(["publish", draft, *at])
    main(["verify", "--root", str(tmp_path), *at])
    assert "told: sound" in capsys.readouterr().out
    for words, message in (
        (["--engine", "milvus"], "--engine milvus needs the URI"),
        (["--engine-uri", "http://secret"], "is of --engine milvus"),
        (["--engine", "milvus", "--engine-uri", "secret"], "give http://HOST"),
    ):
        with pytest.raises(SystemExit):
            main(["verify", "--root", str(tmp_path), *words])
        told = capsys.readouterr().err
        assert message in told
        assert "secret" not in told
