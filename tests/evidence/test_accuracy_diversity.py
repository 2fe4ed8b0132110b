"""Several interests are held against one of the same encoder, settings and seeds."""

import csv
from pathlib import Path

import pytest

from tests.evidence.accuracy_diversity import plot, points_of

HEADER = ["system", "seed", "distinct_share", "recall@50", "ndcg@50", "minor_recall@50"]


def write_results(folder: Path, *rows: tuple[str, int, float | str, float, float | str]) -> Path:
    folder.mkdir()
    with (folder / "compare.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(
            [system, seed, share, recall, 0.1, minor] for system, seed, share, recall, minor in rows
        )
    return folder


def test_a_point_is_a_change_against_one_interest_over_the_seeds_of_both(tmp_path: Path) -> None:
    folder = write_results(
        tmp_path / "log",
        ("pop", 0, "", 0.05, ""),
        ("transformer", 0, 1.0, 0.2, 0.1),
        ("transformer", 1, 1.0, 0.3, 0.1),
        ("transformer:interests=8;objective=served-max", 0, 0.4, 0.22, 0.08),
        ("transformer:interests=8;objective=served-max", 1, 0.6, 0.33, 0.08),
        ("transformer:interests=8;objective=served-max", 2, 0.9, 0.9, 0.9),
    )
    (point,) = points_of(folder)
    assert (point.log, point.encoder, point.seeds) == ("log", "transformer", 2)
    assert point.share == pytest.approx(0.5)
    assert point.changes == pytest.approx({"recall@50": 0.1, "ndcg@50": 0, "minor_recall@50": -0.2})
    plot([point], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_re4_has_eight_interests_unless_told(tmp_path: Path) -> None:
    folder = write_results(
        tmp_path / "log", ("re4", 0, 0.2, 0.2, ""), ("re4:interests=1", 0, 1.0, 0.25, "")
    )
    (point,) = points_of(folder)
    assert point.system == "re4"
    assert point.changes["recall@50"] == pytest.approx(-0.2)


def test_a_system_without_its_counterpart_is_left_out(tmp_path: Path) -> None:
    folder = write_results(
        tmp_path / "log",
        ("transformer:layers=2", 0, 1.0, 0.2, ""),
        ("transformer:interests=8", 0, 0.4, 0.22, ""),
        ("linear", 1, 1.0, 0.2, ""),
        ("linear:interests=4", 0, 0.4, 0.22, ""),
    )
    assert list(points_of(folder)) == []
