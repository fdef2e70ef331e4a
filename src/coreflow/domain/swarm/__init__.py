"""The objects of a Swarm: how we name and describe them, what is observed of them, what is done to them."""
