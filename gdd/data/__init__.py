"""From files to uint8 tensors to augmented classifier inputs."""
