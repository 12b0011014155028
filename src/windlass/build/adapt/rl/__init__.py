"""Reinforcement learning: a model writes answers, code judges them, and what was judged better becomes likelier.

losses.py      pure functions of log-probabilities
advantages.py  how much better an answer was than expected, and how much each of its tokens weighs
rewards/       what judges answers, by rules that a program can check
rollouts.py    who writes the answers
scoring.py     log-probabilities of what was written, in the arithmetic of training
practice.py    one step: answers, rewards, advantages, batches
objective.py   GRPO and PPO as objectives of the training loop
"""
