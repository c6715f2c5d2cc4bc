"""Controllers and fixed schedules on one task: tuned, tested, in one folder."""

import json
import pathlib

from lopt_tf import checkpointing, checks, folders
from lopt_tf.autoloss import baselines, comparison, plots
from lopt_tf.autoloss.controller import ScheduleController, best_path
from lopt_tf.autoloss.kept_outcomes import KeptOutcomes
from lopt_tf.autoloss.sample_pictures import SamplePicture
from lopt_tf.autoloss.starts import starts as seeds_for
from lopt_tf.reporting import figures, tables
from problems import alternating


class Bench:
    """Baselines, tests and transfers, as tables and plots in a folder.

    Baselines are tuned once: `tuning.json` keeps what was chosen, for as long
    as the task and the grids are the same. Single episodes of models, which
    take minutes, are kept in "outcomes".

    Args:
        folder: an existing folder.
        starts: starts of each schedule in a test.
        tuning_starts: starts of each candidate when baselines are tuned.
        fine: whether baselines' grids are fine.
        report: a function of one line of text.
        names: of the fixed schedules to run. Defaults to all.
        by: what baselines are tuned for, see `baselines.tune`. Defaults to
            `None`: the result.
    """

    def __init__(
        self,
        folder,
        starts,
        tuning_starts,
        fine,
        report,
        names=(),
        by=None,
    ):
        self.folder = pathlib.Path(folder)
        self.starts = starts
        self.tuning_starts = tuning_starts
        self.fine = fine
        self.say = report
        self.names = tuple(names)
        self.by = by
        self._kept = KeptOutcomes(self.folder / "outcomes", report)

    def baseline(self, task):
        """Runs fixed schedules, tuned before, on the test starts."""
        self._begin(task)
        self._compare("baselines", task, {}, self.chosen(task))

    def test(self, task, controller):
        """Runs a controller and fixed schedules on the test starts."""
        figures.check_available()
        controller.check_fits(task)
        self._begin(task)
        for line in controller.remarks(task):
            self.say(line)
        # Before the test is looked at.
        chosen = self.chosen(task)
        seeds = seeds_for("test", self.starts)
        look = SamplePicture(self.folder / "samples.png", seeds)
        learned, shares = comparison.run_controller(
            task, controller, self.starts, look, self._kept
        )
        if look.drawn:
            self.say(f"Samples: {look.path}")
        results = self._compare("test", task, learned, chosen)
        path = self.folder / "test.png"
        plots.plot_results(path, results, task.result_name)
        path = self.folder / "schedule.png"
        length = comparison.segment_length(task)
        groups = task.groups(seeds)
        plots.plot_schedule(path, shares, task.actions, length, groups)
        self.say(f"Plots: {self.folder}/schedule.png, test.png")

    def transfer(self, task_entry, controller, configs=(), data=None):
        """Runs a frozen controller on tasks that it was not trained on.

        Tasks whose data are not there are left out, with a note.

        Args:
            task_entry: a `tasks.Entry`.
            controller: a `ScheduleController`.
            configs: arguments of each task; the entry's own if empty.
            data: {"data_dir": folder} and the like, for those of the entry's
                own tasks that name a data set. Defaults to none.

        Raises:
            ValueError: if a setting has no effect, or no data are there.
        """
        made = {}
        own = () if configs else task_entry.transfers()
        if data and not any("dataset" in config for config in own):
            raise ValueError(
                f"{', '.join(data)} has no effect: no task of this transfer "
                "reads such data."
            )
        for config in configs or own:
            name = ", ".join(f"{k}={v}" for k, v in config.items())
            if "dataset" in config:
                config = config | (data or {})
            try:
                made[name] = task_entry.task(**config)
            except alternating.DataMissing as error:
                self.say(f"note: {name} is left out. {error}")
                continue
        if not made:
            raise ValueError("There is no task with data to transfer to.")
        tasks = made.values()
        evens = [baselines.even(task).label for task in tasks]
        self._check_names(evens, tasks)
        for task in tasks:
            task.keep_beside(self.folder)
        rows = comparison.transfer(
            *(made, controller, self.starts, self.tuning_starts, self.say),
            *(self.names or None, self._kept, self.by),
        )
        self._write_table("transfer", rows)
        self.say(f"Results: {self.folder}/transfer.csv")

    def controller(self, path=None):
        """The `ScheduleController` of a file; of the folder's best if None.

        Raises:
            CheckpointError: if it is missing, damaged or something else.
        """
        return ScheduleController.load(path or best_path(self.folder))

    def chosen(self, task):
        """{name: Candidate}: published schedules, named ones and tuned ones.

        An earlier tuning of the same task is used if it is there.
        """
        published, grids = map(
            self._wanted,
            (baselines.published(task), baselines.grids(task, self.fine)),
        )
        tuned = {}
        for name, label in self._tuned(task, grids).items():
            if label is not None:
                tuned[name] = next(c for c in grids[name] if c.label == label)
        return {**published, **baselines.by_label(task, self.names), **tuned}

    def _tuned(self, task, grids):
        """{name: label, or None where all have diverged} of these grids.

        What was tuned before is kept, also of other grids, or for another
        purpose.
        """
        settings = {"task": task.name, **task.get_config()}
        settings["tuning_starts"] = self.tuning_starts
        if task.data_digest is not None:
            settings["data"] = task.data_digest
        path = self.folder / "tuning.json"
        known = known_choices(path, settings)
        labels = {name: [c.label for c in grid] for name, grid in grids.items()}
        suffix = f", {self.by}" if self.by else ""
        keys = {name: name + suffix for name in grids}
        missing = [
            name
            for name in grids
            if known.get(keys[name], {}).get("candidates") != labels[name]
        ]
        if missing:
            self.say("Tuning fixed schedules on validation data:")
        for name in missing:
            chosen, rows = baselines.tune(
                *(task, self.tuning_starts, self.fine, self.say, [name]),
                *(self._kept, self.by),
            )
            best = chosen[name].label if name in chosen else None
            tuned = {"candidates": labels[name], "chosen": best, "rows": rows}
            known[keys[name]] = tuned
            keep_choices(path, settings, known)
            rows = [row for each in known.values() for row in each["rows"]]
            tables.write_csv(self.folder / "tuning.csv", rows)
        return {name: known[keys[name]]["chosen"] for name in grids}

    def _wanted(self, schedules):
        return {
            name: each
            for name, each in schedules.items()
            if not self.names or name in self.names
        }

    def _check_names(self, published, tasks):
        """Raises ValueError for a schedule that none of the tasks has."""
        grids = dict(
            pair for task in tasks for pair in baselines.grids(task).items()
        )
        known = dict.fromkeys([*published, *grids])
        labels = {each.label for grid in grids.values() for each in grid}
        for name in self.names:
            if name not in known and name not in labels:
                raise ValueError(
                    f"Unknown fixed schedule {name!r}. Known: "
                    f"{', '.join(known)}, and their settings, such as "
                    f"{next(iter(grids.values()))[0].label!r}."
                )

    def _begin(self, task):
        """Checks names, lets a task keep files, tells how far to trust it."""
        self._check_names(baselines.published(task), [task])
        task.keep_beside(self.folder)
        for line in task.remarks():
            self.say(line)
        rows = task.sanity_rows()
        if rows:
            tables.write_csv(self.folder / "scores.csv", rows)
            self.say(tables.format_table(rows))

    def _compare(self, name, task, learned, chosen):
        """Adds fixed schedules to results, and writes files of that name."""
        fixed = comparison.run_baselines(task, chosen, self.starts, self._kept)
        results = learned | fixed
        single = [
            {
                **{"schedule": key, "setting": each.label, "start": seed},
                "test": float(each.results[i]),
                **{name: float(x[i]) for name, x in each.details.items()},
            }
            for key, each in results.items()
            for i, seed in enumerate(seeds_for("test", len(each.results)))
        ]
        tables.write_csv(self.folder / f"{name}.csv", single)
        self._write_table(f"{name}_summary", comparison.summary(task, results))
        self._write_curves(task, results)
        self.say(f"Results: {self.folder}/{name}_summary.csv, {name}.csv")
        return results

    def _write_curves(self, task, results):
        """Results over updates, where they were kept: a table and a plot."""
        curves = {name: x.curves for name, x in results.items() if x.curves}
        rows = [
            {
                **{"schedule": name, "start": start, "updates": updates},
                task.result_name: result,
            }
            for name, each in curves.items()
            for start, curve in zip(seeds_for("test", len(each)), each)
            for updates, result in curve
        ]
        if rows:
            tables.write_csv(self.folder / "curves.csv", rows)
            path = self.folder / "curves.png"
            plots.plot_curves(path, curves, task.result_name)
            self.say(f"Results over updates: {self.folder}/curves.csv, {path}")

    def _write_table(self, name, rows):
        tables.write_csv(self.folder / f"{name}.csv", rows)
        self.say(tables.format_table(rows))


def keep_choices(path, settings, known):
    """Writes what was tuned: see `known_choices`."""
    content = {"settings": settings, "known": known}
    content = json.loads(json.dumps(content, default=checks.plain))
    content["digest"] = checkpointing.digest(content)
    folders.write_text(path, json.dumps(content, indent=1) + "\n")


def known_choices(path, settings):
    """What was tuned before: {baseline: its grid and what was chosen}.

    The dictionaries have "candidates" (labels), "chosen" (one of them; None
    where all have diverged) and "rows", those of a table.

    Args:
        path: its file.
        settings: what it must have been made with; nothing is known otherwise.

    Raises:
        CheckpointError: if the file is not what was written.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop("digest", None)
        # Older versions wrote none.
        if digest not in (None, checkpointing.digest(content)):
            raise ValueError("its digest is another one")
        settings = json.loads(json.dumps(settings, default=checks.plain))
        is_same = content["settings"] == settings
        # They kept something else, too.
        return content.get("known", {}) if is_same and digest else {}
    except Exception as error:
        # Whatever a reader of damaged JSON meets.
        raise checkpointing.CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}). Delete it "
            "to tune anew."
        ) from error
