"""What a policy reads beside the observation: previous action and reward, first-step flag, mask."""
