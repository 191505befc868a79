"""Tables of results: numbers, formats and files."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.audio_visual import AudioVisual
from utils.errors import InputError
from utils.evaluation.predictions import Predictions, load_predictions, save_predictions
from utils.method.metrics import F_SCORE_NAMES, confusion_matrix, segment_accuracy
from utils.reporting import tables as reports
from utils.reporting.published import published_methods, published_scores, published_value, table_number
from utils.reporting.tables import Cell, Column, Row, ScoreRow, Table


def scores(first: float) -> dict[str, float]:
    """Ten different scores, counting up."""
    return {name: first + i for i, name in enumerate(F_SCORE_NAMES)}


def parsing_table() -> Table:
    rows = [
        ScoreRow("UWAV", "test", [published_scores("table1_llp", "UWAV")], "published"),
        ScoreRow("UWAV", "test", [scores(50.0), scores(52.0), scores(54.0)], "simulated features"),
        ScoreRow("UWAV", "val", [scores(40.25)]),
    ]
    return reports.parsing_table("F-scores on LLP", rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- published numbers


def test_published_rows_have_the_papers_numbers_in_the_papers_order():
    uwav = published_scores("table1_llp", "UWAV")
    assert tuple(uwav) == F_SCORE_NAMES
    assert tuple(uwav.values()) == (64.2, 70.0, 63.4, 65.9, 63.9, 58.6, 66.7, 57.5, 60.9, 57.4)
    assert published_scores("table3_pseudo_label_quality_segment", "UWAV")["segment_V"] == 74.5
    assert published_scores("table_a7_training_data_segment", 60)["segment_Type"] == 64.8
    assert published_scores("table2_ave_accuracy", "UWAV") == {"accuracy": 80.6}
    assert published_value("table2_ave_accuracy", "UWAV") == 80.6
    assert published_value("table_a7_num_classes_segment_type", "UWAV", 20) == 71.4
    assert published_methods("table2_ave_accuracy") == ("HAN", "VALOR", "UWAV")


def test_every_published_parsing_row_is_complete():
    for table in ("table1_llp", "table4_a8_ablation", "table_a6_clip_clap_backbones"):
        assert all(tuple(published_scores(table, method)) == F_SCORE_NAMES for method in published_methods(table))


def test_tables_are_called_as_in_the_paper():
    assert table_number("table1_llp") == "Table 1" and table_number("table2_ave_accuracy") == "Table 2"


def test_a_number_that_the_paper_lacks_is_a_key_error():
    with pytest.raises(KeyError):
        published_scores("table1_llp", "nobody")
    with pytest.raises(KeyError):
        published_value("table1_llp", "UWAV")


# ---- cells and formats


def test_several_runs_give_mean_and_sample_standard_deviation():
    cell = Cell.over_runs([50.0, 52.0, 57.0])
    assert (cell.mean, cell.runs) == (53.0, 3)
    assert cell.std == pytest.approx(np.std([50.0, 52.0, 57.0], ddof=1))


def test_a_single_run_has_no_standard_deviation():
    assert Cell.over_runs([50.0]) == Cell(50.0, None, 1)


def table_of_two_rows() -> Table:
    """One run with an empty cell, and three runs with a text; groups narrower and wider than their columns."""
    columns = (
        Column("A", "Segment-level"),
        Column("V", "Segment-level"),
        Column("A", "A very wide heading"),
        Column("n", decimals=0),
    )
    one_run = (Cell(64.23), Cell(70.0), None, Cell(1200))
    three_runs = (Cell.over_runs([9.0, 10.0, 11.0]), Cell.over_runs([50.0, 52.0, 57.0]), "none", Cell(7))
    rows = (Row(("UWAV", "test"), one_run, "published"), Row(("UWAV", "val"), three_runs))
    return Table("Scores", ("Method", "Split"), columns, rows, ("F-scores in percent.",))


def test_text_has_every_number_below_its_heading():
    assert reports.format_text(table_of_two_rows()).splitlines() == [
        "Scores",
        "",
        "                          ----Segment-level-----   A very wide heading",
        "Method            Split            A           V                     A      n",
        "-----------------------------------------------------------------------------",
        "UWAV (published)  test    64.2        70.0                               1200",
        "UWAV (3 runs)     val     10.0 ± 1.0  53.0 ± 3.6                  none      7",
        "",
        "F-scores in percent.",
        "Mean ± standard deviation over runs.",
    ]


def test_text_and_markdown_without_groups_have_one_line_of_headings():
    row = Row(("a long name",), (Cell(1.0), Cell(-22.22)))
    table = Table("Plain", ("Class",), (Column("x"), Column("y", decimals=2)), (row,))
    assert reports.format_text(table).splitlines() == [
        "Plain",
        "",
        "Class           x       y",
        "-------------------------",
        "a long name   1.0  -22.22",
    ]
    assert reports.format_markdown(table).splitlines() == [
        "### Plain",
        "",
        "| Class | x | y |",
        "|---|---:|---:|",
        "| a long name | 1.0 | -22.22 |",
    ]


def test_markdown_has_every_number_below_its_heading():
    assert reports.format_markdown(table_of_two_rows()).splitlines() == [
        "### Scores",
        "",
        "| Method | Split | Segment-level |  | A very wide heading |  |",
        "|---|---|---:|---:|---:|---:|",
        "|  |  | **A** | **V** | **A** | **n** |",
        "| UWAV (published) | test | 64.2 | 70.0 |  | 1200 |",
        "| UWAV (3 runs) | val | 10.0 ± 1.0 | 53.0 ± 3.6 | none | 7 |",
        "",
        "F-scores in percent.",
        "",
        "Mean ± standard deviation over runs.",
    ]


def test_csv_has_every_number_below_its_heading():
    assert reports.format_csv(table_of_two_rows()).splitlines() == [
        "Method,Split,Note,Runs,Segment-level A,Segment-level A std,Segment-level V,Segment-level V std,"
        "A very wide heading A,n",
        "UWAV,test,published,1,64.23,,70,,,1200",
        "UWAV,val,,3,10,1,53,3.605551,none,7",  # variance ((50 - 53)² + (52 - 53)² + (57 - 53)²) / 2 = 13
    ]


def test_json_has_every_number_by_its_heading():
    content = json.loads(reports.format_json(table_of_two_rows()))
    assert content["notes"] == ["F-scores in percent.", "Mean ± standard deviation over runs."]
    assert content["rows"] == [
        {
            "labels": {"Method": "UWAV", "Split": "test"},
            "note": "published",
            "values": {
                "Segment-level A": {"mean": 64.23, "std": None, "runs": 1},
                "Segment-level V": {"mean": 70, "std": None, "runs": 1},
                "A very wide heading A": None,
                "n": {"mean": 1200, "std": None, "runs": 1},
            },
        },
        {
            "labels": {"Method": "UWAV", "Split": "val"},
            "note": "",
            "values": {
                "Segment-level A": {"mean": 10, "std": 1, "runs": 3},
                "Segment-level V": {"mean": 53, "std": pytest.approx(13**0.5), "runs": 3},
                "A very wide heading A": "none",
                "n": {"mean": 7, "std": None, "runs": 1},
            },
        },
    ]


def test_text_is_laid_out_like_table_1():
    lines = reports.format_text(parsing_table()).splitlines()
    assert lines[0] == "F-scores on LLP"
    assert lines[2].index("Segment-level") < lines[2].index("Event-level")
    assert lines[3].split() == ["Method", "Split", *["A", "V", "AV", "Type", "Event"] * 2]
    assert lines[5].startswith("UWAV (published)") and lines[5].split()[2:5] == ["test", "64.2", "70.0"]
    assert lines[6].startswith("UWAV (simulated features, 3 runs)") and "52.0 ± 2.0" in lines[6]
    assert lines[7].split() == ["UWAV", "val", *(f"{40.25 + i:.1f}" for i in range(10))]
    assert lines[-1] == "Mean ± standard deviation over runs."


def test_numbers_of_a_text_column_stand_under_each_other():
    lines = reports.format_text(parsing_table()).splitlines()
    points = [[i for i, character in enumerate(line[len("UWAV (simulated features, 3 runs)") :]) if character == "."]
              for line in lines[5:8]]  # fmt: skip
    with_deviation = points[1][::2]  # every second point belongs to a deviation
    assert points[0] == points[2] == with_deviation


def test_markdown_rows_have_as_many_cells_as_the_header():
    text = reports.format_markdown(parsing_table())
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table_lines} == {13}
    assert "| UWAV (published) | test | 64.2 | 70.0 | 63.4 | 65.9 | 63.9 | 58.6 |" in text


def test_markdown_escapes_bars_in_names():
    table = Table("t", ("Method",), (Column("x"),), (Row(("a|b",), (Cell(1.0),)),))
    assert "| a\\|b | 1.0 |" in reports.format_markdown(table)


def test_csv_and_json_hold_the_unrounded_numbers_and_the_notes(tmp_path: Path):
    reports.write_tables(tmp_path / "scores", parsing_table())
    published, simulated, val = read_csv(tmp_path / "scores.csv")
    assert (published["Note"], simulated["Note"], val["Note"]) == ("published", "simulated features", "")
    assert (simulated["Runs"], simulated["Event-level A"], simulated["Event-level A std"]) == ("3", "57", "2")
    assert (val["Segment-level A"], val["Segment-level A std"]) == ("40.25", "")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["title"] == "F-scores on LLP"
    assert content["rows"][1]["values"]["Segment-level Type"] == {"mean": 55.0, "std": 2.0, "runs": 3}
    assert content["rows"][0]["note"] == "published"


def test_four_files_are_written_and_a_dot_in_the_name_is_kept(tmp_path: Path):
    paths = reports.write_tables(tmp_path / "new" / "alpha_1.7", parsing_table())
    assert [path.name for path in paths] == [f"alpha_1.7.{kind}" for kind in ("txt", "md", "csv", "json")]
    assert sorted(os.listdir(tmp_path / "new")) == sorted(path.name for path in paths)


def test_tables_of_segment_rows_only_have_no_event_level():
    row = ScoreRow("UWAV", "val", [published_scores("table3_pseudo_label_quality_segment", "UWAV")], "published")
    assert [column.full_name for column in reports.parsing_table("Table 3", [row]).columns] == [
        f"Segment-level {name}" for name in ("A", "V", "AV", "Type", "Event")
    ]


def test_a_segment_row_among_full_rows_leaves_the_event_level_empty():
    segments = {name: 1.0 for name in F_SCORE_NAMES[:5]}
    rows = [ScoreRow("a", "test", [scores(1.0)]), ScoreRow("b", "test", [segments])]
    assert reports.parsing_table("t", rows).rows[1].cells[5:] == (None,) * 5


def test_a_row_that_does_not_fit_its_table_is_refused():
    with pytest.raises(ValueError, match="2 cells"):
        Table("t", ("Method",), (Column("x"),), (Row(("a",), (Cell(1.0), Cell(2.0))),))
    with pytest.raises(ValueError, match="2 labels"):
        Table("t", ("Method",), (Column("x"),), (Row(("a", "b"), (Cell(1.0),)),))


# ---- per class


def test_per_class_scores_pool_the_counts_of_all_videos():
    audible, visible, heard, seen = (torch.zeros(2, 4, 3, dtype=torch.bool) for _ in range(4))
    audible[0, :3, 0] = True  # class 0: one event of three segments in video 0, two of one segment in video 1
    audible[1, 0, 0] = audible[1, 2, 0] = True
    heard[0, :2, 0] = True  # 2 of 3 segments: the event is hit (IoU 2/3)
    heard[1, 3, 0] = True  # a wrong segment
    heard[0, 0, 1] = True  # class 1 never occurs, but is predicted; class 2 is neither
    visible[0, 2:, 0] = seen[0, 1:, 0] = True  # 2 of 3 segments again
    table = reports.per_class_scores(
        AudioVisual(heard, seen), AudioVisual(audible, visible), ["x", "y", "z"], note="simulated features"
    )
    values = {
        row.labels[0]: {c.full_name: cell and cell.mean for c, cell in zip(table.columns, row.cells, strict=True)}
        for row in table.rows
    }
    assert values["x"] == {
        "Segment-level F A": pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 3)),
        "Segment-level F V": pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 0)),
        "Segment-level F AV": 0,  # truly in segment 2, predicted in segment 1
        "True segments A": 5,
        "True segments V": 2,
        "True segments AV": 1,
        "Event-level F A": pytest.approx(100 * 2 * 1 / (2 * 1 + 1 + 2)),
        "Event-level F V": 100,
        "Event-level F AV": 0,
        "True events A": 3,
        "True events V": 1,
        "True events AV": 1,
        "Videos A": 2,
        "Videos V": 1,
        "Videos AV": 1,
    }
    assert values["y"]["Segment-level F A"] == 0 and values["y"]["True segments A"] == 0
    assert values["z"]["Segment-level F A"] is None and values["z"]["Event-level F AV"] is None


def test_a_class_without_occurrence_has_an_empty_csv_cell(tmp_path: Path):
    nothing = torch.zeros(1, 4, 1, dtype=torch.bool)
    path = reports.write_table(
        tmp_path / "c.csv",
        reports.per_class_scores(
            AudioVisual(nothing, nothing), AudioVisual(nothing, nothing), ["x"], note="simulated features"
        ),
    )
    (row,) = read_csv(path)
    assert row["Segment-level F A"] == "" and row["True segments A"] == "0" and row["Note"] == "simulated features"


# ---- AVE


def ave_labels(labels: list[list[int]], num_classes: int = 2) -> torch.Tensor:
    """Label indices, background last, to (N, T, C) bool."""
    return torch.nn.functional.one_hot(torch.tensor(labels), num_classes + 1)[..., :num_classes].bool()


def test_the_confusion_matrix_counts_segments_with_the_truth_in_rows():
    truth, prediction = ave_labels([[0, 0, 2], [1, 2, 2]]), ave_labels([[0, 1, 2], [1, 0, 2]])
    assert confusion_matrix(prediction, truth).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_a_segment_of_two_classes_has_no_place_in_the_confusion_matrix():
    single = ave_labels([[0, 0]])
    double = single.clone()
    double[0, 1] = True
    for pair in ((single, double), (double, single)):
        with pytest.raises(ValueError, match="several classes"):
            confusion_matrix(*pair)


def test_per_class_accuracy_is_recall_and_its_total_the_data_sets_accuracy():
    truth, prediction = ave_labels([[0, 0, 3], [0, 3, 3]], 3), ave_labels([[0, 1, 3], [0, 0, 3]], 3)
    matrix = confusion_matrix(prediction, truth)
    table = reports.per_class_accuracy(matrix, ["x", "y", "z"])
    accuracy = {row.labels[0]: row.cells[0] and row.cells[0].mean for row in table.rows}
    assert accuracy["x"] == accuracy["background"] == pytest.approx(200 / 3)
    assert accuracy["y"] is None  # never true
    assert accuracy["all"] == pytest.approx(segment_accuracy(prediction, truth))
    counts = {row.labels[0]: [cell.mean for cell in row.cells[1:]] for row in table.rows}  # right, true, predicted
    assert counts == {"x": [2, 3, 3], "y": [0, 0, 1], "z": [0, 0, 0], "background": [2, 3, 2], "all": [4, 6, 6]}


def test_the_confusion_table_has_the_truth_in_rows():
    table = reports.confusion_table(torch.tensor([[2, 1, 0], [0, 3, 0], [4, 0, 5]]), ["x", "y"])
    assert [column.full_name for column in table.columns] == ["Predicted x", "Predicted y", "Predicted background"]
    assert {row.labels[0]: [cell.mean for cell in row.cells] for row in table.rows} == {
        "x": [2, 1, 0],
        "y": [0, 3, 0],
        "background": [4, 0, 5],
    }


def test_the_accuracy_table_sets_runs_beside_the_published_value():
    ours = ScoreRow("UWAV", "test", [{"accuracy": 79.0}, {"accuracy": 81.0}], "simulated features")
    published = ScoreRow("UWAV", "test", [published_scores("table2_ave_accuracy", "UWAV")], "published")
    table = reports.accuracy_table("AVE", [published, ours])
    text = reports.format_text(table)
    assert "UWAV (published)" in text and "80.0 ± 1.4" in text


# ---- kept predictions


def predictions(split: str = "test") -> Predictions:
    audio, visual, *truth = np.random.default_rng(0).random((4, 3, 10, 2)) < 0.5
    names = (("Speech", "Frying_(food)"), ("a", "ö_0_10", "c"))
    return Predictions("LLP", split, *names, AudioVisual(audio, visual), AudioVisual(*truth))


def test_predictions_come_back_as_they_were_saved(tmp_path: Path):
    saved = predictions("val")
    assert save_predictions(tmp_path, saved) == tmp_path / "predictions_val.npz"
    loaded = load_predictions(tmp_path, "val")
    for name, value in vars(saved).items():
        assert np.array_equal(getattr(loaded, name), value), name
    assert loaded.events.audio.dtype == np.bool_ and loaded.sample_ids == saved.sample_ids


@pytest.mark.parametrize("keep", [0, 40, -100])
def test_damaged_predictions_are_reported_with_their_path(tmp_path: Path, keep: int):
    path = save_predictions(tmp_path, predictions())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"predictions_test\.npz"):
        load_predictions(tmp_path, "test")


def test_predictions_without_a_key_or_of_another_shape_are_reported(tmp_path: Path):
    path = save_predictions(tmp_path, predictions())
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{key: array for key, array in arrays.items() if key != "visual"})
    with pytest.raises(InputError, match="visual"):
        load_predictions(tmp_path, "test")
    np.savez(path, **arrays | {"visual": arrays["visual"][:, :5]})
    with pytest.raises(InputError, match=r"\(3, 5, 2\)"):
        load_predictions(tmp_path, "test")
