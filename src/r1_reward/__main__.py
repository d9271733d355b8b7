"""``python -m r1_reward`` is the ``r1-reward`` command; launchers such as ``accelerate launch -m`` need a module."""

from r1_reward.cli import main

if __name__ == "__main__":
    main()
