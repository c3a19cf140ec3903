# The peer of planning: study A's DAG of `populations` x 16 members, with rules that only touch, and `extra` jobs beside it.
import sys

sys.setrecursionlimit(1_000_000)

POPULATIONS, GENERATIONS = range(int(config["populations"])), range(int(config["generations"]))
MEMBERS, RANKS, SHARDS = range(16), range(4), range(8)


wildcard_constraints:
    p=r"\d+", g=r"\d+", m=r"\d+", r=r"\d+", s=r"\d+", n=r"\d+",


rule all:
    input:
        expand("p{p}/gen{g}/member{m}.scores", p=POPULATIONS, g=GENERATIONS, m=MEMBERS),
        expand("p{p}/gen{g}/selection", p=POPULATIONS, g=GENERATIONS),
        expand("extra{n}", n=range(int(config["extra"]))),


rule extra:
    output: "extra{n}",
    shell: "touch {output}"


rule corpus:
    output: "corpus",
    shell: "touch {output}"


rule founder:
    input: "corpus",
    output: "p{p}/gen0/member{m}.weights",
    shell: "touch {output}"


rule evaluate:
    input: "p{p}/gen{g}/member{m}.weights",
    output: "p{p}/gen{g}/member{m}.scores",
    shell: "touch {output}"


rule select:
    input: lambda w: expand(f"p{w.p}/gen{w.g}/member{{m}}.scores", m=MEMBERS),
    output: "p{p}/gen{g}/selection",
    shell: "touch {output}"


rule mutate:
    input: "p{p}/gen{g}/selection", lambda w: expand(f"p{w.p}/gen{w.g}/member{{m}}.weights", m=MEMBERS),
    output: "p{p}/gen{g}/parent{r}",
    shell: "touch {output}"


rule generate:
    input: "p{p}/gen{g}/selection", lambda w: expand(f"p{w.p}/gen{w.g}/member{{m}}.weights", m=MEMBERS),
    output: "p{p}/gen{g}/synthetic{r}.shard{s}",
    shell: "touch {output}"


def child_inputs(w):
    before, (i, j) = f"p{w.p}/gen{int(w.g) - 1}", divmod(int(w.m), len(RANKS))
    return [f"{before}/parent{i}", *expand(f"{before}/synthetic{j}.shard{{s}}", s=SHARDS)]


rule child:
    input: child_inputs,
    output: "p{p}/gen{g}/member{m}.weights",
    shell: "touch {output}"


ruleorder: founder > child
