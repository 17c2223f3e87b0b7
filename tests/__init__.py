"""EdgeKit's tests. A package, so that `tests.zoo` is ours and not one that a library left in site-packages."""
