"""The gate against popularity, and against interests that retrieve the same items."""

from collections.abc import Callable
from pathlib import Path

import pytest

from index.__main__ import main
from index.release.gate import Gate, collapse_warnings
from index.release.manifest import Manifest, read_manifest, write_manifest
from index.release.publish import publish

MakeDraft = Callable[..., Path]


def changed(draft: Path, **changes: object) -> Manifest:
    manifest = read_manifest(draft).model_copy(update=changes)
    write_manifest(draft, manifest)
    return manifest


def with_popularity(
    draft: Path, own: float, popular: float | None, recent: float | None, split: str = "validation"
) -> Manifest:
    values = {split: own, f"{split}_popular": popular, f"{split}_recent": recent}
    metrics = {name: {"recall@50": v} for name, v in values.items() if v is not None}
    return changed(draft, metrics=metrics)


@pytest.mark.parametrize("split", ["validation", "night"])
@pytest.mark.parametrize(
    ("own", "popular", "recent", "refused"),
    [
        (0.2, 0.1, 0.15, []),
        (0.2, 0.2, 0.2, []),  # as good is good enough
        (0.2, 0.21, 0.1, ["of popularity on"]),
        (0.2, 0.1, 0.21, ["of the popularity of the last weeks on"]),
        (0.2, 0.3, 0.3, ["of popularity on", "of the popularity of the last weeks on"]),
        (0.2, 0.3, None, ["of popularity on"]),
        (0.2, None, None, []),  # a draft from before both were measured
    ],
)
def test_a_first_release_below_popularity_is_refused(
    make_draft: MakeDraft,
    split: str,
    own: float,
    popular: float | None,
    recent: float | None,
    refused: list[str],
) -> None:
    manifest = with_popularity(make_draft(), own, popular, recent, split)
    failures = Gate().failures(manifest, None)
    assert len(failures) == len(refused)
    for failure, words in zip(failures, refused, strict=True):
        assert failure.startswith(f"recall@50 ({split}) is 0.2000, below the 0.")
        assert words in failure


def test_a_share_below_popularity_can_be_allowed(make_draft: MakeDraft) -> None:
    manifest = with_popularity(make_draft(), 0.19, 0.2, 0.2)
    assert Gate(popularity_drop=0.051).failures(manifest, None) == []
    assert len(Gate(popularity_drop=0.049).failures(manifest, None)) == 2


def test_publish_refuses_and_can_be_forced(
    make_draft: MakeDraft, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = make_draft()
    with_popularity(draft, 0.2, 0.21, 0.1)
    with pytest.raises(SystemExit) as ended:
        main(["publish", str(draft)])
    assert ended.value.code == 1
    assert "below the 0.2100 of popularity on the same users" in capsys.readouterr().err
    assert not (draft.parent.parent / "current").exists()
    main(["publish", str(draft), "--force"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("releases/first")


def with_share(draft: Path, share: float, name: str = "distinct_share") -> Manifest:
    return changed(draft, metrics={"validation": {"recall@50": 0.2, name: share}})


@pytest.mark.parametrize("name", ["distinct_share", "interest_union"])
def test_a_collapse_is_a_warning_and_no_refusal(
    make_draft: MakeDraft, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """K = 3: a third is none, half is a quarter of the way to 1."""
    draft = make_draft()
    assert collapse_warnings(with_share(draft, 0.51, name)) == []
    (sentence,) = collapse_warnings(with_share(draft, 0.49, name))
    assert "its 3 interests retrieve about the same items: 49.0% of their lists" in sentence
    main(["publish", str(draft)])
    printed = capsys.readouterr()
    assert f"warning: {sentence}" in printed.err
    assert printed.out.splitlines()[-1].endswith("releases/first")


def test_one_interest_is_no_collapse(make_draft: MakeDraft) -> None:
    manifest = with_share(make_draft(), 1.0)
    arguments = {**manifest.encoder.arguments, "interests": 1}
    encoder = manifest.encoder.model_copy(update={"arguments": arguments})
    one = manifest.model_copy(update={"encoder": encoder})
    assert collapse_warnings(one) == []
    assert Gate(distinct_share=1.0).failures(one, None) == []


def test_a_release_without_the_measurement_passes(make_draft: MakeDraft) -> None:
    manifest = read_manifest(make_draft())
    assert collapse_warnings(manifest) == []
    assert Gate(distinct_share=0.5).failures(manifest, None) == []


def test_a_bound_refuses(make_draft: MakeDraft, capsys: pytest.CaptureFixture[str]) -> None:
    draft = make_draft()
    with_share(draft, 0.49)
    with pytest.raises(SystemExit):
        main(["publish", str(draft), "--distinct-share", "0.5"])
    error = capsys.readouterr().err
    assert "3 interests have a distinct share of 0.490, below the required 0.5" in error
    publish(draft, Gate(distinct_share=0.49))
