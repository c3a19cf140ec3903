"""The first own run of the README works as it stands."""

import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT, snakemake


@pytest.mark.slow
def test_the_config_of_the_readme_runs_as_it_stands(tmp_path):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.split("## Your own text, your own model")[1].split("\n## ")[0]
    (config,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", section)
    typed = [
        line
        for block in re.findall(r"(?ms)^```bash\n(.*?)^```", section)
        for line in block.splitlines()
    ]
    assert len(config.splitlines()) <= 20
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=lambda *_: ["pictures"])
    (gather,) = [line for line in typed if line.startswith("cat ")]
    subprocess.run(gather, shell=True, check=True, cwd=tmp_path)
    (tmp_path / "my_run.yaml").write_text(config, encoding="utf-8")
    run = "snakemake --profile profiles/local --configfile my_run.yaml"
    assert run in typed and "`results/my_run/report/index.html`" in section
    snakemake(tmp_path, configfile=tmp_path / "my_run.yaml")
    scores = sorted(tmp_path.glob("results/my_run/*/gen3/member0/scores.json"))
    assert [path.parts[-4] for path in scores] == ["half_human_text", "own_text_only"]
    said = (tmp_path / "results/my_run/report/index.html").read_text(encoding="utf-8")
    assert "lowest perplexity, averaged over 4 rounds" in said
