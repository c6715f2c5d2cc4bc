"""Translation with auxiliary tasks: networks, search, the task, programs."""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from lopt_tf import autoloss, checkpointing
from lopt_tf.autoloss import (
    baselines,
    comparison,
    compiled_episodes,
    episodes,
    kept_outcomes,
    metadata,
    ppo,
    rewards,
    schedules,
    tasks,
    trainer,
    translating,
)
from problems.alternating.translation import (
    layers,
    networks,
    scores,
    search,
    subwords,
)
from problems.alternating.translation import task as translation_task
from problems.alternating.translation.batches import Batch
from problems.alternating.translation.language import Language
from problems.alternating.translation.task import Translation
from train_scripts import autoloss as program
from train_scripts.suites import translation as translation_suite

pytest.importorskip("tokenizers")
pytest.importorskip("sacrebleu")
pytest.importorskip("seqeval")

SMALL = {
    **{"pairs": 60, "tagged": 60, "valid": 8, "test": 8, "symbols": 200},
    **{"width": 8, "embedding": 8, "batch_size": 4, "lengths": [40]},
    **{"updates": 12, "hold": 3, "validations": 2, "dropout": 0.2},
    "language": {"subordinate": 0.0},
}
SMALL_CORPUS = {"pairs": 300, "tagged": 60, "valid": 20, "test": 20}
OUTPUTS = {"translation": 30, "tags": 7, "entities": 6}


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """XLA takes long to compile; one test has it."""
    monkeypatch.setattr(Translation, "jit_compile", False)


def _networks(architecture):
    made = networks.make(
        *(architecture, 30, OUTPUTS),
        **{"embedding": 12, "width": 8, "depth": 2},
        **{"dropout": 0.1, "longest": 14},
    )
    networks.initialize(list(made.values()), 5)
    return type("Model", (), made)


def _batch(length, rows=3):
    rng = np.random.default_rng(0)
    found = np.zeros([3, rows + 1, length], "int32")
    for row, count in enumerate((9, 5, 1)):
        found[:, row, :count] = rng.integers(3, 6, [3, count])
    return Batch(*found)


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_padding_changes_nothing(architecture):
    model = _networks(architecture)
    for task in OUTPUTS:
        found = []
        for length in (9, 13):
            logits, targets = networks.logits(model, task, _batch(length))
            assert logits.shape == (4, length, OUTPUTS[task])
            found.append((logits, networks.sums(logits, targets)))
        (short, sums), (long, others) = found
        for row, count in enumerate((9, 5, 1)):
            np.testing.assert_allclose(
                short[row, :count], long[row, :count], atol=1e-5
            )
        np.testing.assert_allclose(sums, others, rtol=1e-5)
        assert float(sums[2]) == 15
        # A change of the source changes the outputs: nothing is cut off.
        batch = _batch(9)
        batch.source[0, 8] += 1
        other, _ = networks.logits(model, task, batch)
        assert np.abs(other[0, 0] - short[0, 0]).max() > 1e-6
        # What comes later changes nothing before.
        batch = _batch(9)
        batch.inputs[0, 5] = 3 + (batch.inputs[0, 5] - 2) % 3
        other, _ = networks.logits(model, task, batch)
        np.testing.assert_allclose(other[0, :5], short[0, :5], atol=1e-5)
        assert np.abs(other[0, 5] - short[0, 5]).max() > 1e-6


@pytest.mark.parametrize("algorithm", ["evolution", "reinforce"])
def test_controllers_begin_with_much_translation(algorithm):
    options = tasks.recipe("translation", algorithm)
    made = autoloss.ScheduleController.untrained(
        "translation", Translation.actions, options
    )
    seen = np.random.default_rng(0).normal(size=[3, len(options.features)])
    found = made.policy.distribution(seen.astype("float32")).probs_parameter()
    np.testing.assert_allclose(found, [[0.75, 0.125, 0.125]] * 3, rtol=1e-5)
    assert tasks.recipe("translation", "ppo").first_share == 0
    assert tasks.recipe("translation", algorithm, hidden=4).first_share == 0
    with pytest.raises(ValueError, match="`first_share` is for linear"):
        dataclasses.replace(options, hidden=4)


