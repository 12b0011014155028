"""Recipe files: what ships works, and each mistake gets one clear error."""

from __future__ import annotations

import pytest

from windlass.build.training.recipe import parse_change, read_recipe, shipped_recipes
from windlass.build.training.settings import PretrainSettings
from windlass.core.errors import ConfigError, InputError, NotFound, WindlassError


def test_shipped_recipes_are_valid_and_say_what_they_are():
    found = shipped_recipes()
    assert "decoder" in found
    for name, line in found.items():
        assert read_recipe(name).schedule.minutes is not None, name
        assert len(line) > 20


def test_no_recipe_means_the_defaults_and_changes_win():
    assert read_recipe() == PretrainSettings()
    changed = read_recipe("decoder", {"model.depth": 2, "data.kinds": ["prose"], "model.config.rope_theta": 5e4})
    assert (changed.model.depth, changed.data.kinds) == (2, ("prose",))
    assert changed.model.config == {"rope_theta": 5e4}
    assert changed.objective == read_recipe("decoder").objective


def test_settings_come_back_from_json_as_they_were():
    import json

    settings = read_recipe("decoder", {"data.kinds": ["a"], "model.config.rope_theta": 5e4})
    values = settings.as_json()
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.depth=6", ("model.depth", 6)),
        ("optimizer.betas=[0.9, 0.99]", ("optimizer.betas", [0.9, 0.99])),
        ("data.isolate=true", ("data.isolate", True)),
        ('run.name="x=y"', ("run.name", "x=y")),
        ("run.precision=fp32", ("run.precision", "fp32")),
    ],
)
def test_changes_on_the_command_line_are_toml_or_text(text, expected):
    assert parse_change(text) == expected


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ("[model]\ndept = 3", "unknown key 'model.dept'", "model.depth"),
        ("[modle]\ndepth = 3", "unknown key 'modle'", "model"),
        ("[model]\ndepth = '3'", "'model.depth' is '3'", ""),
        ("[model]\ndepth = 0", "model.depth is 0, but must be at least 1", ""),
        ("[optimizer]\nmatrix_rate = 1e30", "optimizer.matrix_rate is 1e+30, but must be more than 0 and at most", ""),
        ("[optimizer]\nhead_rate = nan", "optimizer.head_rate is nan, but must be more than 0 and at most 10", ""),
        ("[optimizer]\nkind = 'sgd'", "'optimizer.kind' is 'sgd'", "'muon', 'adamw'"),
        ("[objective]\nkind = 'masked'", "does not train a model of architecture 'decoder'", "'causal'"),
        ("[objective]\nmask_share = 1.0", "objective.mask_share is 1", "0.15"),
        ("[schedule]\nsteps = 1\nminutes = 1", "Both schedule.minutes and schedule.steps", ""),
        ("[schedule]\nminutes = -1", "schedule.minutes is -1, but must be more than 0", ""),
        ("[run]\npatience = 2", "nothing is measured", "run.evaluate_steps"),
        ("[model\ndepth = 3", "is not valid TOML", "line"),
    ],
)
def test_each_mistake_has_one_clear_error(tmp_path, toml, message, hint):
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(WindlassError) as caught:
        read_recipe(path)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(NotFound) as caught:
        read_recipe("decodr")
    assert "Did you mean 'decoder'" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="names no key"):
        read_recipe(None, {"depth": 3})
    with pytest.raises(ConfigError, match="no change of a recipe"):
        parse_change("depth")
    with pytest.raises(InputError):
        read_recipe(None, {"run.evaluate_tokens": 0})
