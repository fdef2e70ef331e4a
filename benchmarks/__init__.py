"""The costs of coreflow, against something everybody knows: `json.loads` for the core, `docker stack deploy` for the Swarm."""