def test_attention_begins_with_near_places_and_learns_distances():
    """Without what was read, it is a softmax of learned distances."""
    decoder = _networks("lstm").translation_decoder
    decoder.score.kernel.assign(np.zeros([8, 8], "float32"))
    # The encoding of each place is a unit vector, the logits are contexts.
    weights = np.zeros([16, 8], "float32")
    weights[:8] = np.eye(8)
    decoder.combine.kernel.assign(weights)
    decoder.output_layer.set_weights(
        [np.eye(8, 30, dtype="float32"), np.zeros(30, "float32")]
    )
    mask = np.arange(8)[None] < 6
    given = np.eye(8, dtype="float32")[None], mask, np.ones([1, 5], "int32")

    def expected(bias):
        distance = np.arange(8)[None] - np.arange(5)[:, None]
        chances = np.exp(bias(distance)) * mask
        return np.tanh(chances / chances.sum(1, keepdims=True))

    np.testing.assert_allclose(
        decoder(*given)[0, :, :8], expected(lambda d: -0.2 * abs(d)), atol=1e-6
    )
    # One place to the right: distances from -14 to 14 are told apart.
    learned = np.where(np.arange(-14, 15) == 1, 3.0, 0.0)
    decoder.nearness.assign(learned)
    found = decoder(*given)[0, :, :8]
    np.testing.assert_allclose(found, expected(lambda d: 3.0 * (d == 1)), 1e-5)
    assert np.argmax(found, axis=1).tolist() == [1, 2, 3, 4, 5]


def test_attention_is_the_one_way_from_the_source():
    """What it reads being of no weight, decoders say the same of all."""
    model = _networks("lstm")
    decoder = model.translation_decoder
    combine = decoder.combine.kernel.numpy()
    combine[:8] = 0.0
    decoder.combine.kernel.assign(combine)
    batch, others = _batch(9), _batch(9)
    others.source[:] = others.source[::-1].copy()
    assert not np.array_equal(batch.source, others.source)
    found, _ = networks.logits(model, "translation", batch)
    same, _ = networks.logits(model, "translation", others)
    np.testing.assert_allclose(found, same, atol=1e-6)


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_beams_are_never_worse_and_scores_are_those_of_the_model(architecture):
    model = _networks(architecture)
    batch = _batch(9)
    source = tf.constant(batch.source)
    mask = layers.mask_of(source)
    encoded = model.encoder(source)

    @tf.function(autograph=False)
    def find(beams):
        return search.search(
            *(model.translation_decoder, encoded, mask, 12),
            *(subwords.START, beams, subwords.END),
            first=subwords.END,
        )

    greedy, beam = find(1), find(5)
    ended = [
        (outputs.numpy() == subwords.END).any(1)
        for outputs, _ in (greedy, beam)
    ]
    assert (ended[1] >= ended[0]).all()
    alike = ended[0] == ended[1]
    gains = (beam[1] - greedy[1]).numpy()
    assert (gains[alike] >= 0).all()
    assert np.abs(gains).max() > 1e-4
    for outputs, told in (greedy, beam):
        outputs = outputs.numpy()
        inputs = np.roll(outputs, 1, axis=1)
        inputs[:, 0] = subwords.START
        logits = model.translation_decoder(encoded, mask, inputs)
        chances = tf.nn.log_softmax(logits).numpy()
        chances = np.take_along_axis(chances, outputs[..., None], 2)[..., 0]
        said = outputs > 0
        means = (chances * said).sum(1) / said.sum(1)
        np.testing.assert_allclose(told, means, atol=1e-4)
        for row in outputs:
            ends = np.flatnonzero(row == subwords.END)
            assert not row[ends[0] + 1 :].any() if ends.size else row.all()
    # The best first symbol of all is what greedy search begins with.
    logits = model.translation_decoder(
        encoded, mask, np.full([4, 1], subwords.START)
    ).numpy()[:, 0]
    logits[:, : subwords.END] = -1e9
    np.testing.assert_array_equal(greedy[0][:, 0], logits.argmax(-1))


