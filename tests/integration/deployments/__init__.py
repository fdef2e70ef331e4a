"""What earlier versions sent to an empty Swarm, and how it is sent again."""
