"""Compare runs by one measure, as a page and a table.

The page FOLDER/comparison.html needs no other file. It has the measure in the
last common generation against a key of the config, the trajectories side by side
with confidence intervals, and the settings that differ. comparison.csv has the
numbers. The runs may be unfinished.

`pollination diff` compares the files of two runs by digest.

Exit status:
  0: the page is written
  2: the command could not run (for example, the runs have no measure in common)
"""

from pathlib import Path

from pollination.cli.common import table

EXAMPLE = "pollination compare results/a results/b --measure knowledge --against mutate.scale"


def add_arguments(parser) -> None:
    parser.add_argument("folders", metavar="RUN", nargs="+", help="folders of runs, results/{run}")
    parser.add_argument(
        "--measure",
        metavar="KEY",
        help="a measure of all runs, or a part of its name, e.g. perplexity (default: the accuracy "
        "that selects parents, or else the first measure)",
    )
    parser.add_argument(
        "--against",
        metavar="CONFIGKEY",
        help="a key of an experiment, e.g. train.learning_rate, or of the config, e.g. "
        "founders.human.train.tokens (default: the runs side by side)",
    )
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        default="comparison",
        help="folder of the page and the table (default: %(default)s)",
    )


def run(arguments) -> int:
    from pollination.analysis.frames import load_run  # loads pandas, so not for `--help`
    from pollination.figures.runs import compare, left_out

    folders = {Path(folder).resolve(): folder for folder in reversed(arguments.folders)}
    loaded = [load_run(folder) for folder in reversed(folders.values())]
    names = [one.config["run"] for one in loaded]
    runs = {
        name if names.count(name) == 1 else str(one.folder): one
        for name, one in zip(names, loaded, strict=True)
    }
    out = Path(arguments.into, "comparison")
    rows = compare(runs, arguments.measure, arguments.against, out)
    ends = rows.loc[rows.groupby(["run", "experiment"], sort=False).generation.idxmax()]
    headings = ("run", "experiment", "generation", "mean", "low", "high")
    lines = [
        (*(row[key] for key in headings[:3]), *(f"{row[key]:.4g}" for key in headings[3:]))
        for row in ends.to_dict("records")
    ]
    print(f"{rows.measure.iloc[0]} ({rows.unit.iloc[0]}):", *table([headings, *lines], 2), sep="\n")
    for label, one in runs.items():
        for group in left_out(rows, label, one):
            print(f"Left out: {group} of {label}; not all of its members have this measure.")
    print(f"The page is {out}.html; its numbers are in {out}.csv.")
    return 0