def test_what_has_ended_is_better_than_any_loop():
    # After the start (2) a word (5) or a loop (4); the word mostly ends (3).
    chances = np.full([6, 6], 1e-9, "float32")
    chances[2, 4:] = 0.45, 0.55
    chances[4, 3:5] = 0.28, 0.72
    chances[5, [3, 5]] = 0.7, 0.3
    table = tf.constant(np.log(chances))

    class Decoder:
        def start(self, encoded, mask, length):
            return [tf.zeros([encoded.shape[0], 1])]

        def step(self, state, encoded, mask, symbols, place):
            return tf.gather(table, symbols), state

    sources = tf.zeros([2, 3, 2]), tf.ones([2, 3], tf.bool)
    for beams in (1, 5):
        outputs, means = search.search(
            Decoder(), *sources, 28, 2, beams, end=3, first=3
        )
        assert outputs.numpy()[:, :3].tolist() == [[5, 3, 0]] * 2
        np.testing.assert_allclose(means, np.log(0.55 * 0.7) / 2, rtol=1e-5)
    # Without an end the loop is what is likely.
    outputs, _ = search.search(Decoder(), *sources, 28, 2, 5, first=4)
    assert (outputs.numpy() == 4).all()


def test_what_has_ended_is_kept_when_others_crowd_it_out():
    """Random chains of symbols, beside a plain search that forgets nothing."""
    rng, end, beams, length = np.random.default_rng(0), 3, 3, 8
    tables = rng.normal(0, 2, [60, 8, 8]).astype("float32")
    tables -= np.log(np.exp(tables).sum(-1, keepdims=True))
    rows = tf.constant(tables)

    class Decoder:
        def start(self, encoded, mask, length):
            return [tf.cast(encoded[:, 0, 0], tf.int32)]

        def step(self, state, encoded, mask, symbols, place):
            return tf.gather_nd(rows, tf.stack([*state, symbols], 1)), state

    sources = tf.range(60.0)[:, None, None], tf.ones([60, 1], tf.bool)
    outputs, scores = search.search(
        Decoder(), *sources, length, 2, beams, end=end, first=end
    )
    crowded_out = 0
    for table, output, score in zip(tables, outputs.numpy(), scores.numpy()):
        race, ended = [(0.0, (2,))], set()
        for _ in range(length):
            grown = [x for x in race if x[1][-1] == end]
            grown += [
                (total + table[symbols[-1], s], (*symbols, s))
                for total, symbols in race
                if symbols[-1] != end
                for s in range(end, 8)
            ]
            race = sorted(grown, reverse=True)[:beams]
            ended |= {x for x in race if x[1][-1] == end}
        if not ended:
            continue
        best = max(ended, key=lambda x: x[0] / (len(x[1]) - 1))
        assert end in output
        # Greedy search may have found a better one.
        assert score >= best[0] / (len(best[1]) - 1) - 1e-5
        crowded_out += best not in race
    assert crowded_out


def test_a_task_measures_the_model_that_it_is_given(task):
    models = [task.build(), task.build()]
    for seed, model in enumerate(models):
        task.start(model, None, seed)
    first = [task.measure(model, "valid") for model in models]
    assert first[0] != first[1]
    assert task.measure(models[0], "valid") == first[0]
    told = [task.details_of(model, [], "test") for model in models]
    assert 0 <= told[0]["token accuracy"] <= 1
    assert told[0] != told[1]


