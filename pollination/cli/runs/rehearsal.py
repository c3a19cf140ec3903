"""Rehearse the preparation of a run in a temporary folder: all that is known without training.

The functions of the run's own jobs read the local text, build corpora, tokenizers and models, stage
benchmarks, pack tokens and cut segments. Nothing is downloaded, trained or written to results/.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import set_verbosity_error

from pollination.analysis.cost.needs import founders
from pollination.analysis.cost.texts import Texts
from pollination.core import artifacts, userfile
from pollination.data import contamination, corpora, tokens
from pollination.data.mixture import place
from pollination.evaluation.embeddings import stage_encoder
from pollination.evaluation.requests import write_requests
from pollination.evaluation.tasks import stage_task
from pollination.evaluation.template_data import fetch
from pollination.models import checkpoint
from pollination.models.completion import prompt_limit
from pollination.models.contract import settle
from pollination.models.dropout import Dropout
from pollination.plan import inputs, synthetic
from pollination.plan.config.resolve import own_functions
from pollination.plan.config.weights import tensors
from pollination.plan.corpora import kind_of
from pollination.plan.jobs import jobs
from pollination.plan.layout import model_of
from pollination.plan.plan import Plan
from pollination.plan.semantics import encoder_files, semantics_setting

MOST_TOKENS = 10_000_000  # of a corpus that is built and tokenised here, about half a minute
MOST_WEIGHTS = 500_000_000  # parameters of a pretrained model that is loaded here
MOST_PARAMETERS = 50_000_000  # of a new model that reads one block here

SECTIONS = ("corpora.", "models.", "founders.", "tasks.", "evaluate.", "experiments.")


class Rehearsal:
    """What a rehearsal found: `mistakes`, one line each beginning with a key, and `unchecked`."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        torch.set_num_threads(plan.config["cpu_threads"])  # as in jobs: more wait for each other
        self.plan = Plan(plan.config, str(folder))
        self.folder, self.say = folder, say
        self.mistakes: list[str] = []
        self.unchecked: list[str] = []
        self.warnings: list[str] = []
        self.outlines: dict[str, Any] = {}
        self.counted: set[str] = set()  # pools whose text was counted for all founders
        self.needed: dict[str, list[tuple[str, ...]]] = {}
        for work in jobs(self.plan):
            path = work.output.removeprefix(f"{folder}/")
            self.needed.setdefault(work.kind.rule, []).append(tuple(path.split("/")))

    def run(self) -> None:
        set_verbosity_error()
        with self._heard():
            self._tasks("lm_eval")
            self._corpora()
            self._tasks("microworld")
            self._models()
            self._packed()
            self._founders()
            self._requests()
            self._overlaps()
            self._prompts()
            self._functions()
            self._encoder()
        for name in self.plan.config["fingerprint"]:
            self.unchecked.append(f"fingerprint.{name}: its texts are read by its jobs")
        for name, experiment in self.plan.config["experiments"].items():
            if experiment["human"]["fraction"] > 0:
                self.unchecked.append(
                    f"experiments.{name}.human.fraction: the number of blocks that it replaces "
                    "depends on the text that the models write"
                )

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Collect the warnings that the jobs' functions log."""
        log, heard = logging.getLogger("pollination"), self.warnings

        class Ear(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.levelno >= logging.WARNING:
                    heard.append(record.getMessage())

        before, log.propagate = log.propagate, False
        ear = Ear()
        log.addHandler(ear)
        try:
            yield
        finally:
            log.removeHandler(ear)
            log.propagate = before

    def _try(self, key: str, function: Callable, *arguments: Any) -> Any:
        """Call a function of a job. Return True or its result; None after a mistake of `key`."""
        try:
            result = function(*arguments)
        except (ValueError, OSError) as error:
            said = str(error).replace(f"{self.folder}/", "")
            self.mistakes.append(said if said.startswith(SECTIONS) else f"{key}: {said}")
            return None
        return True if result is None else result

    def _has(self, *path: str) -> bool:
        return self.folder.joinpath(*path).exists()

    def _names(self, rule: str, part: int = 1) -> list[str]:
        return list(dict.fromkeys(path[part] for path in self.needed.get(rule, ())))

    # One step for each kind of job

    def _tasks(self, kind: str) -> None:
        for name in self._names("stage_task"):
            spec = self.plan.config["tasks"][name]
            world = self.folder / "corpora" / spec.get("corpus", "")
            if spec["kind"] != kind or (kind == "microworld" and not world.is_dir()):
                continue
            self.say(f"benchmark {name}")
            seed, folder = self.plan.config["evaluation_seed"], self.folder / "tasks" / name
            corpus = world if kind == "microworld" else None
            try:
                stage_task(spec, folder, seed, corpus)
            except ValueError as error:
                if _is_from(error, fetch):
                    self.unchecked.append(f"tasks.{name}: its questions are on the hub")
                else:
                    said = str(error).removeprefix("tasks: ")
                    self.mistakes.append(f"tasks.{name}: {said}")
            except OSError as error:
                self.mistakes.append(f"tasks.{name}: {error}")

    def _corpora(self) -> None:
        estimates = Texts(self.plan)
        names = self._names("build_corpus")
        for name in sorted(names, key=lambda name: kind_of(self.plan, name).joined):
            spec, kind = self.plan.config["corpora"][name], kind_of(self.plan, name)
            if kind.joined:
                if not all(self._has("corpora", part) for part in spec["corpora"]):
                    self.unchecked.append(f"corpora.{name}: it joins text that is not known here")
                    continue
            elif kind.written or kind.stager:
                where = "on the hub" if kind.stager else "written by the run"
                self.unchecked.append(f"corpora.{name}: its text is {where}")
                continue
            elif (count := sum(estimates.corpus(name).values())) > MOST_TOKENS:
                self.unchecked.append(
                    f"corpora.{name}: its text is too long to count here (about {count:,.0f} "
                    f"tokens; at most {MOST_TOKENS:,} are read)"
                )
                continue
            self.say(f"corpus {name}")
            questions = inputs.removed_questions(self.plan, name)
            asked = [Path(path) for path in questions if Path(path).exists()]
            if self._try(
                f"corpora.{name}",
                corpora.build_corpus,
                spec,
                self.plan.config["data_seed"],
                self.folder / "corpora" / name,
                [Path(path) for path in inputs.corpus_sources(self.plan, name)],
                contamination.read_questions(asked),
            ) and len(asked) < len(questions):
                self.unchecked.append(
                    f"corpora.{name}.on_overlap: some benchmarks are not known here"
                )

    def _models(self) -> None:
        names = self._names("prepare_model")
        started = [n for n in names if isinstance(self._model(n)["pretrained"], dict)]
        for name in [name for name in names if name not in started] + started:
            self.say(f"model {name}")
            spec, folder = self._model(name), self.folder / "models" / name
            if name in started:
                first = model_of(self.plan, f"founders/{spec['pretrained']['founders']}", 0)
                self._tokenizer(name, {"kind": "pretrained", "source": str(folder.parent / first)})
                self.outlines[name] = self.outlines.get(first)
            elif spec["pretrained"]:
                self._pretrained(name, spec, folder)
            else:
                self._new(name, spec, folder)
            if self.outlines.get(name) is not None:
                self._try(f"models.{name}", self._limits, name)

    def _model(self, name: str) -> dict:
        return self.plan.config["models"][name]

    def _tokenizer(self, name: str, spec: dict) -> bool:
        """Make a model's tokenizer if its source is here."""
        corpus = self.folder / "corpora" / spec["corpus"] if spec["kind"] != "pretrained" else None
        folder = self.folder / "models" / name
        source = spec.get("source", "")
        if corpus is not None and not corpus.is_dir():
            return False
        if corpus is None and not Path(source).expanduser().is_dir():
            if source.startswith(str(self.folder)):  # the founder's tokenizer is not known
                return False
            try:  # a name on the hub may be in the local cache
                tokens.make_tokenizer(spec, None, folder, 0)
            except ValueError:
                self.unchecked.append(f"models.{name}: its tokenizer {source!r} is on the hub")
                return False
            return True
        seed = self.plan.config["data_seed"]
        return bool(
            self._try(f"models.{name}.tokenizer", tokens.make_tokenizer, spec, corpus, folder, seed)
        )

    def _new(self, name: str, spec: dict, folder: Path) -> None:
        made = self._tokenizer(name, spec["tokenizer"])
        key = f"models.{name}"
        tokenizer = checkpoint.load_tokenizer(folder) if made else _stand_in()
        config = self._try(f"{key}.settings", checkpoint.make_config, spec, tokenizer, key)
        if config is None:
            return
        outline = self._try(f"{key}.settings", checkpoint.outline, config, f"{key}.settings")
        self.outlines[name] = outline
        if outline is None or not made:
            return
        if self._try(f"{key}.settings", checkpoint.write_blueprint, spec, tokenizer, folder):
            if sum(p.numel() for p in outline.parameters()) <= MOST_PARAMETERS:
                self._try(f"{key}.architecture", self._reads_a_block, name)
            else:
                self.unchecked.append(f"{key}: too large to compute with here; it was only built")

    def _pretrained(self, name: str, spec: dict, folder: Path) -> None:
        key, source = f"models.{name}.pretrained", spec["pretrained"]
        if not Path(source).expanduser().is_dir():
            self.unchecked.append(f"{key}: {source!r} is on the hub")
            return
        if not self._tokenizer(name, {"kind": "pretrained", "source": source}):
            return
        where = str(Path(source).expanduser())
        config = self._try(key, checkpoint.load_config, where, repr(source))
        if config is None:
            return
        self.outlines[name] = self._try(key, checkpoint.outline, config, repr(source))
        if self.outlines[name] is None:
            return
        count = sum(tensor.size for tensor in tensors(Path(where)).values())
        if count > MOST_WEIGHTS:
            self.unchecked.append(
                f"{key}: its {count:,} weights are too many to load here; only their headers and "
                "the configuration were read"
            )
            return
        tokenizer = checkpoint.load_tokenizer(folder)
        self._try(key, checkpoint.write_blueprint, spec | {"pretrained": where}, tokenizer, folder)

    def _limits(self, name: str) -> None:
        """Check that prompts and completions of all experiments fit the model's context.

        ValueError: the model's architecture has no sound contract.
        """
        outline = self.outlines[name]
        settle(outline.config, f"models.{name}")
        for title, experiment in self.plan.config["experiments"].items():
            at = f"founders/{experiment['founders']}"
            used = {model_of(self.plan, at, m) for m in range(experiment["population"])}
            if name not in used:
                continue
            settings = {"evaluate.samples": self.plan.config["evaluate"]["samples"]}
            if synthetic.writers(self.plan, title, 0):
                settings[f"experiments.{title}.generate"] = experiment["generate"]
            for key, one in settings.items():
                try:
                    prompt_limit(outline, one)
                except ValueError as error:
                    said = str(error).removeprefix("generate.")
                    mistake = f"{key}.{said}"
                    self.mistakes += [mistake] if mistake not in self.mistakes else []

    def _reads_a_block(self, name: str) -> None:
        """Check that a small new model computes, and that its trainings' dropout has an effect."""
        spec = self._model(name)
        model = checkpoint.create_model(self.folder / "models" / name, 0)
        block_1T = torch.zeros((1, spec["context_tokens"]), dtype=torch.int64)
        try:
            with torch.inference_mode():
                model(input_ids=block_1T, use_cache=False)
        except Exception as error:  # any library may fail here
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"models.{name}: {spec['architecture']!r} cannot read a block of "
                f"{spec['context_tokens']} tokens ({type(error).__name__}: {reason}). Correct its "
                "settings, or choose another architecture"
            ) from None
        for key, train in self._trainings(name):
            if train["dropout"] not in (0, "own"):
                self._try(key, Dropout(model, train["dropout"], 0).check, block_1T)

    def _trainings(self, model: str) -> Iterator[tuple[str, dict]]:
        """Yield (key, settings) of each training of a model."""
        for pool, size in self.plan.pool_sizes.items():
            if any(model_of(self.plan, f"founders/{pool}", m) == model for m in range(size)):
                yield f"founders.{pool}", self.plan.config["founders"][pool]["train"]
                for name, experiment in self.plan.config["experiments"].items():
                    if experiment["founders"] == pool and experiment["generations"] > 1:
                        yield f"experiments.{name}", experiment["train"]

    def _packed(self) -> None:
        for _, model, corpus, file in sorted(self.needed.get("pack_tokens", ())):
            split = Path(file).stem
            text = self.folder / "corpora" / corpus / f"{split}.parquet"
            if not (self._has("models", model, "tokenizer.json") and text.is_file()):
                continue
            self.say(f"tokens of {corpus}/{split} for {model}")
            spec = self._model(model)
            documents = (text for _, text in corpora.read_documents(text.parent, split))
            self._try(
                f"corpora.{corpus}: models.{model}",
                tokens.pack,
                documents,
                checkpoint.load_tokenizer(self.folder / "models" / model),
                spec["context_tokens"],
                self.folder / "tokens" / model / corpus / file,
                spec["separator"],
            )

    def _blocks(self, model: str, corpus: str, split: str = "train") -> int | None:
        about = self.folder / "tokens" / model / corpus / f"{split}.json"
        return artifacts.read_json(about)["blocks"] if about.is_file() else None

    def _founders(self) -> None:
        told: set[tuple[str, str]] = set()
        self.counted = set(self.plan.pool_sizes)
        for pool, member, model, corpus, context in reversed(list(founders(self.plan))):
            blocks = self._blocks(model, corpus)
            if blocks is None:
                self.counted.discard(pool)
                self._note(
                    f"founders.{pool}: the tokens of corpora.{corpus} for models.{model} are not "
                    "counted"
                )
            elif (pool, corpus) not in told and not self._try(
                f"founders.{pool}", place, blocks, context, inputs.segment(self.plan, pool), member
            ):
                told.add((pool, corpus))

    def _note(self, line: str) -> None:
        if line not in self.unchecked:
            self.unchecked.append(line)

    def _requests(self) -> None:
        tasks = [name for name in self._names("stage_task") if self._has("tasks", name)]
        staged = [name for name in tasks if self._has("tasks", name, "task.json")]
        for model in self._names("build_requests"):
            context = self._model(model)["context_tokens"]
            for task in staged if self._has("models", model, "tokenizer.json") else ():
                self.say(f"requests of {task} for {model}")
                tokenizer = checkpoint.load_tokenizer(self.folder / "models" / model)
                path = self.folder / "requests" / model / f"{task}.parquet"
                seed, folder = self.plan.config["evaluation_seed"], self.folder / "tasks" / task
                if not self._try(f"tasks.{task}", write_requests, folder, tokenizer, seed, path):
                    continue
                ids = artifacts.read_table(path, ["continuation_ids"])["continuation_ids"]
                longest = max((len(row) for row in ids.to_pylist()), default=0)
                outline = self.outlines.get(model)
                limit = getattr(getattr(outline, "config", None), "max_position_embeddings", None)
                limit = min(context, limit or context)
                if longest > limit:
                    self.mistakes.append(
                        f"tasks.{task}: a choice of {longest} tokens does not fit the {limit} "
                        f"tokens of models.{model}.context_tokens; use a model with a longer "
                        "context, or another task"
                    )

    def _overlaps(self) -> None:
        paths = [Path(path) for path in inputs.checked_tasks(self.plan)]
        known = [path for path in paths if path.is_file()]
        for corpus in self._names("check_overlap"):
            if known and self._has("corpora", corpus, "corpus.json"):
                self.say(f"questions in {corpus}")
                folder = self.folder / "corpora" / corpus
                most = self.plan.config["corpora"][corpus]["max_overlap"]
                found = contamination.overlap(folder, contamination.read_questions(known))
                self._try(f"corpora.{corpus}", contamination.refuse, corpus, found, most)

    def _prompts(self) -> None:
        """Check that each shard has a prompt, and that no own prompt is named like a document."""
        for name, experiment in self.plan.config["experiments"].items():
            writes = synthetic.writers(self.plan, name, 0)
            for member in range(experiment["population"]):
                corpus = inputs.prompt_corpus(self.plan, name, member)
                if experiment["generate"]["prompt"] == "blocks":
                    continue
                shards = experiment["generate"]["shards"]
                if writes and self._has("corpora", corpus, "corpus.json"):
                    about = artifacts.read_json(self.folder / "corpora" / corpus / "corpus.json")
                    count = about["documents"]["prompts"]
                    if shards > count:
                        self.mistakes.append(
                            f"experiments.{name}.generate.shards: {shards} shards exceed the "
                            f"{count} prompts of corpora.{corpus}; allowed: at most one shard per "
                            "prompt. Lower generate.shards or add prompts"
                        )
                        break
        samples = self.plan.config["evaluate"]["samples"]
        for corpus in {
            inputs.sample_corpus(self.plan, f"founders/{pool}", member)
            for pool, member, *_ in (founders(self.plan) if samples["texts"] else ())
        }:
            if self._has("corpora", corpus, "corpus.json"):
                opening = corpora.prompts(self.folder / "corpora" / corpus, 1)
                names = {name for name, _ in opening[: samples["num_prompts"]]}
                self.mistakes += [
                    f"evaluate.samples.texts.{name}: a held-out document of corpora.{corpus} "
                    f"already has the name {name!r}; choose another name"
                    for name in sorted(names & set(samples["texts"]))
                ]

    def _functions(self) -> None:
        for text, key in own_functions(self.plan.config).items():
            self.say(text)
            if self._try(key, userfile.load, key, text):
                self.unchecked.append(f"{key}: {text} was imported, not called")

    def _encoder(self) -> None:
        source = semantics_setting(self.plan, "encoder")
        if not encoder_files(self.plan):
            return
        if not Path(source).expanduser().is_dir():
            self.unchecked.append(f"evaluate.semantics.encoder: {source!r} is on the hub")
            return
        self.say(f"encoder {source}")
        revision = semantics_setting(self.plan, "revision")
        folder = self.folder / "semantics" / "encoder"
        self._try("evaluate.semantics.encoder", stage_encoder, source, revision, folder)


def _is_from(error: BaseException, function: Callable) -> bool:
    """Return whether a function raised an error, or called what raised it."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is function.__code__:
            return True
        trace = trace.tb_next
    return False


def _stand_in() -> PreTrainedTokenizerFast:
    """Return a tokenizer of two tokens, for a model whose own tokenizer is not here."""
    made = Tokenizer(models.WordLevel({tokens.EOS: 0, tokens.UNK: 1}, unk_token=tokens.UNK))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=tokens.EOS)
