"""What a pool publishes for its agents and miners: RoutingSlices with twins, system prompts and pod addresses."""