def test_published_ppo_sees_a_validation_after_every_fifty_updates():
    for given, expected in (
        ({}, 40),
        ({"preset": "paper"}, 2000),
        ({"updates": 300}, 6),
        ({"updates": 300, "validations": 3}, 3),
        ({"updates": 30}, 1),
        ({"hold": None}, 40),
        # The most of at most 40 that divide 500, 100 and 20 decisions.
        ({"hold": 4}, 25),
        ({"hold": 20}, 25),
        ({"hold": 100}, 20),
    ):
        task = tasks.entry("published_translation").task(**given)
        assert task.hold == (given.get("hold") or 1)
        assert task.validations == expected
    with pytest.raises(ValueError, match="updates=1999"):
        tasks.entry("published_translation").task(updates=1999)
    task = tasks.entry("published_translation").task()
    recipe = tasks.recipe("published_translation", "ppo")
    controller = autoloss.Policy(3, hidden=4)
    controller.build([None, 18])
    learner = ppo.PPO(controller, recipe, task.period)
    assert learner.segment_length == 50


def test_scores_are_the_libraries():
    right = ["the cat sat on the mat.", "a dog ran away today."]
    assert scores.bleu(right, right) == pytest.approx(100)
    assert scores.chrf(right, right) == pytest.approx(100)
    assert 0 <= scores.bleu(["no such words here", "x"], right) < 5
    true = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "O"]]
    told = [["B-PER", "O", "O"], ["O", "B-LOC", "O"]]
    assert scores.span_f1(true, told) == pytest.approx(0.5)
    assert scores.accuracy(true, told) == pytest.approx(5 / 6)


@pytest.fixture(scope="module")
def task():
    return Translation(**SMALL)


def test_each_task_takes_its_own_batches(task, monkeypatch):
    asked = []
    batch = task.batch

    def record(setting, seed, number, action):
        asked.append((seed, number, action))
        return batch(setting, seed, number, action)

    monkeypatch.setattr(task, "batch", record, raising=False)
    played = compiled_episodes.episodes_of(
        task, schedules.Ratio([[2, 1, 1]]), 3
    )
    position, shares = episodes.play(played, [9])
    numbers = [(n, a) for _, n, a in asked]
    assert numbers[:6] == [(i, 0) for i in range(6)]
    assert numbers[6:] == [(i, a) for a in (1, 2) for i in range(3)]
    assert len({*map(id, played.model.optimizers.values())}) == 3
    (episode,) = position.state
    assert episode.taken == [6, 3, 3] and episode.step == 4
    assert played.model.schedule_state.step.numpy() == 12
    details = played.details(position, "test")
    assert {*details} >= {"BLEU", "chrF", "tag accuracy", "span F1"}
    assert "BLEU" not in played.details(position)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_updates_are_the_same_with_xla(architecture, monkeypatch):
    found = []
    for jit_compile in (True, False):
        monkeypatch.setattr(Translation, "jit_compile", jit_compile)
        chosen = {"dropout": 0.0, "architecture": architecture}
        task = Translation(**{**SMALL, **chosen})
        played = compiled_episodes.episodes_of(
            task, schedules.Ratio([[1, 1, 1]]), 4
        )
        assert played.model.jit_compile is jit_compile
        position, _ = played.advance(played.begin([3]))
        found.append(position.state[0].values)
    for compiled, plain in zip(*found):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)


def test_a_run_resumes_in_the_middle_exactly(task):
    features = tuple(tasks.entry("published_translation").recipe.features)
    assert len(features) == 18
    config = {"num_actions": 3, "hidden": 4, "seed": 1}
    schedule = autoloss.ScheduleController(
        task.name, task.actions, features, config
    ).schedule()
    played = compiled_episodes.episodes_of(task, schedule, 2)
    position, _ = played.advance(played.begin([1, 2]))
    saved = played.save(position)
    json.dumps(saved[1])
    found = []
    for each in (position, played.load(*saved)):
        after, records = played.advance(each)
        found.append((*records, *after.state[0].values, *after.state[1].values))
        assert np.isfinite(records.features).all()
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)


def _counted(function):
    """The function with an attribute `calls`."""

    @functools.wraps(function)
    def counted(*arguments):
        counted.calls += 1
        return function(*arguments)

    counted.calls = 0
    return counted


