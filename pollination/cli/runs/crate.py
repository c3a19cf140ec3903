"""Describe an archive as a Workflow Run Crate 0.5: RO-Crate metadata that other tools read.

The profile: https://w3id.org/ro/wfrun/workflow/0.5. It extends RO-Crate 1.1. The metadata hold no
time of the run, because records hold none.
"""

import json
from dataclasses import dataclass

from pollination import __version__

METADATA = "ro-crate-metadata.json"
WORKFLOW = "workflow.smk"  # a copy of the project's Snakefile
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"  # defines sha256
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
FORMATS = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
    "yaml": "application/yaml",
    "md": "text/markdown",
    "txt": "text/plain",
}
NO_LICENCE = "#licence-not-stated"


@dataclass(frozen=True)
class Part:
    """A file of an archive: its path, size in bytes, digest, and what it is."""

    path: str
    size_bytes: int
    digest: str
    about: str


def metadata(
    name: str,
    description: str,
    date: str,
    licence: str | None,
    commit: str,
    parts: dict[str, list[Part]],
) -> bytes:
    """Return the metadata file of an archive.

    `date`: of publication, YYYY-MM-DD; `licence`: an SPDX identifier; `commit`: the code of the
    run; `parts`: results, inputs (with the config), records and others.
    """
    from rocrate.model.contextentity import ContextEntity  # loads slowly
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(CONTEXT)
    root = crate.root_dataset
    root["name"], root["description"], root["datePublished"] = name, description, date
    crate.metadata["conformsTo"] = [
        {"@id": "https://w3id.org/ro/crate/1.1"},
        {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
    ]
    root["conformsTo"] = [
        crate.add(
            ContextEntity(crate, link, {"@type": "CreativeWork", "name": title, "version": version})
        )
        for link, (title, version) in PROFILES.items()
    ]
    if licence:
        link, title, said = f"https://spdx.org/licenses/{licence}", licence, "SPDX licence"
    else:
        link, title = NO_LICENCE, "Licence not stated"
        said = "The exporter stated no licence, so none is granted."
    about = {"@type": "CreativeWork", "name": title, "description": said}
    root["license"] = crate.add(ContextEntity(crate, link, about))
    files = {
        kind: [crate.add_file(dest_path=part.path, properties=_properties(part)) for part in found]
        for kind, found in parts.items()
    }
    workflow = crate.add_workflow(dest_path=WORKFLOW, lang="snakemake")
    workflow["name"], workflow["version"] = "Snakefile of pollination", __version__
    workflow["description"] = f"The workflow at commit {commit}; its rules are in the repository"
    root["mainEntity"] = workflow
    action = ContextEntity(
        crate,
        "#run",
        {
            "@type": "CreateAction",
            "name": f"Computation of {name}",
            "description": f"snakemake --configfile config.yaml, with the code of commit {commit}",
            "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
        },
    )
    action["instrument"], action["object"] = workflow, files["inputs"]
    action["result"] = files["results"]
    root["mentions"] = [crate.add(action)]
    text = json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False)
    return f"{text}\n".encode()


def _properties(part: Part) -> dict[str, str]:
    end = part.path.rsplit(".", 1)[-1]
    return {
        "name": part.path,
        "description": part.about,
        "contentSize": str(part.size_bytes),
        "sha256": part.digest,
        "encodingFormat": FORMATS.get(end, "application/octet-stream"),
    }
