"""The report's figures and pages. Each module `draw`s one from a run's artifacts: picture(s) and the numbers behind it as CSV.

No torch here, and no state: `draw(run, out)` reads through `data.Run` and writes `out` + .svg, .png, .csv (pages: .html, .csv).
"""