def test_translation_alone_is_tuned_with_learning_rates_of_its_own(
    tmp_path, monkeypatch
):
    # Each compiles a model.
    monkeypatch.setattr(translation_task, "_RATES", (1.0, 2.0))
    task = Translation(**SMALL)
    name = "best translation alone"
    grid = baselines.grids(task)[name]
    own = {"learning_rate": task.learning_rate}
    rates = [(own | dict(each.changes))["learning_rate"] for each in grid]
    assert rates == sorted(rates) and task.learning_rate in rates
    assert all(each.at_edge for each in grid)
    kept = kept_outcomes.KeptOutcomes(tmp_path / "outcomes")
    chosen, rows = baselines.tune(task, 1, names=[name], kept=kept)
    results = {row["setting"]: row["validation"] for row in rows}
    assert len({*results.values()}) == len(rates)
    assert results[chosen[name].label] == min(results.values())
    monkeypatch.setattr(Translation, "build", _counted(Translation.build))
    (outcome,) = comparison.run_baselines(task, chosen, 2, kept).values()
    # Both starts take one model.
    assert Translation.build.calls == 1
    rate = dict(chosen[name].changes)["learning_rate"]
    assert rate != task.learning_rate
    alone = baselines.published(task)["translation alone"]
    (expected,) = comparison.run_baselines(
        Translation(**{**SMALL, "learning_rate": rate}), {"": alone}, 1
    ).values()
    np.testing.assert_allclose(outcome.results[:1], expected.results)


def test_curricula_end_with_the_first_action():
    schedule = schedules.Curriculum([[0.5, 0.3, 0.2], [0.8, 0.2, 0.0]])
    taken = np.stack(
        [
            schedule.weights({"progress": tf.fill([2], i / 10)}, i, 0).numpy()
            for i in range(10)
        ]
    ).argmax(-1)
    assert taken[:, 0].tolist() == [2] * 2 + [1] * 3 + [0] * 5
    assert taken[:, 1].tolist() == [1] * 2 + [0] * 8
    task = Translation()
    found = baselines.grids(task)
    labels = [c.label for c in found["best ratio"]]
    assert labels[0] == "ratio 1:1:1" and "ratio 8:1:1" in labels
    assert len(found["best coin"]) == 36
    assert "curriculum 0.8:0.2:0" in [c.label for c in found["best curriculum"]]


def test_a_drop_near_the_floor_is_worth_more():
    reward = rewards.drop_reward("valid_perplexity", 1.0, scale=2.0)
    # Losses of 5, 2, 3 and 0.5 nats, after 5.5, 2.5, 1 and 1.5.
    loss, before = np.array([[5.0, 2.0, 3.0, 0.5], [5.5, 2.5, 1.0, 1.5]])
    told = {
        "valid_perplexity": tf.constant(np.exp(loss), "float32"),
        "improvement": tf.constant(np.exp(before) - np.exp(loss), "float32"),
        "validated": tf.constant([True, True, False, True]),
    }
    expected = [2 * 0.5 / 4, 2 * 0.5 / 1, 0.0, 40.0]
    np.testing.assert_allclose(reward(told), expected, rtol=1e-5)
    options = tasks.recipe("published_translation", "ppo")
    assert options.step_floor == 1.0 and options.discount == 0.9
    assert {*options.features} == {*metadata.OF_TASKS}
    (needed,) = trainer._step_reward(Translation(), options).needs.values()
    assert "valid_perplexity" in needed
    plain = trainer._step_reward(Translation(), autoloss.ControllerOptions())
    assert plain.needs != rewards.drop_reward("x", 0.0).needs


