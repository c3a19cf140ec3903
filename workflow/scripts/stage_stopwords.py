"""Stage NLTK's English stopwords, one per line."""

import tempfile

from pollination.core import artifacts
from pollination.core.job import Job

with Job(snakemake, online=True) as job:
    import nltk

    with tempfile.TemporaryDirectory() as folder:
        if not nltk.download("stopwords", download_dir=folder, quiet=True):
            raise ValueError(
                "count.stopwords: the download of NLTK's list failed. Run this on a machine with a "
                "network, or set count.stopwords: snowball"
            )
        nltk.data.path.insert(0, folder)
        words = sorted(nltk.corpus.stopwords.words("english"))
    with artifacts.atomic(job.output.stopwords) as temporary:
        temporary.write_text("\n".join(words) + "\n", encoding="utf-8")
