"""A client's whole training loop: stable-baselines3's PPO on CartPole, with its policy accelerated."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fastact.torch as ft
from fastact.torch.containers import is_ours

pytest.importorskip("stable_baselines3")
cloudpickle = pytest.importorskip("cloudpickle")

# last, so that nothing of the checkout comes before what is installed
sys.path.append(str(Path(__file__).resolve().parents[2]))

from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.policies import ActorCriticPolicy  # noqa: E402

from bench import ppo  # noqa: E402

SETTINGS = {
    "default": {},
    "relu": {
        "n_steps": 256,
        "policy_kwargs": {"activation_fn": nn.ReLU, "net_arch": {"pi": [32], "vf": [64, 16]}},
    },
    "clipped": {"n_steps": 256, "batch_size": 32, "clip_range_vf": 0.2, "ent_coef": 0.01, "target_kl": 1.0},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model():
    """An accelerated PPO, after one update."""
    settings = {"n_steps": 128}
    model = ppo.learner(ppo.record(**settings), "accelerated", **settings)
    model.train()
    return model


@pytest.fixture
def observations():
    return np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)


def actions(policy, observations):
    """The actions, and what they and the values were computed from."""
    policy.set_training_mode(False)
    chosen, _ = policy.predict(observations, deterministic=True)
    with torch.no_grad():
        x = torch.from_numpy(observations)
        return (
            chosen,
            policy.get_distribution(x).distribution.logits.numpy(),
            policy.predict_values(x).numpy(),
        )


def assert_equal_actions(plain, accelerated):
    """Actions are the same, logits and values but for rounding."""
    np.testing.assert_array_equal(plain[0], accelerated[0])
    for got, wanted in zip(accelerated[1:], plain[1:], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def assert_same_bits(got, wanted):
    for each, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(each, other)


def is_accelerated(policy):
    return any(is_ours(vars(module).get("forward")) for module in policy.modules())


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_of_ten_updates_are_those_of_pytorch(name):
    settings = SETTINGS[name]
    recorder = ppo.record(**settings)
    found = {each: ppo.losses(ppo.learner(recorder, each, **settings)) for each in ppo.CONTENDERS}
    value = found["plain"]["value"]
    assert value[-1] < value[0]
    for loss, apart in ppo.differences(found).items():
        assert apart <= 1e-4, loss


def test_accelerate_fuses_the_networks_and_keeps_parameters_and_optimiser():
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    policy = model.policy
    before = {name: (value, value.detach().clone()) for name, value in policy.named_parameters()}
    state = list(policy.state_dict())
    names = {change.name.split(".")[1] for change in ft.accelerate(policy).replaced}
    assert {"policy_net", "value_net"} <= names
    assert list(policy.state_dict()) == state
    assert list(before) == [name for name, _ in policy.named_parameters()]
    for name, value in policy.named_parameters():
        assert value is before[name][0]
        assert torch.equal(value, before[name][1])
    learned = [value for group in policy.optimizer.param_groups for value in group["params"]]
    assert {id(value) for value in learned} == {id(value) for value, _ in before.values()}
    assert policy.optimizer.param_groups[0]["eps"] == 1e-5


def test_saved_model_loads_plain_with_equal_actions(model, observations, tmp_path):
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    assert is_accelerated(model.policy)
    assert not is_accelerated(loaded.policy)
    for each in (observations, observations[:1]):
        assert_equal_actions(actions(loaded.policy, each), actions(model.policy, each))
    ft.accelerate(loaded.policy)
    assert_same_bits(actions(loaded.policy, observations), actions(model.policy, observations))
    for got, wanted in zip(
        loaded.policy.optimizer.state.values(), model.policy.optimizer.state.values(), strict=True
    ):
        assert torch.equal(got["exp_avg"], wanted["exp_avg"])


def test_saved_policy_and_pickle_load_plain_with_equal_actions(model, observations, tmp_path):
    model.policy.save(tmp_path / "policy")
    for loaded in (
        ActorCriticPolicy.load(tmp_path / "policy", device="cpu"),
        cloudpickle.loads(cloudpickle.dumps(model.policy)),
    ):
        assert not is_accelerated(loaded)
        assert_equal_actions(actions(loaded, observations), actions(model.policy, observations))


def test_deep_copy_is_accelerated_and_has_weights_of_its_own(model, observations):
    before = actions(model.policy, observations)  # after an update the policy holds logits that no copy takes
    twin = copy.deepcopy(model.policy)
    assert is_accelerated(twin)
    assert_same_bits(actions(twin, observations), before)
    twin.load_state_dict(PPO("MlpPolicy", "CartPole-v1", seed=5, device="cpu").policy.state_dict())
    assert_same_bits(actions(model.policy, observations), before)
    assert not np.array_equal(actions(twin, observations)[1], before[1])


def test_loaded_model_learns_on(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=model.get_env(), device="cpu")
    ft.accelerate(loaded.policy)
    before = loaded.policy.mlp_extractor.policy_net[0].weight.detach().clone()
    loaded.learn(2 * loaded.n_steps)
    after = loaded.policy.mlp_extractor.policy_net[0].weight
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)


def test_restore_gives_pytorchs_forwards_again(model, observations):
    accelerated = actions(model.policy, observations)
    ft.restore(model.policy)
    assert not is_accelerated(model.policy)
    assert_equal_actions(actions(model.policy, observations), accelerated)
