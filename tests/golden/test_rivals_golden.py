"""Routers of other papers against dense mathematics: whole updates, one token and one expert at a time."""

import dataclasses

import pytest
import torch

from lorary.formats.peft import read_experts
from lorary.model.routed.route import route
from lorary.tasks.task import Tasks
from lorary.tasks.toy import toy_tasks
from lorary.testing.pico import pico_base, random_library

N = 6
IDS = torch.randint(2, 250, (2, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def library(_pico, tmp_path_factory):
    targets = ["attention", "down_proj"]
    return random_library(tmp_path_factory.mktemp("rivals") / "lib", _pico, N, targets=targets, ranks=(4, 2))


def assert_answers(library, router, weights_of, *, mix="outputs", **told):
    """Compare a routed model's logits with those of a fresh base with one dense matrix a token at every site.

    weights_of: a site's name and its inputs (B, T, d_in) -> the experts' weights (B, T, E), computed from whole
    updates.
    """
    base, experts = pico_base(), list(read_experts(library).values())

    def add(site):
        def hook(module, args, y):
            deltas = torch.stack([e[site].delta() for e in experts])  # (E, d_out, d_in)
            mixed = torch.einsum("bte,eoi->btoi", weights_of(site, args[0]), deltas)
            return y + (mixed @ args[0].unsqueeze(-1)).squeeze(-1)

        return hook

    for site in experts[0]:
        base.hf.get_submodule(site).register_forward_hook(add(site))
    with torch.inference_mode():
        expected = base.hf(input_ids=IDS).logits
        with route(pico_base(), library, router, mix=mix, **told) as model:
            torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)
        with route(pico_base(), library, "uniform", mix=mix) as model:
            assert (model(IDS).logits - expected).abs().max() > 0.05  # it isn't for want of a difference


@pytest.mark.parametrize(("spec", "n"), [("shortlist:n=3", 3), ("shortlist", N)])
def test_lag(spec, n, library):
    """The longest projection on an expert's directions, among the n that Arrow scores best (2507.05346)."""
    experts = list(read_experts(library).values())

    def weights_of(site, h):
        weights = torch.zeros(*h.shape[:2], N)
        spectra = [torch.linalg.svd(e[site].delta().double())[2][: e[site].rank].float() for e in experts]
        for b, t in torch.cartesian_prod(torch.arange(h.shape[0]), torch.arange(h.shape[1])).tolist():
            arrow = [abs(float(v[0] @ h[b, t])) for v in spectra]
            listed = sorted(range(N), key=lambda i: -arrow[i])[:n]
            weights[b, t, max(listed, key=lambda i: float((spectra[i] @ h[b, t]).norm()))] = 1
        return weights

    assert_answers(library, spec, weights_of)


@pytest.mark.parametrize("score", ["norm", "entropy"])
@pytest.mark.parametrize("reads", ["all", "base"])
def test_logo(score, reads, library):
    """The last q_proj's outputs at the prompt's last token, in a pass with all experts added (2511.07129)."""
    experts, site = list(read_experts(library).values()), "model.layers.1.self_attn.q_proj"
    base, inputs = pico_base(), []
    for name in experts[0] if reads == "all" else ():
        total = sum(e[name].delta() for e in experts)
        base.hf.get_submodule(name).register_forward_hook(lambda _, args, y, total=total: y + args[0] @ total.T)
    base.hf.get_submodule(site).register_forward_pre_hook(lambda _, args: inputs.append(args[0][:, -1]))
    with torch.inference_mode():
        base.hf(input_ids=IDS)
    weights = torch.zeros(len(IDS), 1, N)
    for b, x in enumerate(inputs[0]):
        outputs = [e[site].delta() @ x for e in experts]
        scores = torch.stack([o.norm() if score == "norm" else 1 / entropy(o) for o in outputs])
        best = scores.argsort(descending=True)[:4]
        weights[b, 0, best] = scores[best] / scores[best].sum()

    def weights_of(_, h):
        return weights.expand(-1, h.shape[1], -1)

    assert_answers(library, f"logo:score={score},reads={reads},top_k=4", weights_of)


def entropy(logits):
    return -sum(p * p.log() for p in logits.softmax(0))


@pytest.fixture(scope="module")
def tasks():
    """A task for each expert."""
    return Tasks(
        dataclasses.replace(task, name=f"e{i}") for i, task in zip(range(N), toy_tasks().values(), strict=False)
    )


@pytest.mark.parametrize("reads_answers", [False, True])
def test_average_activation(reads_answers, library, tasks):
    """PHATGOOSE's rule with means of each expert's own hidden states as gates (2402.05859, its baseline)."""
    experts, n, gates = read_experts(library), 3, {}
    for name, expert in experts.items():
        base, seen = pico_base(), {}
        for site, w in expert.items():
            module = base.hf.get_submodule(site)
            module.register_forward_hook(lambda _, args, y, w=w: y + args[0] @ w.delta().T)
            heard = seen.setdefault(site, [])
            module.register_forward_pre_hook(lambda _, args, heard=heard: heard.append(args[0][0]))
        for row in base.encode(tasks[name].train[:n]):
            ids = [*row.prompt, *(row.completion if reads_answers else ())]
            with torch.inference_mode():
                base.hf(input_ids=torch.tensor([ids]))
        gates[name] = {site: torch.stack([h.mean(0) for h in states]).mean(0) for site, states in seen.items()}

    def weights_of(site, h):
        scores = torch.stack([norm(h) @ norm(gates[name][site]) / h.shape[-1] ** 0.5 for name in experts], -1)
        kept = scores.topk(2)
        return torch.zeros_like(scores).scatter(-1, kept.indices, kept.values.softmax(-1))

    spec = f"average_activation:n_examples={n},after_answer={reads_answers}"
    assert_answers(library, spec, weights_of, tasks=tasks)


def norm(x):
    """Subtract the mean, divide by the standard deviation."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


def embedding(base, ids):
    """The mean of the base's own last hidden states over a text's tokens, of length 1."""
    with torch.inference_mode():
        states = base.hf(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    return states.mean(0) / states.mean(0).norm()


def raw_embeddings(tasks, split, n):
    """The means of the base's last hidden states over the tokens of a task's prompts, by task: (n, d)."""
    base, found = pico_base(), {}
    for name, task in tasks.items():
        rows = []
        for row in base.encode(getattr(task, split)[:n]):
            with torch.inference_mode():
                hidden = base.hf(input_ids=torch.tensor([row.prompt]), output_hidden_states=True).hidden_states[-1]
            rows.append(hidden[0].mean(0))
        found[name] = torch.stack(rows)
    return found


def prompts_as_told():
    """What the router is told of IDS: the embedding of their text, as it is read again."""
    base = pico_base()
    texts = base.tokenizer.batch_decode(IDS, skip_special_tokens=True)
    return [embedding(base, base.tokenizer(text)["input_ids"]) for text in texts]


def test_ariadne(library, tasks):
    """The expert whose mean embedding has the largest cosine with the prompt's answers alone (2606.19079)."""
    centroids = [states.mean(0) for states in raw_embeddings(tasks, "train", 5).values()]
    nearest = [
        max(range(N), key=lambda i, e=e: float(e @ centroids[i] / centroids[i].norm())) for e in prompts_as_told()
    ]

    def weights_of(_, h):
        return torch.nn.functional.one_hot(torch.tensor(nearest), N).float()[:, None].expand(-1, h.shape[1], -1)

    assert_answers(library, "ariadne:encoder=base,n_examples=5", weights_of, tasks=tasks)


@pytest.mark.parametrize("best", ["measured", "trained"])
def test_lorauter(best, library, tasks):
    """The experts that are best on the three nearest tasks, weighed by a softmax of the cosines (2601.21795)."""
    n, found = 4, raw_embeddings(tasks, "valid", 4)
    experts = read_experts(library)
    nats = {name: losses_of(expert, tasks, n) for name, expert in experts.items()}
    owners = [i if best == "trained" else min(range(N), key=lambda e: nats[f"e{e}"][i]) for i in range(N)]
    assert best == "trained" or owners != list(range(N))
    weights = torch.zeros(len(IDS), 1, N)
    for row, e in enumerate(prompts_as_told()):
        cosines = torch.stack([e @ states.mean(0) / states.mean(0).norm() for states in found.values()])
        near = cosines.topk(3)
        for task, share in zip(near.indices.tolist(), (near.values / 0.1).softmax(0), strict=True):
            weights[row, 0, owners[task]] += share

    def weights_of(_, h):
        return weights.expand(-1, h.shape[1], -1)

    spec = f"lorauter:encoder=base,n_examples={n},n_first={n},best={best}"
    assert_answers(library, spec, weights_of, tasks=tasks)


def losses_of(expert, tasks, n):
    """The mean nats of the answers to each task's first validation examples, with one expert merged into a base."""
    base, found = pico_base(), []
    for site, w in expert.items():
        base.hf.get_submodule(site).weight.data += w.delta()
    for task in tasks.values():
        total = 0.0
        for row in base.encode(task.valid[:n]):
            ids = torch.tensor([[*row.prompt, *row.completion]])
            with torch.inference_mode():
                log_p = base.hf(input_ids=ids).logits[0].log_softmax(-1)
            places = range(len(row.prompt) - 1, ids.shape[1] - 1)
            total -= sum(float(log_p[t, ids[0, t + 1]]) for t in places)
        found.append(total / n)
    return found


def test_bounded(library):
    """Arrow's three best, none above 0.4 of a token, and a quarter for the base."""
    experts = list(read_experts(library).values())

    def weights_of(site, h):
        scores = torch.stack([(h @ torch.linalg.svd(e[site].delta())[2][0]).abs() for e in experts], -1)
        kept = scores.topk(3)
        shares = kept.values.softmax(-1)
        for _ in range(3):  # what is above the bound goes to those below it, until none is
            over, room = (shares - 0.4).clamp(min=0), shares * (shares < 0.4)
            shares = shares - over + over.sum(-1, keepdim=True) * room / room.sum(-1, keepdim=True)
        return 0.75 * torch.zeros_like(scores).scatter(-1, kept.indices, shares)

    assert_answers(library, "bounded:of=(arrow:top_k=3),max_share=0.4,base=0.25", weights_of)