def test_settings_are_the_presets_unless_given():
    for name, message in (
        ({"preset": "no"}, "Unknown preset 'no'"),
        ({"lengths": [20, 10]}, "`lengths` must be ascending"),
        ({"lengths": [70]}, "`lengths` must be ascending integers from 2 to"),
        ({"dropout": 1.0}, "`dropout` must be"),
        ({"architecture": "cnn"}, "Unknown architecture 'cnn'"),
        ({"corpus": "here"}, "needs a file of part-of-speech"),
        ({"width": 0}, "`width` must be a positive integer"),
        ({"language": {"nouns": -1}}, "`nouns` must be a positive"),
        ({"language": {"genders": 1}}, "genders"),
        ({"width": 65}, "`width` of the architecture 'lstm' must be even"),
        (
            {"width": 6, "architecture": "transformer"},
            "must be a multiple of 4",
        ),
        (
            {"embedding": 32, "architecture": "transformer"},
            "as wide as all of it, `width`. Received: embedding=32",
        ),
        ({"own_optimizers": "False"}, "must be true or false"),
        ({"own_optimizers": None}, "must be true or false"),
        ({"entities": None}, "`entities` must be a text"),
        ({"language": None}, "`language` must be arguments of"),
        ({"language": {"seed": 0.5}}, "`seed` must be a non-negative"),
        ({"beams": None}, "`beams` must be a positive integer"),
        ({"data_seed": None}, "`data_seed` must be a non-negative integer"),
        ({"data_seed": -1}, "`data_seed` must be a non-negative integer"),
        ({"corpus": 2014, "tags": "x"}, "`corpus` must be a text"),
        ({"corpus": "x", "tags": 2009}, "`tags` must be a text"),
    ):
        with pytest.raises(ValueError, match=message):
            tasks.entry("translation").task(**name)
    model = Translation(**SMALL, own_optimizers=False).build()
    assert len({*map(id, model.optimizers.values())}) == 1
    config = Translation(preset="paper", width=32).get_config()
    assert config["width"] == 32 and config["symbols"] == 10_000
    assert Translation(**config).get_config() == config


def test_the_program_trains_tests_and_translates(
    tmp_path, capsys, monkeypatch, task
):
    @functools.wraps(Translation)
    def make(**config):
        # One compilation for all programs.
        return task if config == SMALL else Translation(**config)

    entry = dataclasses.replace(tasks.entry("translation"), make=make)
    monkeypatch.setitem(tasks.TASKS, "translation", entry)
    monkeypatch.setattr(Translation, "ratios", ((2, 1, 0),))
    monkeypatch.setattr(Translation, "curricula", ((0.5, 0.5, 0.0),))
    monkeypatch.setattr(Translation, "coin_parts", 6)
    sets = [f"--set={k}={json.dumps(v)}" for k, v in SMALL.items()]
    common = ["--task=translation", f"--output_dir={tmp_path}/run", *sets]

    def run(*arguments):
        code = program.main(["autoloss", *common, *arguments])
        return code, capsys.readouterr()

    assert run("--mode=train", "--episodes=4", "--parallel=4")[0] == 0
    code, told = run(
        *("--mode=test", "--starts=1", "--tuning_starts=1", "--nofine")
    )
    assert code == 0 and "best curriculum" in told.out and "BLEU" in told.out
    assert "sentences (train/valid/test): translation " in told.out
    source = tmp_path / "in.txt"
    pairs, *_ = Language(subordinate=0.0).sentences(3, 4)
    longest = " ".join([pairs[0].source] * 20)
    source.write_text(f"{pairs[0].source}\n\n{pairs[1].source}\n{longest}\n")
    target = tmp_path / "out.txt"
    files = ["--mode=translate", f"--input={source}", f"--output={target}"]
    assert run(*files)[0] == 0
    first = target.read_text()
    assert first.count("\n") == 4 and first.split("\n")[1] == ""
    # The translator is kept, and the same.
    code, told = run(*files)
    assert code == 0 and "Training" not in told.out
    assert "1 of 3 lines are cut" in told.out
    assert target.read_text() == first
    load = translating.load(tmp_path / "run/translator.npz")
    assert load.translate([pairs[0].source]) == [first.split("\n")[0]]
    for arguments, message in (
        (["--mode=translate"], "needs --input and --output"),
        ([*files[:2], "--output=/dev/null"], "it is no ordinary file"),
        ([*files[:2], f"--output={tmp_path}/no/x"], "there is no folder"),
        (
            [*files[:2], f"--output={tmp_path}/run/best.npz"],
            "files of that name belong to the program",
        ),
        (
            [*files[:2], f"--output={tmp_path}/run/tuning.json"],
            "files of that name belong to the program",
        ),
        (
            [*files[:2], f"--output={source}"],
            "it is what is to be translated",
        ),
        ([*files, "--controller=/no.npz"], "a controller has no effect"),
        ([*files, "--set=width=16"], "was trained with width=8, not 16"),
        (["--mode=translate", "--input=/no", *files[2:]], "no corpus /no"),
        (["--mode=train", f"--input={source}"], "--input has no effect"),
    ):
        code, told = run(*arguments)
        assert code == 2 and message in told.err, told.err
        assert told.err.count("\n") == 1


