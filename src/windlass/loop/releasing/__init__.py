"""What a task serves, variants on a share of live traffic, and the way back.

A file each, in the order in which it happens: `releases` (what is live, and every change that led there); `trial` (what
a trial was begun with, and its history); `assigning` (who gets which variant), `routing` and `tasks` (calls go there,
and say so on their traces); `measuring` (what one trace says) and `counting` (what all of a trial add up to, brought up
to date by what is new); `watching` (looks, and what follows: promotion, rollback, other shares, which `bandit` finds);
`showing` (a trial as text).
"""
