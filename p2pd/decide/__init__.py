"""Every choice p2pd makes, as pure code: events and `now` in, actions out."""
