"""Every registered task, found in the registry, so that a new one is tested without an edit."""

import gymnasium as gym
import pytest
from gymnasium.envs.registration import load_env_creator

from xlstm_rl.envs.tasks.task import TaskVectorEnv

VECTOR_FORMS = {
    env_id.removeprefix("xlstm_rl/"): load_env_creator(spec.vector_entry_point)
    for env_id, spec in gym.registry.items()
    if spec.namespace == "xlstm_rl" and spec.vector_entry_point is not None
}
TASKS = {name: form for name, form in VECTOR_FORMS.items() if issubclass(form, TaskVectorEnv)}


@pytest.fixture(params=TASKS)
def name(request):
    """The name of every task, such as `TMaze-v0`."""
    return request.param


@pytest.fixture
def vector_form(name):
    """The class of that task's vector form."""
    return TASKS[name]
