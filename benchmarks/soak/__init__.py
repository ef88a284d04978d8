"""A site that is used and broken at random for as long as wanted, and what it promises meanwhile.

`plan` says what happens when (pure, from a seed), `player` makes it happen on the testbed, `watch` looks
at the daemons, `verdict` judges (pure), `command` prints.
"""
