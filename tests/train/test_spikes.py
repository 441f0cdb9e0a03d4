"""Spikes against a median by hand; what a restart remembers."""

import pytest

from train.spikes import SpikeConfig, Spikes


def test_a_spike_is_beyond_its_factor_times_the_running_median():
    spikes = Spikes(SpikeConfig(loss=2.0, grad_norm=5.0, window=20))
    for value in range(1, 21):
        assert spikes.look_at(loss=float(value), grad_norm=1.0) == {}
    assert spikes.look_at(loss=21.0, grad_norm=1.0) == {}  # the median of 1 … 20 is 10.5, and 21 is not beyond 21
    assert spikes.look_at(loss=23.01, grad_norm=1.0) == {"loss": 23.01, "loss_median": 11.5}  # now of 2 … 21
    assert spikes.look_at(loss=1.0, grad_norm=5.01) == {"grad_norm": 5.01, "grad_norm_median": 1.0}
    assert spikes.look_at(loss=100.0, grad_norm=100.0).keys() == {
        "loss", "loss_median", "grad_norm", "grad_norm_median",
    }  # fmt: skip
    assert spikes.num == 3


def test_nothing_is_a_spike_before_twenty_steps_or_with_a_factor_of_zero():
    spikes = Spikes(SpikeConfig(loss=0, grad_norm=2.0))
    assert not any(spikes.look_at(loss=2.0**step, grad_norm=2.1**step) for step in range(20))
    assert spikes.look_at(loss=1e9, grad_norm=1e9).keys() == {"grad_norm", "grad_norm_median"}


def test_a_restart_remembers_the_median_and_the_count():
    config = SpikeConfig(window=20)
    first, second = Spikes(config), Spikes(config)
    for value in [1.0] * 25 + [9.0]:
        first.look_at(loss=value, grad_norm=value)
    second.load_state_dict(first.state_dict())
    assert second.num == 1
    assert second.look_at(loss=3.0, grad_norm=3.0) == first.look_at(loss=3.0, grad_norm=3.0) != {}


@pytest.mark.parametrize("wrong", [{"window": 10}, {"loss": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="spikes"):
        SpikeConfig(**wrong)
