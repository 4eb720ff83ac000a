"""Every preset is a valid `algorithm:` section with its paper's settings, and keys given beside it win."""

import pytest
from pydantic import ValidationError

from agapo.algorithm.presets import PRESETS
from agapo.recipe.algorithm import AlgorithmConfig

EXPECTED = {
    # (group baseline, group std, global, clip low, clip high, KL, its estimator, aggregation,
    #  penalty, drops all correct, drops all wrong)
    "agapo": ("loo", False, "batch", None, None, 0.01, "reward_to_go", "sequence", 0.1, True, False),
    "grpo": ("mean", True, "none", 0.2, 0.2, 0.04, "k3", "response_mean", 0.0, False, False),
    "dapo": ("mean", True, "none", 0.2, 0.28, 0.0, "reward_to_go", "token", 0.0, True, True),
    "rloo": ("loo", False, "none", None, None, 0.05, "sequence", "sequence", 0.0, False, False),
    "reinforce++": ("mean", False, "batch", 0.2, 0.2, 0.01, "k2", "token", 0.0, False, False),
}


def settings(config: AlgorithmConfig) -> tuple:
    clip = config.clip
    return (
        config.advantage.group,
        config.advantage.group_std,
        config.advantage.batch,
        clip and clip.low,
        clip and clip.high,
        config.kl.coefficient,
        config.kl.estimator,
        config.aggregation,
        config.all_wrong_penalty,
        config.drop_all_correct,
        config.drop_all_wrong,
    )


def test_every_preset_is_expected_here():
    assert set(PRESETS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
class TestEach:
    def test_settings(self, name):
        config = AlgorithmConfig(preset=name)
        assert config.preset == name
        assert settings(config) == EXPECTED[name]

    def test_key_beside_it_wins(self, name):
        config = AlgorithmConfig(preset=name, aggregation="token", all_wrong_penalty=0.7)
        assert (config.aggregation, config.all_wrong_penalty) == ("token", 0.7)

    def test_nested_key_wins_and_leaves_its_neighbours(self, name):
        config = AlgorithmConfig(preset=name, kl={"coefficient": 0.5}, advantage={"global": "batch"})
        *_, expected_estimator = EXPECTED[name][:7]
        assert (config.kl.coefficient, config.kl.estimator) == (0.5, expected_estimator)
        assert (config.advantage.batch, config.advantage.group) == ("batch", EXPECTED[name][0])

    def test_clip_can_be_taken_away_or_given(self, name):
        assert AlgorithmConfig(preset=name, clip=None).clip is None
        given = AlgorithmConfig(preset=name, clip={"low": 0.1, "high": 0.4}).clip
        assert given is not None and (given.low, given.high) == (0.1, 0.4)

    def test_reading_one_does_not_change_the_preset(self, name):
        AlgorithmConfig(preset=name, kl={"coefficient": 9}, clip={"low": 0.5})
        assert settings(AlgorithmConfig(preset=name)) == EXPECTED[name]

    def test_comes_back_from_its_own_dump(self, name):
        """Resolved recipes are written to run directories, and read again."""
        config = AlgorithmConfig(preset=name, clip=None, kl={"coefficient": 0.3})
        assert AlgorithmConfig.model_validate(config.model_dump(mode="json", by_alias=True)) == config


def test_default_is_agapo():
    assert settings(AlgorithmConfig()) == EXPECTED["agapo"]


def test_half_a_clip_keeps_the_presets_other_side():
    clip = AlgorithmConfig(preset="dapo", clip={"low": 0.1}).clip
    assert clip is not None and (clip.low, clip.high) == (0.1, 0.28)


def test_mistyped_preset():
    with pytest.raises(ValidationError, match="preset 'grop' is unknown; did you mean 'grpo'"):
        AlgorithmConfig.model_validate({"preset": "grop"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"all_wrong_penalty": -0.1},
        {"importance": {"cap": 0.5}},
        {"clip": {"low": 1.0}},
        {"kl": {"coefficient": -1}},
        {"kl": {"estimator": "k1"}},
        {"advantage": {"std_floor": 0}},
        {"advantage": {"batch": "none"}},
        {"updates_per_batch": 0},
        {"unknown": 1},
    ],
)
def test_senseless_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        AlgorithmConfig.model_validate(wrong)