def test_a_translator_that_is_stopped_goes_on(task, tmp_path, monkeypatch):
    begun, lines = tmp_path / "begun.npz", []
    whole = translating.trained(task, None, lines.append)
    expected = [np.array(v) for v in whole.trainable_variables]
    total = len(lines)

    def stop(line):
        lines.append(line)
        if line.startswith("update 6"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translating.trained(task, None, stop, begun)
    assert begun.exists()
    lines.clear()
    again = translating.trained(task, None, lines.append, begun)
    assert len(lines) == total - 1
    for variable, value in zip(again.trainable_variables, expected):
        np.testing.assert_array_equal(variable, value)
    # How many candidates a search has is nothing that it was trained with.
    monkeypatch.setattr(task, "beams", 2)
    assert translating.trained(task, None, lines.append, begun) is not None
    with monkeypatch.context() as patched:
        patched.setattr(translating, "_RATIO", (1, 1, 1))
        with pytest.raises(ValueError, match="with other settings"):
            translating.trained(task, None, lines.append, begun)
    translating.save(tmp_path / "saved.npz", task, whole)
    translating.load(tmp_path / "saved.npz", task)
    # Networks as a later version might make them.
    monkeypatch.setitem(networks.VERSIONS, "lstm", 99)
    with pytest.raises(ValueError, match="networks of another version"):
        translating.trained(Translation(**SMALL), None, lines.append, begun)
    with pytest.raises(checkpointing.CheckpointError, match="another version"):
        translating.load(tmp_path / "saved.npz", task)


def test_a_translator_that_learns_nothing_says_so(task, monkeypatch):
    monkeypatch.setattr(
        type(task),
        "measure",
        lambda self, model, split: dict.fromkeys(self.measures, np.nan),
    )
    with pytest.raises(ValueError, match="has learned nothing"):
        translating.trained(task, None, lambda line: None)


def test_a_translator_that_got_worse_says_so(task, monkeypatch):
    numbers = itertools.count(1)
    monkeypatch.setattr(
        type(task),
        "measure",
        lambda self, model, split: dict.fromkeys(self.measures, next(numbers)),
    )
    with pytest.raises(ValueError, match="was better than that of its start"):
        translating.trained(task, None, lambda line: None)


def test_updates_are_timed_beside_plain_keras(tmp_path, monkeypatch):
    monkeypatch.setattr(translation_suite, "_UPDATES", 4)
    monkeypatch.setattr(translation_suite, "_SENTENCES", SMALL_CORPUS)
    (row,) = translation_suite.measure(1, ["demo"])
    assert row["name"] == "translation/demo"
    assert row["value"] > 0 and row["settings"]["times_train_on_batch"] > 0
    # Both do the same arithmetic.
    task = Translation(**SMALL)
    plain = translation_suite._Plain(task).model
    batch = task.batch(None, 0, 0, 0)
    found = plain((batch.source, batch.inputs))
    expected = networks.loss_of("translation")(plain, batch, False)
    loss = translation_suite._masked(tf.constant(batch.targets), found)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
