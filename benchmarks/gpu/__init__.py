"""What a GPU is for, measured in one command of minutes."""
