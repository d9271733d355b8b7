"""Who answers: a model in this process, servers, or a scalar model."""
